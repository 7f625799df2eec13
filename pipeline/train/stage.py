"""The training stage, encodings -> model: starts the training processes and follows their events.

worker.py is one such process. If several machines train together, this runs on the leading one and
join.py on the others.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_catalog.figures import ModelFigures
from data_catalog.model_files import (
    CHECKPOINTS_FOLDER,
    EVENTS_FILE,
    average_file,
    checkpoints,
    step_of,
)
from data_catalog.storage.digests import digest_of, file_digest, file_records
from data_catalog.storage.file_lock import LockTimeout, file_lock
from data_catalog.storage.files import write_atomically
from data_catalog.storage.manifest import Manifest
from data_catalog.storage.receipts import Shard
from pipeline.compute.child_processes import ChildFailed, Event, tail_events
from pipeline.compute.devices import choose_device
from pipeline.compute.node_group import Nodes, node_group
from pipeline.compute.rendezvous import NodesApart, rendezvous_of
from pipeline.config.run import RunConfig
from pipeline.config.train import TrainConfig
from pipeline.dataset.encoded_dataset import open_dataset
from pipeline.dataset.split import Split, few_held_out, split_pairs
from pipeline.stages.contract import Output, StageFailed, Tracker
from pipeline.stages.integrity import refuse_damaged_shards
from pipeline.stages.progress import watch_counts
from pipeline.train.continuation import Begin, begin_at_zero
from pipeline.train.events import set_events_aside
from pipeline.train.job import JOB_FILE, Distillation, Mix, MixedSet, TrainJob
from pipeline.train.model_fit import check_fit
from pipeline.train.node_processes import how_to_resume, run_ranks
from pipeline.train.pair_sets import open_training_pairs
from tld_model.config import DenoiserConfig

_TIMEOUT_S = 60.0  # for processes of an earlier, killed parent, which notice its end and stop


def train(
    encodings: Manifest | Mix,
    config: TrainConfig,
    model: DenoiserConfig,
    out: Path,
    track: Tracker,
    begin: Begin = begin_at_zero,
) -> Output:
    """Train a denoiser in child processes, or resume a stopped training. `begin` may put a
    checkpoint of another training into the folder. With several nodes this is the leading one; the
    others call join_training."""
    mix = encodings if isinstance(encodings, Mix) else Mix(encodings, {})
    job = _job(mix.encodings, config, model, out)
    return _train(mix, job, track, begin)


def distill(
    encodings: Manifest,
    teacher: Manifest,
    config: RunConfig,
    out: Path,
    track: Tracker,
) -> Output:
    """Distill a trained model in child processes, or resume a stopped distillation."""
    assert config.distill
    refuse_damaged_shards(teacher, track)
    training = config.distill.training(config.train)
    distillation = Distillation.of(config.distill, teacher)
    training = training.model_copy(update={"init_from": distillation.teacher})
    job = _job(encodings, training, config.model, out)
    job = job.model_copy(update={"distillation": distillation})
    return _train(Mix(encodings, {}), job, track)


def _job(encodings: Manifest, config: TrainConfig, model: DenoiserConfig, out: Path) -> TrainJob:
    return TrainJob(
        encodings=encodings.folder.absolute(),
        out=out.absolute(),
        config=config,
        model=model,
        device=choose_device(config.device),
    )


def _mixed(job: TrainJob, mix: Mix, split: Split, track: Tracker) -> TrainJob:
    """The job with the sets of a mix, whose own encodings are checked and split already. What is
    wrong with the others fails here, not in a child process."""
    own, sets = mix.encodings, list[MixedSet]()
    for phase, encodings in mix.sets.items():
        if encodings.folder != own.folder:
            check_fit(encodings, job.model)
            refuse_damaged_shards(encodings, track)
        sets.append(MixedSet(phase=phase, encodings=encodings.folder.absolute()))
    job = job.model_copy(update={"mix": tuple(sets)})
    open_training_pairs(job, open_dataset(own, job.model.text), split)
    return job


@dataclass(slots=True)
class _Reports:
    """Passes the events of a training on to the tracker, and keeps how it ended."""

    job: TrainJob
    track: Tracker
    is_resumed: bool = False  # and does not begin with a checkpoint of another training
    outcome: dict[str, Any] = field(default_factory=dict)
    _step: int = 0  # of the last event

    def on_event(self, event: Event) -> None:
        """Pass on an event."""
        match event["kind"]:
            case "metrics":
                self.track.metrics(event["values"], event["step"])
            case "artifact":
                path = self.job.out / event["path"]
                self.track.image(path, event["folder"], event["step"])
            case "progress":
                self._step = event["done"]
                self.track.progress(event["done"], event["total"], event["note"])
            case "phase":
                self.track.progress(0, 0, event["note"])
            case "resumed" if self.is_resumed:
                self.track.note(f"resumed at step {event['step']} of {self.job.config.steps}")
            case "warning":
                self.track.warning(event["text"])
            case "failed" | "result":
                self.outcome[event["kind"]] = event["values"]

    def show_step(self, step: int, note: str) -> None:
        """Show a step, unless an event has told of it already."""
        if step > self._step:
            self.track.progress(step, self.job.config.steps, note)


def _train(mix: Mix, job: TrainJob, track: Tracker, begin: Begin = begin_at_zero) -> Output:
    encodings, config, model, out = mix.encodings, job.config, job.model, job.out
    check_fit(encodings, model)
    refuse_damaged_shards(encodings, track)
    split = split_pairs(encodings, config.held_out_fraction)  # fails here, not in a child process
    if warning := few_held_out(split, config.held_out_fraction):
        track.warning(warning)
    if mix.sets:
        job = _mixed(job, mix, split, track)
    reports, saved = _Reports(job, track), out / CHECKPOINTS_FOLDER
    try:
        with file_lock(out / "train.lock", _TIMEOUT_S) as lock:
            reports.is_resumed = bool(checkpoints(saved))
            begin(out, track)
            with (
                rendezvous_of(config.launch) as rendezvous,
                node_group(config.launch, rendezvous, leads=True) as nodes,
            ):
                _lead(reports, nodes, lock)
    except LockTimeout as error:
        raise StageFailed(f"{job.stage}: {error}") from None
    except (ChildFailed, NodesApart) as error:
        why = reports.outcome.get("failed") or how_to_resume(error, out)
        raise StageFailed(f"{job.stage}: the training process failed; {why}") from error
    except BaseException as error:  # Ctrl-C, and SIGTERM, for which Prefect raises its own
        if not isinstance(error, Exception) and (steps := list(map(step_of, checkpoints(saved)))):
            track.note(f"stopped; the checkpoint of step {steps[-1]} of {config.steps} is saved")
        raise
    figures = ModelFigures.model_validate(reports.outcome["result"])
    return _output(out, config, figures, track)


def _output(out: Path, config: TrainConfig, figures: ModelFigures, track: Tracker) -> Output:
    """The averages that the training has written, and its figures."""
    if figures.best:
        track.note(f"{figures.best}; evaluate.ema=best takes it")
    paths = [out / average_file(average) for average in config.averages]
    digests = [file_digest(path) for path in paths]
    digest = digests[0] if len(digests) == 1 else digest_of(digests)
    shard = Shard(
        name="denoiser", rows=figures.train_pairs, digest=digest, files=file_records(paths)
    )
    return Output((shard,), figures.model_dump(mode="json"))


def _lead(reports: _Reports, nodes: Nodes, lock: int) -> None:
    """Share the job with the other nodes, run this node's processes, and forward their events."""
    job, track = reports.job, reports.track
    job_file = job.out / JOB_FILE
    write_atomically(job_file, job.model_dump_json(indent=2))
    set_events_aside(job.out)

    def waiting(missing: int) -> None:
        track.progress(0, 0, f"waiting for {missing} more of {nodes.launch.nodes} nodes")

    nodes.share(str(job_file), waiting)
    track.progress(0, 0, "starting the training process")
    with (
        tail_events(job.out / EVENTS_FILE, reports.on_event) as forward,
        watch_counts(job.out, reports.show_step),
    ):

        def on_poll() -> str:
            forward()
            return nodes.lost()

        run_ranks(job, nodes, on_poll, [lock])
