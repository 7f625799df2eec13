"""A workspace as a run leaves it, seconds old: real shards, encodings and manifests, and a model
that never learned."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

from data_catalog.figures import EncodingsFigures, ModelFigures
from data_catalog.model_files import EVENTS_FILE, MODEL_FILE
from data_catalog.storage.digests import file_digest, file_records
from data_catalog.storage.files import replacing
from data_catalog.storage.manifest import Manifest
from data_catalog.storage.receipts import Shard
from pipeline.config.load import load_config
from pipeline.config.run import RunConfig
from pipeline.encode.stage import encode
from pipeline.stages.contract import Output
from pipeline.stages.dag import parents_among
from pipeline.stages.freshness import stage_statuses
from pipeline.stages.run_inputs import RunInputs
from pipeline.stages.run_stage import run_stage
from pipeline.train.loop import initial_state
from tests.support.image_shards import make_images
from tests.support.mapping import map_here
from tests.support.small import TINY, small
from tests.support.tracker import RememberingTracker
from tld_model.checkpoint import save_denoiser

_SIZES = (24, 16)


def overrides(root: Path | str, **changed: object) -> list[str]:
    """What describes such a run, beside conf/tiny.yaml."""
    return small(root, train__held_out_fraction=0.5, evaluate__device="cpu", **changed)


def make_workspace(
    root: Path | str, sizes: tuple[int, ...] = _SIZES, /, **changed: object
) -> RunConfig:
    """Download shards of these sizes, encode and train, as far as they are not fresh; all of it in
    each phase."""
    config = load_config(TINY, overrides(root, **changed))
    phases: dict[str, dict[str, Manifest]] = {}
    for phase in config.chain:
        images = make_images_of(phase, sizes)
        encodings = _run(phase, "encode", {"download": images}, partial(_encodings, images, phase))
        outputs = {"encode": encodings}
        parents = parents_among(RunInputs(phase).stages["train"], outputs, phases)
        outputs["train"] = _run(phase, "train", parents, partial(_model, encodings, phase))
        phases[phase.phase or ""] = outputs
    return config


def make_images_of(config: RunConfig, sizes: tuple[int, ...] = _SIZES) -> Manifest:
    """Download, as far as it is not fresh."""
    return _run(config, "download", {}, partial(_images, sizes))


def output(config: RunConfig, stage: str) -> Manifest:
    """The finished output of a stage of this run."""
    manifest = stage_statuses(RunInputs(config))[stage].manifest
    assert manifest
    return manifest


def _run(config: RunConfig, stage: str, parents: dict[str, Manifest], work: object) -> Manifest:
    assert callable(work)
    return run_stage(
        RunInputs(config).stage_run(stage, parents),
        RememberingTracker(run_id=f"run-of-{stage}"),
        work,
    )


def _images(sizes: tuple[int, ...], out: Path) -> Output:
    made = make_images(out, sizes)
    return Output(made.shards, made.figures)


def _encodings(images: Manifest, config: RunConfig, out: Path) -> Output:
    return encode(images, config.encode, out, RememberingTracker(), map_here)


def _model(encodings: Manifest, config: RunConfig, out: Path) -> Output:
    state = initial_state(config.train, config.model, "cpu")
    path = out / MODEL_FILE
    with replacing(path) as unfinished:
        save_denoiser(
            unfinished,
            state.ema.state_dict(),
            config.model,
            EncodingsFigures.of(encodings).encoders.model_dump(),
        )
    told = [
        {"loss": 2 / step, "held_out_loss": 1 / step, "held_out_loss/0.0-0.2": 0.5 / step}
        for step in (1, 2, 3)
    ]
    events = [
        {"kind": "metrics", "step": step, "values": values} for step, values in enumerate(told, 1)
    ]
    (out / EVENTS_FILE).write_text("".join(json.dumps(event) + "\n" for event in events))
    figures = ModelFigures(train_pairs=20, held_out_pairs=20, steps=0, parameters=1, losses={})
    shard = Shard(name="denoiser", rows=20, digest=file_digest(path), files=file_records([path]))
    return Output((shard,), figures.model_dump(mode="json"))
