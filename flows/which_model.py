"""Which model a command draws with: the one that a run has trained, or one that is named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from flows.terminal import UserMistake, joined

if TYPE_CHECKING:
    from data_catalog.manifest import Manifest
    from pipeline.config import RunConfig
    from pipeline.sample import Generator

Model = Annotated[
    Path | None,
    Parameter(
        help="Draw with this denoiser.safetensors, or that of this folder, as `tld import-checkpoint` makes it, "
        "and the encoders of encode.vae and encode.clip; without it with the model that this run has trained."
    ),
]


@dataclass(frozen=True, slots=True)
class WhichModel:
    """A denoiser's file, and the encoders that it works with."""

    denoiser: Path
    vae: str
    clip: str

    def load(self, device: str) -> Generator:
        """Raises CheckpointError or EncoderError."""
        from pipeline.sample import load_generator

        return load_generator(self.denoiser, self.vae, self.clip, device)


def which_model(config: Path, overrides: Sequence[str], settings: RunConfig, model: Path | None) -> WhichModel:
    """The named model, or that of the run. Raises UserMistake where there is none."""
    if model is not None:
        return _named(model, settings)
    from pipeline.train_events import average_file

    encodings, trained, _ = trained_run(config, overrides, settings)
    encoders = encodings.figures["encoders"]
    return WhichModel(trained.file(average_file(settings.evaluate.ema)), encoders["vae"], encoders["clip"])


def trained_run(
    config: Path, overrides: Sequence[str], settings: RunConfig
) -> tuple[Manifest, Manifest, Manifest | None]:
    """The encodings and the model of a run, and its report where there is one. Raises UserMistake."""
    from pipeline.stage import survey

    statuses = survey(settings)
    model, encodings = statuses["train"].manifest, statuses["encode"].manifest
    if not model or not encodings:
        raise UserMistake(
            f"no trained model for these settings; make it with\n  tld run {config} {joined(overrides)}--until train"
        )
    return encodings, model, statuses["evaluate"].manifest


def _named(model: Path, settings: RunConfig) -> WhichModel:
    """A denoiser's file, and the encoders of a run that needs no output."""
    from pipeline.preflight import encoder_problem
    from pipeline.train_events import model_file

    path, encode = model_file(model), settings.encode
    problems = [
        f"encode.{kind}: {problem}"
        for kind, name in (("vae", encode.vae), ("clip", encode.clip))
        if (problem := encoder_problem(name))
    ]
    if not path.is_file():
        problems.append(f"--model: there is no file {path}; tld import-checkpoint makes one")
    if problems:
        raise UserMistake("cannot draw:\n" + "\n".join(f"  {problem}" for problem in problems))
    return WhichModel(path, encode.vae, encode.clip)
