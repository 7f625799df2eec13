"""Choosing the model of a command: the one that a run has trained, a file, or one in MLflow."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from flows.cli.problems import refuse
from flows.terminal.console import location_of, quote_overrides
from flows.terminal.errors import UserError

if TYPE_CHECKING:
    from data_catalog.model_files import Average
    from data_catalog.storage.manifest import Manifest
    from pipeline.config.run import RunConfig
    from pipeline.generate.model_source import ModelSource

_IN_MLFLOW = re.compile(r"(models|runs):/")
Model = Annotated[
    str | None,
    Parameter(
        help="Model to use: the file of a denoiser, as tld export --format safetensors writes it, "
        "or a folder with a denoiser.safetensors, as tld import-checkpoint writes it, with the "
        "encoders of the config; or a model in MLflow "
        "(models:/tiny@champion, models:/tiny/3, runs:/…) with the encoders recorded there, which "
        "must be built in or named in the config. "
        "[default: the model trained by this run]"
    ),
]


def resolve_model(
    config: Path,
    overrides: Sequence[str],
    settings: RunConfig,
    model: str | None,
    ema: Average | None = None,
) -> ModelSource:
    """The model that --model names, or that of the run: its average `ema`, or evaluate.ema.
    Raises UserError if there is none."""
    if model is None:
        return _model_of_run(config, overrides, settings, ema)
    if ema is not None:
        raise UserError(
            "--ema selects an EMA of the run's own model; with --model, name the EMA's file instead"
        )
    if _IN_MLFLOW.match(model):
        return _model_in_mlflow(model, settings)
    return _model_file(Path(model), settings)


def _model_of_run(
    config: Path, overrides: Sequence[str], settings: RunConfig, ema: Average | None
) -> ModelSource:
    from pipeline.generate.model_source import source_of_run

    average = settings.evaluate.ema if ema is None else ema
    training, distill = settings.train, settings.distill
    if distill and settings.model_stage == "distill":
        training = distill.training(training)
    if problem := training.average_problem(average):
        raise UserError(f"--ema: {problem}")
    encodings, trained, _ = trained_run(config, overrides, settings)
    return source_of_run(settings.name, encodings, trained, average)


def _model_in_mlflow(uri: str, settings: RunConfig) -> ModelSource:
    """A model in MLflow, with the encoders that are recorded beside it."""
    from data_catalog.storage.workspace import Workspace
    from flows.tracking.store import is_given, open_client

    if not is_given(settings.folder) and not Workspace(settings.folder).mlflow_database.exists():
        raise UserError(
            f"--model {uri}: no run has been recorded in {location_of(settings)} yet; set root or "
            "MLFLOW_TRACKING_URI"
        )
    from mlflow.exceptions import MlflowException

    from flows.tracking.registry import registered_files
    from pipeline.generate.model_source import ModelSource

    try:
        files = registered_files(uri, open_client(settings.folder).tracking_uri)
    except (MlflowException, OSError) as error:
        remedy = "; tld promote CONFIG registers the model of a run" * uri.startswith("models:")
        raise UserError(f"--model {uri}: MLflow reports: {error}{remedy}") from error
    details = files.details
    by = "text_encoder" if details.text_encoder else "clip"
    check_named_encoders(uri, {"vae": details.vae, by: details.text_model}, settings)
    return ModelSource(files.denoiser, details.vae, details.text_model, uri)


def check_named_encoders(uri: str, named: Mapping[str, str], settings: RunConfig) -> None:
    """Raise UserError if a registry names encoders that are neither built in nor those of the
    user's own config, because nothing may be fetched or opened on the word of a stranger."""
    from tld_model.encoders.names import SHIPPED_ENCODERS

    own = settings.encode.named_encoders
    strange = [
        kind
        for kind, name in named.items()
        if name not in SHIPPED_ENCODERS and name != own.get(kind)
    ]
    if strange:
        lines = "".join(f"\n  encode.{kind}={named[kind]!r}" for kind in strange)
        raise UserError(
            f"--model {uri} names encoders that this config does not; if you trust them, set{lines}"
        )


def trained_run(
    config: Path, overrides: Sequence[str], settings: RunConfig
) -> tuple[Manifest, Manifest, Manifest | None]:
    """The encodings and the model of a run, and its report if there is one. Raises UserError if the
    run has no model."""
    from pipeline.stages.freshness import stage_statuses
    from pipeline.stages.run_inputs import RunInputs

    statuses = stage_statuses(RunInputs(settings))
    stage = settings.model_stage
    model, encodings = statuses[stage].manifest, statuses["encode"].manifest
    if not model or not encodings:
        raise UserError(
            f"no model has been {settings.evaluate.model} with these settings in "
            f"{location_of(settings)}. First run\n"
            f"  tld run {quote_overrides(config, overrides)} --until {stage}"
        )
    return encodings, model, statuses["evaluate"].manifest


def _model_file(model: Path, settings: RunConfig) -> ModelSource:
    """A denoiser's file, with the encoders of the config."""
    from data_catalog.model_files import model_file
    from pipeline.generate.model_source import ModelSource
    from tld_model.encoders.config_files import encoder_problem

    path, encode = model_file(model), settings.encode
    problems = [
        f"encode.{kind}: {problem}"
        for kind, name in encode.named_encoders.items()
        if (problem := encoder_problem(name))
    ]
    if not path.is_file():
        problems.append(f"--model: there is no file {path}; tld import-checkpoint writes one")
    refuse(problems)
    return ModelSource(path, encode.vae, encode.text_model, path.name)
