"""The Prefect flow of a run: four stages as tasks, chained by the flow `text_to_image`."""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from typing import ParamSpec, TypeVar

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError
from prefect.tasks import Task, exponential_backoff
from requests import ConnectionError as RequestsConnectionError

from data_catalog.storage.manifest import Manifest
from data_catalog.storage.shard_reuse import ReuseShard, reuse_nothing, reuse_shard
from data_catalog.storage.workspace import StageName
from flows.orchestration.run_summary import run_page
from flows.orchestration.shard_tasks import map_shards
from flows.orchestration.train_nodes import train_on_nodes
from flows.orchestration.webhook import notify_webhook
from flows.terminal.errors import UserError
from flows.tracking.tracker import PipelineTracking, pipeline_run
from pipeline.compute.engine import pool_on
from pipeline.config.run import RunConfig
from pipeline.stages.contract import StageFailed
from pipeline.stages.dag import STAGES
from pipeline.stages.freshness import stage_statuses
from pipeline.stages.remote_workspace import fetch_output
from pipeline.stages.run_stage import run_stage

Result = TypeVar("Result")
P = ParamSpec("P")
GPU = "gpu"  # tag of the stages that use one; a server may limit how many run at once

# Manifests decide what is fresh, so Prefect stores no results and no cache.


def _is_transient(_task: Task[..., object], _run: TaskRun, state: State[object]) -> bool:
    """Whether a stage failed for a transient reason, such as an unreachable server or a busy name
    server, so that it is retried. What a user has to change is not retried."""
    error: object = state.result(raise_on_failure=False)
    while isinstance(error, BaseException):
        # Prefect's client has already retried these itself.
        if isinstance(error, UserError | StageFailed | ConcurrencySlotAcquisitionError):
            return False
        if isinstance(error, ConnectionError | TimeoutError | RequestsConnectionError):
            return True
        if isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN:
            return True
        error = error.__cause__ or error.__context__
    return False


def _stage_task(name: str, *tags: str) -> Callable[[Callable[P, Result]], Task[P, Result]]:
    return task(
        name=name,
        tags=tags,
        cache_policy=NO_CACHE,
        persist_result=False,
        retries=3,
        retry_delay_seconds=exponential_backoff(10),
        retry_condition_fn=_is_transient,
    )


@_stage_task("download")
def download_task(
    run: PipelineTracking, config: RunConfig, force: frozenset[str], retry_failed: bool = False
) -> Manifest:
    """urls -> images"""
    from pipeline.download.stage import download

    with run.stage("download", config, {}) as track:
        manifest = run_stage(
            "download",
            config,
            {},
            "reopen" if retry_failed and "download" not in force else "download" in force,
            track,
            lambda out: download(
                config.download,
                out,
                track,
                partial(map_shards, pool_on(config.engine)),
                retry_failed,
                _reuse("download", force),
            ),
        )
        run.finished(track, manifest)
    return manifest


@_stage_task("encode", GPU)
def encode_task(
    run: PipelineTracking, config: RunConfig, force: frozenset[str], images: Manifest
) -> Manifest:
    """images -> encodings"""
    from pipeline.encode.stage import encode

    parents = {"download": images}
    with run.stage("encode", config, parents) as track:
        manifest = run_stage(
            "encode",
            config,
            parents,
            "encode" in force,
            track,
            lambda out: encode(
                images,
                config.encode,
                out,
                track,
                partial(map_shards, pool_on(config.engine, config.engine.gpus_per_worker)),
                _reuse("encode", force),
            ),
        )
        run.finished(track, manifest)
    return manifest


@_stage_task("train", GPU)
def train_task(
    run: PipelineTracking, config: RunConfig, force: frozenset[str], encodings: Manifest
) -> Manifest:
    """encodings -> model"""
    parents = {"encode": encodings}
    with run.stage("train", config, parents) as track:
        manifest = run_stage(
            "train",
            config,
            parents,
            "train" in force,
            track,
            lambda out: train_on_nodes(fetch_output(encodings, config, track), config, track, out),
        )
        run.finished(track, manifest)
        run.log_model(track, config, manifest, encodings)
    return manifest


@_stage_task("evaluate", GPU)
def evaluate_task(
    run: PipelineTracking,
    config: RunConfig,
    force: frozenset[str],
    encodings: Manifest,
    model: Manifest,
) -> Manifest:
    """model -> report"""
    from pipeline.evaluate.stage import evaluate

    parents = {"encode": encodings, "train": model}
    with run.stage("evaluate", config, parents) as track:
        manifest = run_stage(
            "evaluate",
            config,
            parents,
            "evaluate" in force,
            track,
            lambda out: evaluate(
                fetch_output(encodings, config, track), model, config.evaluate, out, track
            ),
        )
        run.finished(track, manifest)
        if config.evaluate.require:
            run.pass_gate(track, config, encodings, model, manifest)
    return manifest


@flow(
    name="text-to-image",
    on_failure=[notify_webhook],
    on_crashed=[notify_webhook],
    persist_result=False,
)
def text_to_image(
    config: RunConfig, force: frozenset[StageName] = frozenset(), until: StageName = "evaluate"
) -> Manifest:
    """All stages up to `until`, from URLs to a report. Stages that are fresh are skipped."""
    with pipeline_run(config) as run:
        last = images = download_task(run, config, force)
        if until != "download":
            last = encodings = encode_task(run, config, force, images)
        if until in ("train", "evaluate"):
            last = model = train_task(run, config, force, encodings)
        if until == "evaluate":
            last = evaluate_task(run, config, force, encodings, model)
    create_markdown_artifact(
        run_page(config), key="run", description=f"Stages and scores of {config.name}"
    )
    return last


@flow(
    name="one-stage", on_failure=[notify_webhook], on_crashed=[notify_webhook], persist_result=False
)
def one_stage(
    config: RunConfig, stage: StageName, force: bool = False, retry_failed: bool = False
) -> Manifest:
    """One stage alone, on the fresh outputs of the stages before it."""
    statuses = stage_statuses(config)
    parents = {name: statuses[name].manifest for name in STAGES[stage].parents}
    if missing := [name for name, manifest in parents.items() if manifest is None]:
        raise StageFailed(
            f"{stage} needs the output of {missing[0]} first, which is {statuses[missing[0]].state}"
        )
    tasks: dict[str, Task[..., Manifest]] = {
        "download": download_task,
        "encode": encode_task,
        "train": train_task,
        "evaluate": evaluate_task,
    }
    with pipeline_run(config) as run:
        forced = frozenset({stage} if force else ())
        if retry_failed:
            return download_task(run, config, forced, retry_failed)
        manifest = tasks[stage](run, config, forced, *parents.values())
    create_markdown_artifact(
        run_page(config), key="run", description=f"Stages and scores of {config.name}"
    )
    return manifest


def _reuse(stage: str, force: frozenset[str]) -> ReuseShard:
    """How to reuse shards of other outputs; a forced stage computes every shard itself."""
    return reuse_nothing if stage in force else reuse_shard
