"""Models that were registered in MLflow before the move of their loader still load."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import mlflow
import pandas as pd
from mlflow.models import Model

from data_catalog.model_files import MODEL_FILE
from flows.tracking.logged_model import DETAILS_FILE
from tests.support.untrained import untrained_generator
from tld_model.checkpoint import save_denoiser
from tld_model.config import SamplingSettings


def test_a_model_whose_loader_has_its_former_name_loads(tmp_path: Path) -> None:
    denoiser = untrained_generator().denoiser
    save_denoiser(tmp_path / MODEL_FILE, denoiser.state_dict(), denoiser.config)
    details = {"vae": "shapes-vae", "clip": "shapes-clip", "sampling": asdict(SamplingSettings(2))}
    (tmp_path / DETAILS_FILE).write_text(json.dumps(details))
    described = Model()
    described.add_flavor("python_function", loader_module="flows.mlflow_model")
    described.save(tmp_path / "MLmodel")

    model = mlflow.pyfunc.load_model(str(tmp_path))
    assert model.predict(pd.DataFrame({"prompt": ["a red star"]})).shape == (1, 64, 64, 3)
