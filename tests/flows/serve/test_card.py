"""The card of a served model, where the training data are damaged or away."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.cli.serve import _model_to_serve
from flows.serve.card import _examples
from pipeline.config.load import load_config
from pipeline.config.run import RunConfig
from tests.flows.cli.test_sample import save_model
from tests.support.small import TINY
from tests.support.workspace import make_workspace, output


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    return make_workspace(tmp_path / "data")


def test_damaged_encodings_give_no_examples_and_end_nothing(config: RunConfig) -> None:
    encodings = output(config, "encode")
    assert _examples(config, encodings, built_in=False) != []
    for path in encodings.folder.glob("*.parquet"):
        path.write_bytes(b"no table")
    assert _examples(config, encodings, built_in=False) == []


def test_another_model_needs_no_training_data(tmp_path: Path) -> None:
    model = save_model(tmp_path / "denoiser.safetensors", 1)
    words = [f"root={tmp_path}", f"download.urls={tmp_path / 'gone.csv'}"]
    served = _model_to_serve(TINY, words, load_config(TINY, words), str(model))
    assert served.source.denoiser == model
    assert served.encodings is None
