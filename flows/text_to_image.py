"""The Prefect flow of a run: its stages as tasks, chained by the flow `text_to_image`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from prefect import flow
from prefect.logging import get_run_logger
from prefect.tasks import Task

from data_catalog.storage.manifest import Manifest
from data_catalog.storage.shard_reuse import ReuseShard, reuse_nothing, reuse_shard
from data_catalog.storage.workspace import StageName
from flows.orchestration.flow_run import name_flow_run, publish_results
from flows.orchestration.shard_tasks import map_shards
from flows.orchestration.stage_task import GPU, stage_run_name, stage_task
from flows.orchestration.webhook import notify_webhook
from flows.tracking.stage_tracker import StageTracker
from flows.tracking.tracker import PipelineTracking, pipeline_run
from pipeline.compute.engine import pool_on
from pipeline.config.run import RunConfig
from pipeline.run.train_nodes import train_on_nodes
from pipeline.stages.contract import Output, StageFailed, Tracker
from pipeline.stages.dag import parents_among
from pipeline.stages.freshness import parent_statuses
from pipeline.stages.remote_workspace import fetch_output, fetch_outputs
from pipeline.stages.run_inputs import RunInputs
from pipeline.stages.run_stage import run_stage


@dataclass(frozen=True, slots=True)
class _Job:
    """What the stages of one flow run share."""

    tracking: PipelineTracking
    inputs: RunInputs
    force: frozenset[StageName]
    retry_failed: bool = False

    @property
    def config(self) -> RunConfig:
        return self.inputs.config

    def reuse(self, stage: StageName) -> ReuseShard:
        """How to reuse shards of other outputs; a forced stage computes every shard itself."""
        return reuse_nothing if stage in self.force else reuse_shard


def _run(
    job: _Job,
    stage: StageName,
    parents: Mapping[str, Manifest],
    work: Callable[[Path, Tracker], Output],
    record: Callable[[StageTracker, Manifest], None] | None = None,
) -> Manifest:
    """Run a stage as a child run of MLflow. `record` then stores what the stage made there."""
    force: bool | Literal["reopen"] = stage in job.force or (job.retry_failed and "reopen")
    with job.tracking.stage(stage, job.config, parents, get_run_logger().info) as track:
        run = job.inputs.stage_run(stage, parents)
        manifest = run_stage(run, track, lambda out: work(out, track), force=force)
        job.tracking.finished(track, manifest)
        if record:
            track.progress(0, 0, "recording the result in MLflow")
            record(track, manifest)
    return manifest


@stage_task("download")
def download_task(job: _Job) -> Manifest:
    """urls -> images"""

    def work(out: Path, track: Tracker) -> Output:
        from pipeline.download.stage import download

        return download(
            job.config.download,
            out,
            track,
            partial(map_shards, pool_on(job.config.engine)),
            job.reuse("download"),
            retry_failed=job.retry_failed,
        )

    return _run(job, "download", {}, work)


@stage_task("encode", GPU)
def encode_task(job: _Job, images: Manifest) -> Manifest:
    """images -> encodings"""

    def work(out: Path, track: Tracker) -> Output:
        from pipeline.encode.stage import encode

        engine = job.config.engine
        map_images = partial(map_shards, pool_on(engine, engine.gpus_per_worker))
        return encode(images, job.config.encode, out, track, map_images, job.reuse("encode"))

    return _run(job, "encode", {"download": images}, work)


@stage_task("train", GPU)
def train_task(job: _Job, *outputs: Manifest) -> Manifest:
    """encodings, of a mix those of several phases -> model, which begins with that of the phase
    before if there is one"""
    config = job.config
    parents = dict(zip(job.inputs.stages["train"].parents, outputs, strict=True))

    def work(out: Path, track: Tracker) -> Output:
        fetch_outputs([one for one in outputs if one.stage == "encode"], config, track)
        return train_on_nodes(parents, job.inputs, track, out, force="train" in job.force)

    def record(track: StageTracker, model: Manifest) -> None:
        job.tracking.log_model(track, config, model, parents["encode"])

    return _run(job, "train", parents, work, record)


@stage_task("distill", GPU)
def distill_task(job: _Job, encodings: Manifest, model: Manifest) -> Manifest:
    """model -> model that samples in a few steps"""
    config = job.config

    def work(out: Path, track: Tracker) -> Output:
        from pipeline.train.stage import distill

        return distill(fetch_output(encodings, config, track), model, config, out, track)

    return _run(
        job,
        "distill",
        {"encode": encodings, "train": model},
        work,
        lambda track, distilled: job.tracking.log_model(
            track, config.distilled, distilled, encodings
        ),
    )


@stage_task("evaluate", GPU)
def evaluate_task(job: _Job, encodings: Manifest, model: Manifest) -> Manifest:
    """model -> report"""
    config = job.config

    def work(out: Path, track: Tracker) -> Output:
        from pipeline.evaluate.stage import evaluate

        fetched = fetch_output(encodings, config, track)
        return evaluate(fetched, model, config.evaluate, out, track)

    def pass_gate(track: StageTracker, report: Manifest) -> None:
        if config.evaluate.require:
            job.tracking.pass_gate(track, config, encodings, model, report)

    parents: dict[str, Manifest] = {"encode": encodings, config.model_stage: model}
    return _run(job, "evaluate", parents, work, pass_gate)


_TASKS: dict[StageName, Task[..., Manifest]] = {
    "download": download_task,
    "encode": encode_task,
    "train": train_task,
    "distill": distill_task,
    "evaluate": evaluate_task,
}


def _run_task(job: _Job, stage: StageName, *parents: Manifest | None) -> Manifest:
    task = _TASKS[stage].with_options(task_run_name=stage_run_name(job.config, stage))
    return task(job, *parents)


@flow(
    name="text-to-image",
    flow_run_name="{config.name}",
    on_failure=[notify_webhook],
    on_crashed=[notify_webhook],
    persist_result=False,
)
def text_to_image(
    config: RunConfig,
    force: frozenset[StageName] = frozenset(),
    until: StageName | None = None,
) -> Manifest:
    """All stages up to `until`, from images to a report; without it also the report of a distilled
    model. Of a run with phases the stages of each, and the later stages of the last. Stages that
    are fresh are skipped. Returns the last output."""
    inputs, phases = RunInputs(config), dict[str, dict[str, Manifest]]()
    with pipeline_run(config) as run:
        name_flow_run(run.title(config.name))
        for phase in inputs.chain:
            job = _Job(run, phase, force)
            outputs = _run_phase(job, inputs.stages_until(until), phases)
            phases[phase.config.phase or ""] = outputs
        last = [*outputs.values()][-1]
        if until is None and (of_distilled := inputs.distilled):
            job = replace(job, inputs=of_distilled)
            last = _run_task(job, "evaluate", outputs["encode"], outputs["distill"])
    publish_results(inputs, run.run_id, run.address_of)
    return last


def _run_phase(
    job: _Job, names: Sequence[StageName], earlier: Mapping[str, Mapping[str, Manifest]]
) -> dict[str, Manifest]:
    """The outputs of the stages of a phase that are among `names`, on those of earlier phases."""
    outputs: dict[str, Manifest] = {}
    for name in [name for name in names if name in job.inputs.stages]:
        if job.inputs.shares(name):
            outputs[name] = [*earlier.values()][-1][name]
        else:
            parents = parents_among(job.inputs.stages[name], outputs, earlier)
            outputs[name] = _run_task(job, name, *parents.values())
    return outputs


@flow(
    name="one-stage",
    flow_run_name="{config.name} {stage}",
    on_failure=[notify_webhook],
    on_crashed=[notify_webhook],
    persist_result=False,
)
def one_stage(
    config: RunConfig, stage: StageName, *, force: bool = False, retry_failed: bool = False
) -> Manifest:
    """One stage alone, of the last phase if there are several, on the fresh outputs of the stages
    before it."""
    inputs = RunInputs(config)
    statuses = parent_statuses(inputs, stage)
    parents = {name: status.manifest for name, status in statuses.items()}
    if missing := [status for status in statuses.values() if status.manifest is None]:
        raise StageFailed(
            f"{stage} needs the output of {missing[0].title} first, which is {missing[0].state}"
        )
    with pipeline_run(config) as run:
        name_flow_run(run.title(f"{config.name} {stage}", stage))
        job = _Job(run, inputs, frozenset({stage} if force else ()), retry_failed)
        manifest = _run_task(job, stage, *parents.values())
    publish_results(inputs, run.run_id, run.address_of)
    return manifest
