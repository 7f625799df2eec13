"""MLflow: one parent run a pipeline run, one child run a stage. Stages see a Tracker and no MLflow.

All calls name their run (MLflow's own "active run" is bound to a thread). What a stage tells goes through an outbox;
only what needs an answer waits for one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

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

from data_catalog.manifest import MANIFEST_NAME, Manifest
from data_catalog.redacted import without_secrets
from data_catalog.workspace import Workspace
from flows.mlflow_store import open_store, process_tags, tracking_uri
from flows.outbox import Message, Outbox, is_away
from flows.progress import Progress
from flows.system_metrics import watched
from pipeline.config import RunConfig
from pipeline.stage import STAGES

_PATIENCE_S = 60.0  # at the end of a run, with a server that is away
_INTERRUPTED_PATIENCE_S = 5.0
_DIGEST_LENGTH = 36  # what MLflow stores of a data set's digest


@dataclass(frozen=True, slots=True)
class StageTracker:
    """The Tracker of one stage: tells its run, shows progress."""

    run_id: str
    show: Progress
    outbox: Outbox

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        self.outbox.put(_metrics(self.run_id, values, step))

    def artifact(self, path: Path, folder: str = "") -> None:
        self.outbox.put(_artifact(self.run_id, path, folder))

    def progress(self, done: int, total: int, note: str = "") -> None:
        self.show.update(done, total, note)

    def warning(self, text: str) -> None:
        self.show.finish(f"warning: {text}")
        self.outbox.put(Message(self.run_id, "tags", {"tld.warning": text}))


@dataclass(frozen=True, slots=True)
class PipelineTracking:
    """The parent run, under which each stage opens a run of its own."""

    client: MlflowClient
    experiment_id: str
    run_id: str
    outbox: Outbox

    @contextlib.contextmanager
    def stage(self, name: str, config: RunConfig, parents: Mapping[str, Manifest]) -> Iterator[StageTracker]:
        """The child run of a stage: its settings as params, its inputs with the runs that made them."""
        tags = {"mlflow.parentRunId": self.run_id, "mlflow.runName": name, "tld.stage": name, **process_tags()}
        for parent, manifest in parents.items():
            tags[f"tld.input.{parent}"] = manifest.made_by
        run_id = self.client.create_run(self.experiment_id, tags=tags).info.run_id
        self.client.log_batch(run_id, params=_params(config, name))
        if parents:
            self.client.log_inputs(run_id, [_dataset(manifest) for manifest in parents.values()])
        with Progress(name) as show:
            tracker = StageTracker(run_id, show, self.outbox)
            with _closing(self.outbox, run_id), watched(tracker):
                yield tracker

    def finished(self, tracker: StageTracker, manifest: Manifest) -> None:
        """Record a stage's manifest; where the output was fresh already, say so and name the run that made it."""
        fresh = manifest.made_by != tracker.run_id
        tags = {
            "tld.state": "fresh" if fresh else "made",
            "tld.made_by": manifest.made_by,
            "tld.folder": str(manifest.folder.resolve()),
        }
        if fresh:
            tags["mlflow.runName"] = f"{manifest.stage} (fresh)"
            tracker.show.finish(f"fresh: {manifest.folder}")
        else:
            tracker.show.finish(f"{manifest.rows} rows in {manifest.seconds:.0f} s: {manifest.folder}")
        self.outbox.put(Message(tracker.run_id, "tags", tags))
        tracker.artifact(manifest.file(MANIFEST_NAME))
        if manifest.stage == "evaluate":
            tracker.metrics(manifest.figures["scores"], step=0)
            self.outbox.put(_metrics(self.run_id, manifest.figures["scores"], step=0))
            if fresh:
                tracker.artifact(manifest.file("grid.png"))
            self.outbox.put(_artifact(self.run_id, manifest.file("grid.png")))

    def log_model(self, tracker: StageTracker, config: RunConfig, model: Manifest, encodings: Manifest) -> None:
        """Store the denoiser as a model that MLflow can find and load, unless it is."""
        from flows.mlflow_model import log_model

        if not self.outbox.drain(_PATIENCE_S):
            tracker.show.finish("warning: MLflow does not answer: the model is not in it; tld promote puts it there")
            return
        query = f"tags.`tld.fingerprint` = '{model.fingerprint}'"
        if any(there.status == "READY" for there in self.client.search_logged_models([self.experiment_id], query)):
            return
        where = self.client, self.experiment_id, tracker.run_id
        logged = log_model(*where, model, encodings, 0, config.evaluate.sampling)
        self.client.log_outputs(tracker.run_id, [LoggedModelOutput(logged.model_id, step=model.figures["steps"])])

    def pass_gate(
        self, tracker: StageTracker, config: RunConfig, encodings: Manifest, model: Manifest, report: Manifest
    ) -> None:
        """Register a model that reached what its run demands; crown it where it beats the champion."""
        from flows.registry import Candidate, champion, contest, crown, register, settle

        if not self.outbox.drain(_PATIENCE_S):
            tracker.show.finish("warning: MLflow does not answer: the model is not registered; a rerun does it")
            return
        candidate = Candidate(config, encodings, model, report)
        registered = register(self.client, self.experiment_id, candidate)
        if registered.settled:
            return
        verdict = contest(registered, champion(self.client, registered.name))
        if verdict.wins:
            crown(self.client, registered)
        settle(self.client, registered)
        told = f"models:/{registered.name}/{registered.version}"
        tracker.show.finish(f"{told} {'is now the champion' if verdict.wins else 'registered'}: {verdict.reason}")


@contextlib.contextmanager
def pipeline_run(config: RunConfig) -> Iterator[PipelineTracking]:
    """The parent run of a pipeline run, in the experiment of the run's name."""
    client, experiment_id = open_store(config)
    tags = {"mlflow.runName": config.name, "tld.stage": "pipeline", **process_tags()}
    run_id = client.create_run(experiment_id, tags=tags).info.run_id
    client.log_dict(run_id, config.model_dump(mode="json"), "config.yaml")
    outbox = Outbox(partial(_deliver, client), _kept(config.folder, client), Progress("mlflow").finish)
    patience_s = _PATIENCE_S
    try:
        with _closing(outbox, run_id):
            yield PipelineTracking(client, experiment_id, run_id, outbox)
    except BaseException as error:
        if not isinstance(error, Exception):
            patience_s = _INTERRUPTED_PATIENCE_S
        raise
    finally:
        outbox.close(patience_s)


def gate_is_passed(config: RunConfig, report: Manifest) -> bool:
    """Whether nothing is left to do in MLflow's registry for a report. False where no MLflow answers."""
    from flows.registry import is_settled

    if not config.evaluate.require:
        return True
    try:
        return is_settled(MlflowClient(tracking_uri=tracking_uri(config.folder)), config.name, report)
    except MlflowException as error:
        if not is_away(error):
            raise
        return False


@contextlib.contextmanager
def _closing(outbox: Outbox, run_id: str) -> Iterator[None]:
    """End a run as its block ends: FINISHED, FAILED, or KILLED by an interrupt."""
    try:
        yield
    except Exception as error:
        outbox.put(Message(run_id, "tags", {"tld.error": without_secrets(str(error))[:5000]}))
        outbox.put(_end(run_id, "FAILED"))
        raise
    except BaseException:
        outbox.put(_end(run_id, "KILLED"))
        raise
    outbox.put(_end(run_id, "FINISHED"))


def _metrics(run_id: str, values: Mapping[str, float], step: int) -> Message:
    now = _now()
    return Message(run_id, "metrics", [[name, float(value), now, step] for name, value in values.items()])


def _artifact(run_id: str, path: Path, folder: str = "") -> Message:
    return Message(run_id, "artifact", [str(path.resolve()), folder or None])


def _end(run_id: str, status: str) -> Message:
    return Message(run_id, "end", [status, _now()])


def _now() -> int:
    return int(time.time() * 1000)


def _deliver(client: MlflowClient, message: Message) -> None:
    """Tell MLflow; again does no harm."""
    match message.kind:
        case "metrics":
            client.log_batch(message.run_id, metrics=[Metric(*metric) for metric in message.body])
        case "tags":
            client.log_batch(message.run_id, tags=[RunTag(name, value) for name, value in message.body.items()])
        case "artifact":
            client.log_artifact(message.run_id, *message.body)
        case "end":
            client.set_terminated(message.run_id, *message.body)


def _kept(root: Path, client: MlflowClient) -> Path:
    """The file of what could not be sent to this MLflow."""
    name = hashlib.sha256(client.tracking_uri.encode()).hexdigest()[:8]
    return Workspace(root).mlflow_database.with_name(f"mlflow-outbox-{name}.jsonl").resolve()


def _params(config: RunConfig, stage: str) -> list[Param]:
    sections = {stage: getattr(config, stage)} | ({"model": config.model} if stage == "train" else {})
    return [
        Param(name if section == stage else f"{section}.{name}", str(value))
        for section, settings in sections.items()
        for name, value in settings.model_dump(mode="json").items()
    ]


def _dataset(manifest: Manifest) -> DatasetInput:
    dataset = Dataset(
        name=STAGES[manifest.stage].makes,
        digest=manifest.digest[:_DIGEST_LENGTH],
        source_type="local",
        source=json.dumps({"uri": str(manifest.folder.resolve())}),
        profile=json.dumps({"num_rows": manifest.rows}),
    )
    return DatasetInput(dataset, tags=[InputTag("mlflow.data.context", f"made by run {manifest.made_by}")])
