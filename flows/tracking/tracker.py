"""MLflow: one parent run a pipeline run, one child run a stage. Stages see a Tracker and no MLflow.

All calls name their run (MLflow's own "active run" is bound to a thread). What a stage tells goes
through an outbox; only what needs an answer waits for one.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    LoggedModelOutput,
    Metric,
    Param,
    RunTag,
)
from mlflow.exceptions import MlflowException
from requests import RequestException
from sqlalchemy.exc import SQLAlchemyError

from data_catalog.redaction import redact_credentials
from data_catalog.storage.manifest import Manifest
from data_catalog.storage.receipts import MANIFEST_NAME
from data_catalog.storage.workspace import Workspace
from flows.terminal.errors import UserError
from flows.terminal.progress import Progress
from flows.tracking.open_runs import OpenRuns, end_abandoned
from flows.tracking.outbox import Message, Outbox
from flows.tracking.store import NEEDS_NEWER_SERVER, Store, open_client, open_store
from flows.tracking.system_metrics import watched
from pipeline.config.run import RunConfig
from pipeline.stages.dag import STAGES

_TIMEOUT_S = 60.0  # at the end of a run, with a server that is away
_INTERRUPTED_TIMEOUT_S = 5.0
_DIGEST_LENGTH = 36  # what MLflow stores of a data set's digest
_OUR_ID = "tld.id"  # tag of a run that was begun while MLflow was away


@dataclass(frozen=True, slots=True)
class StageTracker:
    """The Tracker of one stage: tells its run, shows progress."""

    run_id: str
    show: Progress
    outbox: Outbox
    root: Path

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        self.outbox.put(_metrics(self.run_id, values, step))

    def artifact(self, path: Path, folder: str = "") -> None:
        self.outbox.put(_artifact(self.root, self.run_id, path, folder))

    def progress(self, done: int, total: int, note: str = "") -> None:
        self.show.update(done, total, note)

    def warning(self, text: str) -> None:
        self.show.finish(f"warning: {text}")
        self.outbox.put(Message(self.run_id, "tags", {"tld.warning": text}))


@dataclass(frozen=True, slots=True)
class PipelineTracking:
    """The parent run, under which each stage opens a run of its own."""

    store: Store
    root: Path
    run_id: str
    outbox: Outbox
    open_runs: OpenRuns

    @contextlib.contextmanager
    def stage(
        self, name: str, config: RunConfig, parents: Mapping[str, Manifest]
    ) -> Iterator[StageTracker]:
        """The child run of a stage: its settings as params, its inputs with the runs that made
        them."""
        tags = {
            "mlflow.parentRunId": self.outbox.id_of(self.run_id),
            "mlflow.runName": name,
            "tld.stage": name,
        }
        for parent, manifest in parents.items():
            tags[f"tld.input.{parent}"] = manifest.made_by
        run_id = _begin(self.store, self.open_runs, self.outbox, tags)
        self.outbox.put(Message(run_id, "params", _params(config, name)))
        if parents:
            self.outbox.put(
                Message(run_id, "inputs", [_dataset(manifest) for manifest in parents.values()])
            )
        with Progress(name) as show:
            tracker = StageTracker(run_id, show, self.outbox, self.root)
            with _closing(self.outbox, run_id), watched(tracker):
                yield tracker

    def finished(self, tracker: StageTracker, manifest: Manifest) -> None:
        """Record a stage's manifest; where the output was fresh already, say so and name the run
        that made it."""
        fresh = manifest.made_by != tracker.run_id
        tags = {
            "tld.state": "fresh" if fresh else "made",
            "tld.made_by": manifest.made_by,
            "tld.folder": _below(self.root, manifest.folder),
        }
        if fresh:
            tags["mlflow.runName"] = f"{manifest.stage} (fresh)"
            tracker.show.finish(f"fresh: {manifest.folder}")
        else:
            tracker.show.finish(
                f"{manifest.rows} rows in {manifest.seconds:.0f} s: {manifest.folder}"
            )
        self.outbox.put(Message(tracker.run_id, "tags", tags))
        tracker.artifact(manifest.file(MANIFEST_NAME))
        if manifest.stage == "evaluate":
            tracker.metrics(manifest.figures["scores"], step=0)
            self.outbox.put(_metrics(self.run_id, manifest.figures["scores"], step=0))
            if fresh:
                tracker.artifact(manifest.file("grid.png"))
            self.outbox.put(_artifact(self.root, self.run_id, manifest.file("grid.png")))

    def log_model(
        self, tracker: StageTracker, config: RunConfig, model: Manifest, encodings: Manifest
    ) -> None:
        """Store the denoiser as a model that MLflow can find and load, unless it is. No run fails
        of that."""
        from flows.tracking.logged_model import log_model

        if not self.store.keeps_models:
            return
        if not self.outbox.drain(_TIMEOUT_S):
            tracker.show.finish(
                "warning: MLflow does not answer: the model is not in it; tld promote puts it there"
            )
            return
        client, run_id = self.store.client, self.outbox.id_of(tracker.run_id)
        with _refused_aloud(tracker, "the model is not in it; tld promote puts it there"):
            query = f"tags.`tld.fingerprint` = '{model.fingerprint}'"
            there = client.search_logged_models([self.store.experiment_id], query)
            if not any(logged.status == "READY" for logged in there):
                where = client, self.store.experiment_id, run_id
                logged = log_model(*where, model, encodings, 0, config.evaluate.sampling)
                client.log_outputs(
                    run_id, [LoggedModelOutput(logged.model_id, step=model.figures["steps"])]
                )

    def pass_gate(
        self,
        tracker: StageTracker,
        config: RunConfig,
        encodings: Manifest,
        model: Manifest,
        report: Manifest,
    ) -> None:
        """Register a model that reached what its run demands; crown it where it beats the
        champion."""
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
        if not self.outbox.drain(_TIMEOUT_S):
            tracker.show.finish(
                "warning: MLflow does not answer: the model is not registered; a rerun does it"
            )
            return
        client = self.store.client
        with _refused_aloud(tracker, "the model is not registered; a rerun does it"):
            registered = register(
                client, self.store.experiment_id, Candidate(config, encodings, model, report)
            )
            if registered.settled:
                return
            verdict = compare_with_champion(registered, champion(client, registered.name))
            if verdict.wins:
                set_champion(client, registered)
            mark_decided(client, registered)
            told = f"models:/{registered.name}/{registered.version}"
            tracker.show.finish(
                f"{told} {'is now the champion' if verdict.wins else 'registered'}: "
                f"{verdict.reason}"
            )


@contextlib.contextmanager
def _refused_aloud(tracker: StageTracker, loss: str) -> Iterator[None]:
    """Say what is lost if MLflow refuses something, and go on."""
    try:
        yield
    except (MlflowException, SQLAlchemyError, RequestException) as error:
        said = redact_credentials(str(error)).strip().partition("\n")[0][:300]
        tracker.show.finish(f"warning: MLflow refuses ({said}): {loss}")


@contextlib.contextmanager
def pipeline_run(config: RunConfig) -> Iterator[PipelineTracking]:
    """The parent run of a pipeline run, in the experiment of the run's name."""
    store, root = open_store(config), config.folder
    end_abandoned(root, store)
    say = Progress("mlflow").finish
    if not store.keeps_models:
        say(f"warning: runs are recorded, but no models: {NEEDS_NEWER_SERVER}")
    open_runs = OpenRuns(root, store)
    outbox = Outbox(partial(_deliver, store, root, open_runs), _kept(root, store), say)
    timeout_s = _TIMEOUT_S
    try:
        run_id = _begin(
            store, open_runs, outbox, {"mlflow.runName": config.name, "tld.stage": "pipeline"}
        )
        outbox.put(Message(run_id, "config", config.model_dump(mode="json")))
        with _closing(outbox, run_id):
            yield PipelineTracking(store, root, run_id, outbox, open_runs)
    except BaseException as error:
        if not isinstance(error, Exception):
            timeout_s = _INTERRUPTED_TIMEOUT_S
        raise
    finally:
        outbox.close(timeout_s)
        open_runs.close()


def gate_is_passed(config: RunConfig, report: Manifest) -> bool:
    """Whether nothing is left to do in MLflow's registry for a report. False where no MLflow
    answers."""
    from flows.tracking.registry import is_settled

    if not config.evaluate.require:
        return True
    try:
        return is_settled(open_client(config.folder), config.name, report)
    except (UserError, MlflowException):  # the run that follows says what is wrong
        return False


def _begin(store: Store, open_runs: OpenRuns, outbox: Outbox, tags: dict[str, str]) -> str:
    """Begin a run in MLflow; if that fails, under an id of ours, and the outbox creates it
    later."""
    started, tags = _now(), {**tags, "tld.host": socket.gethostname(), "tld.pid": str(os.getpid())}
    if not outbox.server_is_away:
        with contextlib.suppress(MlflowException, SQLAlchemyError, RequestException):
            run_id = str(store.client.create_run(store.experiment_id, started, tags).info.run_id)
            open_runs.add(run_id)
            return run_id
    run_id = uuid.uuid4().hex
    body = {
        "experiment_id": store.experiment_id,
        "start_time": started,
        "tags": {**tags, _OUR_ID: run_id},
    }
    outbox.put(Message(run_id, "create", body))
    return run_id


@contextlib.contextmanager
def _closing(outbox: Outbox, run_id: str) -> Iterator[None]:
    """End a run as its block ends: FINISHED, FAILED, or KILLED by an interrupt."""
    try:
        yield
    except Exception as error:
        outbox.put(Message(run_id, "tags", {"tld.error": redact_credentials(str(error))[:5000]}))
        outbox.put(_end(run_id, "FAILED"))
        raise
    except BaseException:
        outbox.put(_end(run_id, "KILLED"))
        raise
    outbox.put(_end(run_id, "FINISHED"))


def _metrics(run_id: str, values: Mapping[str, float], step: int) -> Message:
    now = _now()
    return Message(
        run_id, "metrics", [[name, float(value), now, step] for name, value in values.items()]
    )


def _artifact(root: Path, run_id: str, path: Path, folder: str = "") -> Message:
    return Message(run_id, "artifact", [_below(root, path), folder or None])


def _below(root: Path, path: Path) -> str:
    """A path relative to the workspace, which may be moved; of what lies elsewhere the whole
    path."""
    path, root = path.resolve(), root.resolve()
    return str(path.relative_to(root) if path.is_relative_to(root) else path)


def _end(run_id: str, status: str) -> Message:
    return Message(run_id, "end", [status, _now()])


def _now() -> int:
    return int(time.time() * 1000)


def _deliver(store: Store, root: Path, open_runs: OpenRuns, message: Message) -> str | None:
    """Tell MLflow; again does no harm. The id of a run that it creates."""
    client, run_id, body = store.client, message.run_id, message.body
    match message.kind:
        case "create":
            return _create(client, open_runs, body)
        case "params":
            client.log_batch(run_id, params=[Param(name, value) for name, value in body.items()])
        case "inputs":
            client.log_inputs(run_id, [_dataset_input(told) for told in body])
        case "config":
            client.log_dict(run_id, body, "config.yaml")
        case "metrics":
            client.log_batch(run_id, metrics=[Metric(*metric) for metric in body])
        case "tags":
            client.log_batch(run_id, tags=[RunTag(name, value) for name, value in body.items()])
        case "artifact":
            client.log_artifact(run_id, str(root.resolve() / body[0]), body[1])
        case "end":
            client.set_terminated(run_id, *body)
    return None


def _create(client: MlflowClient, open_runs: OpenRuns, body: dict[str, Any]) -> str:
    """The run that was begun while MLflow was away; it may be there already, created by an attempt
    that was cut off."""
    experiment_id, tags = body["experiment_id"], body["tags"]
    there = client.search_runs(
        [experiment_id], f"tags.`{_OUR_ID}` = '{tags[_OUR_ID]}'", max_results=1
    )
    run = there[0] if there else client.create_run(experiment_id, body["start_time"], tags)
    open_runs.add(run.info.run_id)
    return str(run.info.run_id)


def _kept(root: Path, store: Store) -> Path:
    """The file of what could not be sent to this MLflow."""
    return Workspace(root).mlflow_database.with_name(f"mlflow-outbox-{store.name}.jsonl").resolve()


def _params(config: RunConfig, stage: str) -> dict[str, str]:
    sections = {stage: getattr(config, stage)} | (
        {"model": config.model} if stage == "train" else {}
    )
    return {
        name if section == stage else f"{section}.{name}": str(value)
        for section, settings in sections.items()
        for name, value in settings.model_dump(mode="json").items()
    }


def _dataset(manifest: Manifest) -> dict[str, str]:
    """What is told of an output that a stage uses."""
    return {
        "name": STAGES[manifest.stage].makes,
        "digest": manifest.digest[:_DIGEST_LENGTH],
        "folder": f"{manifest.folder.parent.name}/{manifest.folder.name}",
        "rows": str(manifest.rows),
        "made_by": manifest.made_by,
    }


def _dataset_input(told: dict[str, str]) -> DatasetInput:
    dataset = Dataset(
        name=told["name"],
        digest=told["digest"],
        source_type="local",
        source=json.dumps({"uri": told["folder"]}),
        profile=json.dumps({"num_rows": int(told["rows"])}),
    )
    return DatasetInput(
        dataset, tags=[InputTag("mlflow.data.context", f"made by run {told['made_by']}")]
    )
