"""Denoisers as MLflow models. MLflow loads them in any environment that has tld:

model = mlflow.pyfunc.load_model("models:/tiny@champion")
model.predict(pd.DataFrame({"prompt": ["a small red star …"]}), params={"seed": 7})
"""

from __future__ import annotations

import json
import platform
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import LoggedModel
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema, TensorSpec
from pydantic import BaseModel, Field, ValidationError, model_validator

from data_catalog.figures import EncodingsFigures
from data_catalog.images import Images
from data_catalog.model_files import MODEL_FILE, Average, average_file
from data_catalog.storage.manifest import Manifest
from pipeline.config.run import RunConfig
from pipeline.generate.generator import ImageGenerator, load_generator
from tld_model.config import SamplingSettings

DETAILS_FILE = "model.json"  # encoders and sampling settings

_LARGEST_DETAILS = 64 * 1024
_EncoderName = Annotated[str, Field(min_length=1, max_length=4096)]


class ModelDetails(BaseModel):
    """The content of DETAILS_FILE."""

    vae: _EncoderName
    clip: _EncoderName | None = None
    text_encoder: _EncoderName | None = None
    """None if CLIP encodes the captions."""
    sampling: SamplingSettings

    @property
    def text_model(self) -> str:
        """The model that encodes the captions."""
        return self.text_encoder or self.clip or ""

    @model_validator(mode="after")
    def _captions_are_encoded(self) -> ModelDetails:
        if not self.text_model:
            raise ValueError("it names no model that encodes captions")
        return self


@dataclass(frozen=True, slots=True)
class TextToImage:
    """A denoiser with its encoders, as an MLflow python_function."""

    generator: ImageGenerator
    default: SamplingSettings

    def predict(self, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> Images:
        """Images uint8 [n, h, w, 3] of n prompts, those in the column `prompt`. Params: steps,
        guidance, negative (the negative prompt) and seed; image i uses seed + i."""
        params = params or {}
        changes = {name: params[name] for name in ("steps", "guidance") if name in params}
        sampling = replace(self.default, **changes)
        prompts = [str(prompt) for prompt in model_input["prompt"]]
        seed = int(params.get("seed", 0))
        return self.generator(
            prompts, range(seed, seed + len(prompts)), sampling, params.get("negative", "")
        )


def _load_pyfunc(path: str) -> TextToImage:
    """Load a model from the folder of its files. MLflow calls this."""
    folder = Path(path)
    details = read_details(folder)
    generator = load_generator(
        folder / MODEL_FILE, details.vae, details.text_model, "auto", safetensors_only=True
    )
    return TextToImage(generator, details.sampling)


def read_details(folder: Path) -> ModelDetails:
    """The details that are stored beside the weights. Raises ValueError if they are unusable."""
    path = folder / DETAILS_FILE
    if not path.is_file() or not (folder / MODEL_FILE).is_file():
        raise ValueError(f"{DETAILS_FILE} or {MODEL_FILE} is missing")
    if path.stat().st_size > _LARGEST_DETAILS:
        raise ValueError(f"{DETAILS_FILE} is larger than {_LARGEST_DETAILS} bytes")
    try:
        return ModelDetails.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ValueError(f"{DETAILS_FILE} is damaged: {error}") from error


def registered_name(config: RunConfig) -> str:
    """The name of a run's model in MLflow's registry: that of the run, or
    for its distilled model one beside it."""
    return f"{config.name}-distilled" if config.evaluate.model == "distilled" else config.name


@dataclass(frozen=True, slots=True)
class ModelRun:
    """The training run in MLflow that a model belongs to."""

    client: MlflowClient
    experiment_id: str
    run_id: str


def log_model(
    run: ModelRun, model: Manifest, encodings: Manifest, ema: Average, sampling: SamplingSettings
) -> LoggedModel:
    """Store one EMA of a trained denoiser in MLflow, with its default sampling settings, unless it
    is stored already."""
    client = run.client
    tags = {
        "tld.fingerprint": model.fingerprint,
        "tld.average": str(ema),
        "tld.sampling": json.dumps(asdict(sampling)),
    }
    query = " AND ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
    for existing in client.search_logged_models([run.experiment_id], filter_string=query):
        if existing.status == "READY":
            return existing
    params = {name: str(value) for name, value in model.settings["model"].items()}
    logged = client.create_logged_model(
        run.experiment_id, name="denoiser", source_run_id=run.run_id, params=params, tags=tags
    )
    encoders = EncodingsFigures.of(encodings).encoders
    details = {**encoders.model_dump(exclude={"text"}), "sampling": asdict(sampling)}
    if encoders.text:
        details["text_encoder"] = encoders.text.name
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / MODEL_FILE).symlink_to(model.file(average_file(ema)).resolve())
        (folder / DETAILS_FILE).write_text(json.dumps(details), encoding="utf-8")
        metadata = Model(
            model_id=logged.model_id, run_id=run.run_id, signature=_signature(sampling)
        )
        metadata.add_flavor(
            "python_function",
            loader_module="flows.tracking.logged_model",
            python_version=platform.python_version(),
        )
        metadata.save(folder / "MLmodel")
        client.log_model_artifacts(logged.model_id, str(folder))
    return client.finalize_logged_model(logged.model_id, "READY")


def _signature(sampling: SamplingSettings) -> ModelSignature:
    defaults: dict[str, tuple[str, object]] = {
        "steps": ("long", sampling.steps),
        "guidance": ("double", sampling.guidance),
        "negative": ("string", ""),
        "seed": ("long", 0),
    }
    return ModelSignature(
        inputs=Schema([ColSpec("string", "prompt")]),
        outputs=Schema([TensorSpec(np.dtype(np.uint8), (-1, -1, -1, 3))]),
        params=ParamSchema(
            [ParamSpec(name, kind, default) for name, (kind, default) in defaults.items()]
        ),
    )
