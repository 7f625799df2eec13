"""Runs in MLflow: one parent run per pipeline run, one child run per stage.

All calls name their run, because MLflow's own "active run" is bound to a thread. What a stage
reports goes through an outbox; only calls that need an answer wait for MLflow.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from mlflow.entities import LoggedModelOutput
from mlflow.exceptions import MlflowException
from requests import RequestException
from sqlalchemy.exc import SQLAlchemyError

from data_catalog.figures import EncodingsFigures, ModelFigures, ReportFigures
from data_catalog.redaction import redact_credentials
from data_catalog.storage.manifest import Manifest
from data_catalog.storage.receipts import MANIFEST_NAME
from data_catalog.storage.workspace import StageName, Workspace
from flows.terminal.errors import UserError
from flows.terminal.progress import Progress
from flows.tracking.delivery import deliver
from flows.tracking.messages import (
    inputs_message,
    params_message,
    relative_to_root,
    report_messages,
)
from flows.tracking.open_runs import OpenRuns, end_abandoned
from flows.tracking.outbox import Message, Outbox
from flows.tracking.pages import run_page_address, server_address
from flows.tracking.run_lifecycle import begin_run, closing_run, origin_tags
from flows.tracking.run_names import differing_settings, run_title, settings_until
from flows.tracking.stage_tracker import StageTracker
from flows.tracking.store import NEEDS_NEWER_SERVER, Store, open_client, open_store
from flows.tracking.system_metrics import watched
from flows.tracking.tensorboard_tracker import TensorBoardTracker, tensorboard_is_on
from pipeline.config.named_runs import run_name
from pipeline.config.run import RunConfig
from pipeline.config.typed_settings import typed_settings

_TIMEOUT_S = 60.0  # at the end of a run, if the server is unreachable
_INTERRUPTED_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class PipelineTracking:
    """The parent run, below which each stage opens a run of its own."""

    store: Store
    root: Path
    run_id: str
    name: str
    """That of the run in the workspace, or that of its config with the settings that differ."""
    outbox: Outbox
    open_runs: OpenRuns
    differing: Mapping[str, str]
    """The settings in which it differs from other runs of its name."""

    @contextlib.contextmanager
    def stage(
        self,
        name: StageName,
        config: RunConfig,
        parents: Mapping[str, Manifest],
        log: Callable[[str], None] = lambda _: None,
    ) -> Iterator[StageTracker]:
        """The child run of a stage, with its inputs and the runs that produced them. Params are
        only the settings that differ, because MLflow lists all of them above each image. What its
        progress shows goes to a log too."""
        phase = config.phase or ""
        model = config.evaluate.model if "distill" in parents else ""
        title = self.title(" ".join(filter(None, (name, model, phase))), name)
        tags = {"mlflow.parentRunId": self.outbox.id_of(self.run_id), "mlflow.runName": title}
        tags |= {"tld.stage": name, **({"tld.phase": phase} if phase else {})}
        for parent, manifest in parents.items():
            tags[f"tld.input.{parent}"] = manifest.made_by
        with Progress(f"{name} {phase}".rstrip(), log) as show:
            run_id = begin_run(self.store, self.open_runs, self.outbox, tags)
            self.outbox.put(params_message(run_id, settings_until(name, self.differing)))
            if parents:
                self.outbox.put(inputs_message(run_id, parents))
            tracker = StageTracker(run_id, title, show, self.outbox, self.root)
            with closing_run(self.outbox, run_id), watched(tracker):
                if tensorboard_is_on():
                    board = TensorBoardTracker(config, name, title, tracker.warning)
                    tracker = replace(tracker, others=(board,))
                yield tracker

    def title(self, name: str, stage: StageName | None = None) -> str:
        """A name with the settings that differ; for a stage, with those on which it may depend."""
        return run_title(name, settings_until(stage, self.differing) if stage else self.differing)

    def address_of(self, run_id: str, artifact: str = "") -> str:
        """The address of a run, or of one of its artifacts, in MLflow's pages."""
        run_id, server = self.outbox.id_of(run_id), server_address(self.store.client.tracking_uri)
        return run_page_address(server, self.store.experiment_id, run_id, artifact)

    def finished(self, tracker: StageTracker, manifest: Manifest) -> None:
        """Record a stage's manifest. If the output was fresh already, print so and record the run
        that produced it, and its scores in MLflow alone: event files have them already."""
        fresh = manifest.made_by != tracker.run_id
        tags = {
            "tld.state": "fresh" if fresh else "made",
            "tld.made_by": manifest.made_by,
            "tld.folder": relative_to_root(self.root, manifest.folder),
        }
        if fresh:
            tags["mlflow.runName"] = f"{tracker.title} (fresh)"
            tracker.show.finish(f"fresh: {manifest.folder}")
        else:
            seconds = f"{manifest.seconds:.0f} s"
            tracker.show.finish(f"{manifest.rows} rows in {seconds}: {manifest.folder}")
            if manifest.stage == "encode" and (note := EncodingsFigures.of(manifest).round_trips):
                tracker.show.finish(note)
        self.outbox.put(Message(tracker.run_id, "tags", tags))
        tracker.artifact(manifest.file(MANIFEST_NAME))
        if manifest.stage == "evaluate":
            if fresh:
                replace(tracker, others=()).metrics(ReportFigures.of(manifest).scores, step=0)
                tracker.artifact(manifest.file("grid.png"))
            for message in report_messages(self.root, self.run_id, manifest):
                self.outbox.put(message)

    def log_model(
        self, tracker: StageTracker, config: RunConfig, model: Manifest, encodings: Manifest
    ) -> None:
        """Store the denoiser as a model that MLflow can find and load, unless it is stored already.
        A failure is a warning and does not fail the run."""
        from flows.tracking.logged_model import ModelRun, log_model

        if not self.store.keeps_models:
            return
        loss = "the model is not stored in MLflow; tld promote stores it"
        if not self.outbox.drain(_TIMEOUT_S):
            tracker.show.finish(f"warning: MLflow is unreachable: {loss}")
            return
        client, run_id = self.store.client, self.outbox.id_of(tracker.run_id)
        with _warn_if_refused(tracker, loss):
            query = f"tags.`tld.fingerprint` = '{model.fingerprint}'"
            logged_models = client.search_logged_models([self.store.experiment_id], query)
            if not any(logged.status == "READY" for logged in logged_models):
                run = ModelRun(client, self.store.experiment_id, run_id)
                logged = log_model(run, model, encodings, 0, config.evaluate.sampling)
                steps = ModelFigures.of(model).steps
                client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=steps)])

    def pass_gate(
        self,
        tracker: StageTracker,
        config: RunConfig,
        encodings: Manifest,
        model: Manifest,
        report: Manifest,
    ) -> None:
        """Register a model that reached evaluate.require, and make it the champion if it beats the
        present one."""
        from flows.tracking.registry import (
            Candidate,
            champion,
            compare_with_champion,
            mark_decided,
            register,
            set_champion,
        )

        if not self.store.keeps_models:
            tracker.show.finish(f"warning: the model is not registered: {NEEDS_NEWER_SERVER}")
            return
        loss = "the model is not registered; run the same command again to register it"
        if not self.outbox.drain(_TIMEOUT_S):
            tracker.show.finish(f"warning: MLflow is unreachable: {loss}")
            return
        client = self.store.client
        with _warn_if_refused(tracker, loss):
            registered = register(
                client, self.store.experiment_id, Candidate(config, encodings, model, report)
            )
            if registered.settled:
                return
            verdict = compare_with_champion(registered, champion(client, registered.name))
            if verdict.wins:
                set_champion(client, registered)
            mark_decided(client, registered)
            outcome = "is now the champion" if verdict.wins else "registered"
            tracker.show.finish(
                f"models:/{registered.name}/{registered.version} {outcome}: {verdict.reason}"
            )


@contextlib.contextmanager
def _warn_if_refused(tracker: StageTracker, loss: str) -> Iterator[None]:
    """If MLflow refuses something, print what is lost, and continue."""
    try:
        yield
    except (MlflowException, SQLAlchemyError, RequestException) as error:
        reason = redact_credentials(str(error)).strip().partition("\n")[0][:300]
        tracker.show.finish(f"warning: MLflow refuses ({reason}): {loss}")


@contextlib.contextmanager
def pipeline_run(config: RunConfig) -> Iterator[PipelineTracking]:
    """The parent run of a pipeline run, in the experiment with the run's name."""
    store, root = open_store(config), config.folder
    end_abandoned(root, store)
    say = Progress("mlflow").finish
    if not store.keeps_models:
        say(f"warning: runs are recorded, but no models: {NEEDS_NEWER_SERVER}")
    open_runs = OpenRuns(root, store)
    outbox = Outbox(partial(deliver, store, root, open_runs), _buffer_file(root, store), say)
    timeout_s = _TIMEOUT_S
    try:
        differing = differing_settings(config, store)
        name = run_name(config) or run_title(config.name, differing)
        tags = {"mlflow.runName": name, "tld.stage": "pipeline"}
        run_id = begin_run(store, open_runs, outbox, tags | origin_tags())
        outbox.put(Message(run_id, "config", config.model_dump(mode="json")))
        outbox.put(params_message(run_id, typed_settings(config)))
        with closing_run(outbox, run_id):
            yield PipelineTracking(store, root, run_id, name, outbox, open_runs, differing)
    except BaseException as error:
        if not isinstance(error, Exception):
            timeout_s = _INTERRUPTED_TIMEOUT_S
        raise
    finally:
        outbox.close(timeout_s)
        open_runs.close()


def gate_is_passed(config: RunConfig, report: Manifest) -> bool:
    """Whether nothing is left to do in MLflow's registry for a report. False if MLflow does not
    answer."""
    from flows.tracking.registry import is_settled

    if not config.evaluate.require:
        return True
    try:
        return is_settled(open_client(config.folder), config, report)
    except (UserError, MlflowException):  # the run that follows reports what is wrong
        return False


def _buffer_file(root: Path, store: Store) -> Path:
    """The file of messages that could not be sent to this MLflow."""
    return Workspace(root).mlflow_database.with_name(f"mlflow-outbox-{store.name}.jsonl").resolve()
