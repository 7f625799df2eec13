"""The work of each stage of a run: what it does with the outputs of the stages before it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from data_catalog.storage.manifest import Manifest
from data_catalog.storage.shard_reuse import ReuseShard, reuse_nothing, reuse_shard
from data_catalog.storage.workspace import StageName
from pipeline.compute.engine import pool_on
from pipeline.compute.shard_map import map_in_pool, run_with_retries
from pipeline.compute.worker_pool import Run
from pipeline.config.run import RunConfig
from pipeline.run.train_nodes import train_on_nodes
from pipeline.stages.contract import MapShards, Output, Tracker
from pipeline.stages.remote_workspace import fetch_output, fetch_outputs
from pipeline.stages.run_inputs import RunInputs
from pipeline.stages.run_stage import run_stage

Parents = Mapping[str, Manifest]


@dataclass(frozen=True, slots=True)
class RunJob:
    """What the stages of a run, or of one of its phases, share."""

    inputs: RunInputs
    force: frozenset[StageName] = frozenset()
    retry_failed: bool = False
    run_shard: Run = run_with_retries
    """How a shard is passed to the pool of workers, and tried again."""

    @property
    def config(self) -> RunConfig:
        return self.inputs.config

    def reuse(self, stage: StageName) -> ReuseShard:
        """How to reuse shards of other outputs; a forced stage computes every shard itself."""
        return reuse_nothing if stage in self.force else reuse_shard

    def map_shards(self, gpus: float = 0) -> MapShards:
        """The shard map on the engine, of whose workers each gets `gpus` GPUs."""
        open_pool = pool_on(self.config.engine, gpus)
        return partial(map_in_pool, open_pool=open_pool, run=self.run_shard)


def do_stage(
    job: RunJob,
    stage: StageName,
    parents: Parents,
    track: Tracker,
    begin: Callable[[Path], None] = lambda _: None,
) -> Manifest:
    """Run or resume a stage on its parents, in the order of its spec, or return the manifest of its
    fresh output. `begin` is called with the folder, unless the output is fresh. Raises what
    `run_stage` and the stage raise."""

    def work(out: Path) -> Output:
        begin(out)
        return _WORK[stage](job, parents, track, out)

    force: bool | Literal["reopen"] = stage in job.force or (job.retry_failed and "reopen")
    return run_stage(job.inputs.stage_run(stage, parents), track, work, force=force)


def _download(job: RunJob, _parents: Parents, track: Tracker, out: Path) -> Output:
    from pipeline.download.stage import download

    return download(
        job.config.download,
        out,
        track,
        job.map_shards(),
        job.reuse("download"),
        retry_failed=job.retry_failed,
    )


def _encode(job: RunJob, parents: Parents, track: Tracker, out: Path) -> Output:
    from pipeline.encode.stage import encode

    map_images = job.map_shards(job.config.engine.gpus_per_worker)
    images = parents["download"]
    return encode(images, job.config.encode, out, track, map_images, job.reuse("encode"))


def _train(job: RunJob, parents: Parents, track: Tracker, out: Path) -> Output:
    encodings = [parent for parent in parents.values() if parent.stage == "encode"]
    fetch_outputs(encodings, job.config, track)
    return train_on_nodes(parents, job.inputs, track, out, force="train" in job.force)


def _distill(job: RunJob, parents: Parents, track: Tracker, out: Path) -> Output:
    from pipeline.train.stage import distill

    encodings = fetch_output(parents["encode"], job.config, track)
    return distill(encodings, parents["train"], job.config, out, track)


def _evaluate(job: RunJob, parents: Parents, track: Tracker, out: Path) -> Output:
    from pipeline.evaluate.stage import evaluate

    encodings = fetch_output(parents["encode"], job.config, track)
    model = parents[job.config.model_stage]
    return evaluate(encodings, model, job.config.evaluate, out, track)


_WORK: dict[StageName, Callable[[RunJob, Parents, Tracker, Path], Output]] = {
    "download": _download,
    "encode": _encode,
    "train": _train,
    "distill": _distill,
    "evaluate": _evaluate,
}
