"""Which model a command draws with: the one that a run has trained, or one that is named, on disk
or in MLflow."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from flows.terminal.console import quote_overrides
from flows.terminal.errors import UserError

if TYPE_CHECKING:
    from data_catalog.storage.manifest import Manifest
    from pipeline.config.run import RunConfig
    from pipeline.generate.generator import ImageGenerator
    from pipeline.generate.request import Encoder, ModelIdentity

_IN_MLFLOW = re.compile(r"(models|runs):/")
Model = Annotated[
    str | None,
    Parameter(
        help="Draw with this denoiser.safetensors, or that of this folder, as `tld import-checkpoint` makes it, "
        "and the encoders of encode.vae and encode.clip; or with a model of MLflow, like "
        "models:/tiny@champion, "
        "models:/tiny/3 or runs:/…, and its own encoders, where they are the shipped ones or those "
        "of encode.vae and "
        "encode.clip. Without it with the model that this run has trained."
    ),
]


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A denoiser's file, the encoders that it works with, and where it is from, for people
    elsewhere."""

    denoiser: Path
    vae: str
    clip: str
    source: str

    def load(self, device: str) -> ImageGenerator:
        """Raises CheckpointError or EncoderError."""
        from pipeline.generate.generator import load_generator

        return load_generator(self.denoiser, self.vae, self.clip, device)

    def identity(self) -> ModelIdentity:
        """What tells it apart from other models, without any path of this machine. Reads all its
        files."""
        from data_catalog.storage.digests import file_digest
        from pipeline.generate.request import ModelIdentity

        vae, clip = _encoder(self.vae), _encoder(self.clip)
        return ModelIdentity(
            source=self.source[:300], digest=file_digest(self.denoiser), vae=vae, clip=clip
        )


def _encoder(name: str) -> Encoder:
    from pipeline.generate.request import Encoder
    from tld_model.encoders.names import SHIPPED_ENCODERS, encoder_folder, encoder_identity

    is_path = name not in SHIPPED_ENCODERS and encoder_folder(name)
    return Encoder(name=Path(name).name if is_path else name, identity=encoder_identity(name))


def resolve_model(
    config: Path,
    overrides: Sequence[str],
    settings: RunConfig,
    model: str | None,
    ema: int | None = None,
) -> ModelSource:
    """The named model, or that of the run; of its averages that of evaluate.ema, or another. Raises
    UserError where there is none."""
    if model is None:
        return _of_the_run(config, overrides, settings, ema)
    if ema is not None:
        raise UserError(
            "--ema chooses among the averages of a run; with --model name the file of one"
        )
    return (
        _registered(model, settings) if _IN_MLFLOW.match(model) else _named(Path(model), settings)
    )


def _of_the_run(
    config: Path, overrides: Sequence[str], settings: RunConfig, ema: int | None
) -> ModelSource:
    from data_catalog.model_files import average_file

    kept, number = settings.train.ema_decay, settings.evaluate.ema if ema is None else ema
    if not 0 <= number < len(kept):
        raise UserError(
            f"--ema {number}: there is no such average; train.ema_decay has {len(kept)}, from 0"
        )
    encodings, trained, _ = trained_run(config, overrides, settings)
    encoders, path = encodings.figures["encoders"], trained.file(average_file(number))
    source = f"{settings.name}, {path.parent.name}/{path.name}"
    return ModelSource(path, encoders["vae"], encoders["clip"], source)


def _registered(uri: str, settings: RunConfig) -> ModelSource:
    """A model of MLflow, with the encoders that are named beside it."""
    from data_catalog.storage.workspace import Workspace
    from flows.tracking.store import is_given, open_client

    if not is_given(settings.folder) and not Workspace(settings.folder).mlflow_database.exists():
        raise UserError(
            f"--model {uri}: no run was recorded in {settings.folder} yet; set root or "
            "MLFLOW_TRACKING_URI"
        )
    from mlflow.exceptions import MlflowException

    from flows.tracking.registry import registered_files

    try:
        found = registered_files(uri, open_client(settings.folder).tracking_uri)
    except (MlflowException, OSError) as error:
        raise UserError(f"--model {uri}: MLflow says: {error}") from error
    check_named_encoders(uri, {"vae": found.vae, "clip": found.clip}, settings)
    return ModelSource(found.denoiser, found.vae, found.clip, uri)


def check_named_encoders(uri: str, named: Mapping[str, str], settings: RunConfig) -> None:
    """Raise UserError where a registry names encoders that are neither shipped nor those of the
    user's own config: nothing is fetched or opened by a stranger's word."""
    from tld_model.encoders.names import SHIPPED_ENCODERS

    own = {"vae": settings.encode.vae, "clip": settings.encode.clip}
    strange = [
        kind for kind, name in named.items() if name not in SHIPPED_ENCODERS and name != own[kind]
    ]
    if strange:
        lines = "".join(f"\n  encode.{kind}={named[kind]!r}" for kind in strange)
        raise UserError(
            f"--model {uri} names encoders that this config does not; if you trust them, set{lines}"
        )


def trained_run(
    config: Path, overrides: Sequence[str], settings: RunConfig
) -> tuple[Manifest, Manifest, Manifest | None]:
    """The encodings and the model of a run, and its report where there is one. Raises UserError."""
    from pipeline.stages.freshness import stage_statuses

    statuses = stage_statuses(settings)
    model, encodings = statuses["train"].manifest, statuses["encode"].manifest
    if not model or not encodings:
        raise UserError(
            "no trained model for these settings; make it with\n"
            f"  tld run {quote_overrides(config, overrides)} --until train"
        )
    return encodings, model, statuses["evaluate"].manifest


def _named(model: Path, settings: RunConfig) -> ModelSource:
    """A denoiser's file, and the encoders of a run that needs no output."""
    from data_catalog.model_files import model_file
    from tld_model.encoders.config_files import encoder_problem

    path, encode = model_file(model), settings.encode
    problems = [
        f"encode.{kind}: {problem}"
        for kind, name in (("vae", encode.vae), ("clip", encode.clip))
        if (problem := encoder_problem(name))
    ]
    if not path.is_file():
        problems.append(f"--model: there is no file {path}; tld import-checkpoint makes one")
    if problems:
        raise UserError("cannot draw:\n" + "\n".join(f"  {problem}" for problem in problems))
    return ModelSource(path, encode.vae, encode.clip, path.name)
