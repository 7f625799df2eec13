"""The real training stage on made-up encodings, as a process that a test may kill, without Prefect
and MLflow.

python -m tests.support.training FOLDER '{"steps": 8}'
python -m tests.support.training FOLDER '{"lr": 0.01}' distill
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from data_catalog.encodings import SCHEMA, EncodedArrays, write_encoded_shard
from data_catalog.latent_figures import QuantizationFigures
from data_catalog.storage.manifest import Manifest, read_manifest, write_manifest
from data_catalog.storage.workspace import StageName
from pipeline.config.run import RunConfig
from pipeline.config.train import TrainConfig
from pipeline.stages.contract import Output, StageFailed
from pipeline.train.checkpoints import checkpoint_of, write_checkpoint
from pipeline.train.job import Mix
from pipeline.train.loop import TrainState
from pipeline.train.stage import distill, train
from tests.support.command import REPOSITORY
from tests.support.manifests import encodings_manifest
from tests.support.tracker import RememberingTracker
from tld_model.config import DenoiserConfig

MODEL = DenoiserConfig(
    latent_size=4, latent_channels=4, text_dim=8, width=64, layers=1, noise_embed_dim=16
)
SETTINGS: dict[str, Any] = {
    "steps": 20,
    "batch_size": 8,
    "warmup_steps": 2,
    "lr": 1e-3,
    "precision": "fp32",
    "device": "cpu",
    "checkpoint_every": 4,
    "validate_every": 5,
    "sample_every": 10,
    "log_every": 2,
    "held_out_fraction": 0.2,
}

DISTILLATION = {"steps": 20, "sample_steps": 2, "teacher_steps": 6, "lr": 1e-3}


def save_checkpoint(state: TrainState, folder: Path) -> None:
    write_checkpoint(checkpoint_of(state), folder)


def write_encodings(
    folder: Path,
    sizes: tuple[int, ...] = (23, 17),
    poison: tuple[int, ...] = (),
    captions: Sequence[str] = (),
) -> Manifest:
    """Shards of float16 latents; the poisoned pairs of the first one hold infinities. All have
    these captions, or one of its own for each pair."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number, n in enumerate(sizes):
        keys = [f"{number:05d}{i:04d}" for i in range(n)]
        text = rng.standard_normal((n, 8)).astype(np.float16)
        latents = (0.5 * text.repeat(8, axis=1).reshape(n, 4, 4, 4)).astype(np.float16)
        if number == 0:
            latents[list(poison)] = np.inf
        rows: dict[str, list[Any]] = {name: [0] * n for name in SCHEMA.names}
        rows |= {
            "key": keys,
            "url": keys,
            "caption": list(captions) or [f"caption {key}" for key in keys],
        }
        rows |= {"split": [""] * n, "sha256": keys}
        write_encoded_shard(
            folder, f"{number:05d}", rows, EncodedArrays(latents, text, np.array(keys, np.bytes_))
        )
    quantization = QuantizationFigures(dtype="float16", scale=4 / 127, clip=4, zero_point=128)
    manifest = encodings_manifest(folder, sizes, quantization=quantization)
    write_manifest(manifest)
    return manifest


def train_in(
    folder: Path,
    track: RememberingTracker,
    blocks: Literal["original", "joint"] = "original",
    **settings: Any,
) -> Output:
    """Train on folder/encodings in folder/model, from this process; with `mix` on these as the
    phase `fine` and on folder/earlier as `first`. Raises StageFailed."""
    encodings, earlier = (read_manifest(folder / name) for name in ("encodings", "earlier"))
    assert encodings
    (folder / "model").mkdir(exist_ok=True)
    model = MODEL.model_copy(update={"blocks": blocks})
    config = TrainConfig(**SETTINGS | settings)
    mix = Mix(encodings, {"first": earlier, "fine": encodings} if config.mix and earlier else {})
    return train(mix, config, model, folder / "model", track)


def distill_in(folder: Path, track: RememberingTracker, **settings: Any) -> Output:
    """Distill the model in folder/model in folder/distilled, from this process. Raises
    StageFailed."""
    encodings = read_manifest(folder / "encodings")
    assert encodings
    run = {
        "name": "tiny",
        "download": {"urls": "shapes"},
        "model": MODEL.model_dump(),
        "train": SETTINGS | settings,
        "distill": DISTILLATION,
    }
    (folder / "distilled").mkdir(exist_ok=True)
    teacher = encodings.model_copy(update={"folder": folder / "model"})
    return distill(encodings, teacher, RunConfig.model_validate(run), folder / "distilled", track)


def start_training(
    folder: Path, stage: StageName = "train", **settings: Any
) -> subprocess.Popen[str]:
    """`train_in` or `distill_in` in a process of its own, which prints the digest of the
    weights."""
    command = [sys.executable, "-m", "tests.support.training", str(folder), json.dumps(settings)]
    command += [stage]
    return subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env=os.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def main() -> None:
    track = RememberingTracker()
    try:
        run = distill_in if sys.argv[3] == "distill" else train_in
        output = run(Path(sys.argv[1]), track, **json.loads(sys.argv[2]))
    except StageFailed as error:
        raise SystemExit(str(error)) from error
    finally:
        print(*track.warnings, sep="\n", file=sys.stderr)
    print(output.shards[0].digest)


if __name__ == "__main__":
    main()
