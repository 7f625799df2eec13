"""Models of a registry that somebody else filled: nothing is opened or fetched by their word."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException

from data_catalog.model_files import MODEL_FILE
from flows.cli.model_source import resolve_model
from flows.terminal.errors import UserError
from flows.tracking.logged_model import DETAILS_FILE, read_details
from flows.tracking.registry import registered_files
from pipeline.config.load import load_config
from tests.support.small import TINY, small

HONEST: dict[str, Any] = {"vae": "shapes-vae", "clip": "shapes-clip", "sampling": {"steps": 4}}


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that MLflow fetches, whatever model is asked for."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / MODEL_FILE).touch()
    (folder / DETAILS_FILE).write_text(json.dumps(HONEST))
    monkeypatch.setattr("mlflow.artifacts.download_artifacts", lambda _: str(folder))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    return folder


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "[" * 50_000,
        '"x"',
        json.dumps(HONEST | {"vae": 7}),
        json.dumps(HONEST | {"vae": ""}),
        json.dumps(HONEST | {"sampling": {"steps": 10**12}}),
        json.dumps(HONEST | {"sampling": {"solver": "none"}}),
        json.dumps({"vae": "shapes-vae"}),
        json.dumps(HONEST | {"more": "x" * 100_000}),
    ],
)
def test_details_that_are_damaged_are_no_model(model: Path, content: str) -> None:
    assert read_details(model).sampling.steps == 4
    (model / DETAILS_FILE).write_text(content)
    with pytest.raises(MlflowException, match=r"is no model of tld: model\.json"):
        registered_files("models:/x/1", "sqlite://")
    (model / DETAILS_FILE).unlink()
    with pytest.raises(MlflowException, match="is no model of tld"):
        registered_files("models:/x/1", "sqlite://")


def test_only_encoders_that_the_user_named_are_used(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*_: object) -> None:
        raise AssertionError("somebody asked the network")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    overrides = small(tmp_path / "data")
    settings = load_config(TINY, overrides)
    assert resolve_model(TINY, overrides, settings, "models:/x/1").vae == "shapes-vae"
    for kind, name in (
        ("vae", "owner/of-their-choice"),
        ("clip", str(tmp_path)),
        ("clip", "../elsewhere"),
    ):
        (model / DETAILS_FILE).write_text(json.dumps(HONEST | {kind: name}))
        with pytest.raises(UserError, match=f"encode.{kind}='{name}'"):
            resolve_model(TINY, overrides, settings, "models:/x/1")
    own = [*overrides, "encode.vae=owner/of-their-choice"]
    (model / DETAILS_FILE).write_text(json.dumps(HONEST | {"vae": "owner/of-their-choice"}))
    assert (
        resolve_model(TINY, own, load_config(TINY, own), "models:/x/1").vae
        == "owner/of-their-choice"
    )
