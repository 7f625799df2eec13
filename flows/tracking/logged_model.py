"""A denoiser in MLflow: how it is put there, and how MLflow loads it in an environment that has
tld:

model = mlflow.pyfunc.load_model("models:/tiny@champion")
model.predict(pd.DataFrame({"prompt": ["a small red star …"]}), params={"seed": 7})
"""

from __future__ import annotations

import json
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
from pydantic import BaseModel, Field, ValidationError

from data_catalog.images import Images
from data_catalog.model_files import MODEL_FILE, average_file
from data_catalog.storage.manifest import Manifest
from pipeline.generate.generator import ImageGenerator, load_generator
from tld_model.config import MOST_STEPS, SamplingSettings

DETAILS_FILE = "model.json"  # encoders, and how the run draws


_LARGEST_DETAILS = 64 * 1024
_EncoderName = Annotated[str, Field(min_length=1, max_length=4096)]


class ModelDetails(BaseModel):
    """The content of DETAILS_FILE."""

    vae: _EncoderName
    clip: _EncoderName
    sampling: SamplingSettings


@dataclass(frozen=True, slots=True)
class TextToImage:
    """A denoiser with its encoders, as MLflow calls it."""

    generator: ImageGenerator
    usual: SamplingSettings

    def predict(self, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> Images:
        """Pictures uint8 [n, h, w, 3] of n prompts, those of the column `prompt`. Params: steps,
        guidance, negative (a prompt to lead away from), seed; picture i has the noise of seed +
        i."""
        given = params or {}
        sampling = replace(
            self.usual, **{name: given[name] for name in ("steps", "guidance") if name in given}
        )
        prompts = [str(prompt) for prompt in model_input["prompt"]]
        seed = int(given.get("seed", 0))
        return self.generator(
            prompts, range(seed, seed + len(prompts)), sampling, given.get("negative", "")
        )


def _load_pyfunc(path: str) -> TextToImage:
    """Called by MLflow with the folder of the model's files."""
    folder = Path(path)
    details = read_details(folder)
    generator = load_generator(
        folder / MODEL_FILE, details.vae, details.clip, "auto", safetensors_only=True
    )
    return TextToImage(generator, details.sampling)


def read_details(folder: Path) -> ModelDetails:
    """What a model of MLflow says beside its weights. Raises ValueError."""
    path = folder / DETAILS_FILE
    if not path.is_file() or not (folder / MODEL_FILE).is_file():
        raise ValueError(f"it lacks {DETAILS_FILE} or {MODEL_FILE}")
    if path.stat().st_size > _LARGEST_DETAILS:
        raise ValueError(f"{DETAILS_FILE} is larger than {_LARGEST_DETAILS} bytes")
    try:
        details = ModelDetails.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ValueError(f"{DETAILS_FILE} is damaged: {error}") from error
    if not 1 <= details.sampling.steps <= MOST_STEPS:
        raise ValueError(
            f"{DETAILS_FILE} asks for {details.sampling.steps} steps; {MOST_STEPS} are the most"
        )
    return details


def log_model(
    client: MlflowClient,
    experiment_id: str,
    run_id: str,
    model: Manifest,
    encodings: Manifest,
    average: int,
    usual: SamplingSettings,
) -> LoggedModel:
    """Put one average of a trained denoiser into MLflow, unless it is there, drawing as the run
    does."""
    tags = {
        "tld.fingerprint": model.fingerprint,
        "tld.average": str(average),
        "tld.sampling": json.dumps(asdict(usual)),
    }
    query = " AND ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
    for there in client.search_logged_models([experiment_id], filter_string=query):
        if there.status == "READY":
            return there
    params = {name: str(value) for name, value in model.settings["model"].items()}
    logged = client.create_logged_model(
        experiment_id, name="denoiser", source_run_id=run_id, params=params, tags=tags
    )
    details = {**encodings.figures["encoders"], "sampling": asdict(usual)}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / MODEL_FILE).symlink_to(model.file(average_file(average)).resolve())
        (folder / DETAILS_FILE).write_text(json.dumps(details), encoding="utf-8")
        described = Model(model_id=logged.model_id, run_id=run_id, signature=_signature(usual))
        described.add_flavor("python_function", loader_module="flows.tracking.logged_model")
        described.save(folder / "MLmodel")
        client.log_model_artifacts(logged.model_id, str(folder))
    return client.finalize_logged_model(logged.model_id, "READY")


def _signature(usual: SamplingSettings) -> ModelSignature:
    usually: dict[str, tuple[str, object]] = {
        "steps": ("long", usual.steps),
        "guidance": ("double", usual.guidance),
        "negative": ("string", ""),
        "seed": ("long", 0),
    }
    return ModelSignature(
        inputs=Schema([ColSpec("string", "prompt")]),
        outputs=Schema([TensorSpec(np.dtype(np.uint8), (-1, -1, -1, 3))]),
        params=ParamSchema(
            [ParamSpec(name, kind, default) for name, (kind, default) in usually.items()]
        ),
    )
