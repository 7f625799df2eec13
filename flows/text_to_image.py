"""The Prefect flow of a run: its stages as tasks, chained by the flow `text_to_image`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from prefect import flow
from prefect.logging import get_run_logger
from prefect.tasks import Task

from data_catalog.storage.manifest import Manifest
from data_catalog.storage.workspace import StageName
from flows.orchestration.flow_run import name_flow_run, publish_results
from flows.orchestration.shard_tasks import run_as_task
from flows.orchestration.stage_task import GPU, run_after, stage_run_name, stage_task
from flows.orchestration.webhook import notify_webhook
from flows.tracking.stage_tracker import StageTracker
from flows.tracking.tracker import PipelineTracking, pipeline_run
from pipeline.config.run import RunConfig
from pipeline.run.stage_order import run_in_order
from pipeline.run.stage_work import RunJob, do_stage
from pipeline.stages.contract import StageFailed
from pipeline.stages.freshness import parent_statuses
from pipeline.stages.run_inputs import RunInputs


@dataclass(frozen=True, slots=True)
class _Job:
    """What the tasks of one flow run share."""

    tracking: PipelineTracking
    stages: RunJob

    @property
    def config(self) -> RunConfig:
        return self.stages.config


def _run(
    job: _Job,
    stage: StageName,
    parents: Mapping[str, Manifest],
    record: Callable[[StageTracker, Manifest], None] | None = None,
) -> Manifest:
    """Run a stage as a child run of MLflow. `record` then stores what the stage made there."""
    with job.tracking.stage(stage, job.config, parents, get_run_logger().info) as track:
        manifest = do_stage(job.stages, stage, parents, track)
        job.tracking.finished(track, manifest)
        if record:
            track.progress(0, 0, "recording the result in MLflow")
            record(track, manifest)
    return manifest


@stage_task("download")
def download_task(job: _Job) -> Manifest:
    """urls -> images"""
    return _run(job, "download", {})


@stage_task("encode", GPU)
def encode_task(job: _Job, images: Manifest) -> Manifest:
    """images -> encodings"""
    return _run(job, "encode", {"download": images})


@stage_task("train", GPU)
def train_task(job: _Job, *outputs: Manifest) -> Manifest:
    """encodings, of a mix those of several phases -> model, which begins with that of the phase
    before if there is one"""
    parents = dict(zip(job.stages.inputs.stages["train"].parents, outputs, strict=True))

    def record(track: StageTracker, model: Manifest) -> None:
        job.tracking.log_model(track, job.config, model, parents["encode"])

    return _run(job, "train", parents, record)


@stage_task("distill", GPU)
def distill_task(job: _Job, encodings: Manifest, model: Manifest) -> Manifest:
    """model -> model that samples in a few steps"""

    def record(track: StageTracker, distilled: Manifest) -> None:
        job.tracking.log_model(track, job.config.distilled, distilled, encodings)

    return _run(job, "distill", {"encode": encodings, "train": model}, record)


@stage_task("evaluate", GPU)
def evaluate_task(job: _Job, encodings: Manifest, model: Manifest) -> Manifest:
    """model -> report"""
    config = job.config

    def pass_gate(track: StageTracker, report: Manifest) -> None:
        if config.evaluate.require:
            job.tracking.pass_gate(track, config, encodings, model, report)

    parents: dict[str, Manifest] = {"encode": encodings, config.model_stage: model}
    return _run(job, "evaluate", parents, pass_gate)


_TASKS: dict[StageName, Task[..., Manifest]] = {
    "download": download_task,
    "encode": encode_task,
    "train": train_task,
    "distill": distill_task,
    "evaluate": evaluate_task,
}


def _run_task(job: _Job, stage: StageName, parents: Mapping[str, Manifest]) -> Manifest:
    task = _TASKS[stage].with_options(task_run_name=stage_run_name(job.config, stage))
    return run_after(task, job, [*parents.values()])


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
    inputs = RunInputs(config)
    with pipeline_run(config) as run:

        def make_output(
            phase: RunInputs, stage: StageName, parents: Mapping[str, Manifest]
        ) -> Manifest:
            job = _Job(run, RunJob(phase, force, run_shard=run_as_task))
            return _run_task(job, stage, parents)

        name_flow_run(run.name)
        outputs = run_in_order(inputs, until, make_output)
    publish_results(inputs, run.run_id, run.address_of)
    return [*outputs.values()][-1]


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
    parents = {name: status.manifest for name, status in statuses.items() if status.manifest}
    if missing := [status for status in statuses.values() if status.manifest is None]:
        raise StageFailed(
            f"{stage} needs the output of {missing[0].title} first, which is {missing[0].state}"
        )
    with pipeline_run(config) as run:
        name_flow_run(run.title(f"{config.name} {stage}", stage))
        forced = frozenset({stage} if force else ())
        job = _Job(run, RunJob(inputs, forced, retry_failed, run_as_task))
        manifest = _run_task(job, stage, parents)
    publish_results(inputs, run.run_id, run.address_of)
    return manifest
