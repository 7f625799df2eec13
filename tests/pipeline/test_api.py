"""The Python API on a small workspace with an untrained model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from pipeline.api import (
    MissingOutput,
    TrainedModel,
    load_model,
    open_encodings,
    run_stages,
    training_curves,
)
from pipeline.config.section import ConfigError
from pipeline.generate.image_size import SizeError
from tests.support.small import TINY
from tests.support.workspace import make_workspace, output, overrides
from tld_model.config import SamplingSettings

PROMPT = "a small red star in the top left on a blue background"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    make_workspace(root)
    return root


@pytest.fixture(scope="module")
def model(root: Path) -> TrainedModel:
    return load_model(TINY, [*overrides(root), "evaluate.steps=3"])


def test_a_prompt_becomes_an_image_and_a_list_a_list(model: TrainedModel) -> None:
    image = model(PROMPT, seed=8)
    images = model(["a circle", PROMPT], 7)

    assert image.size == (64, 64)
    assert image.mode == "RGB"
    assert [other.size for other in images] == [(64, 64)] * 2
    assert (np.asarray(images[1]) == np.asarray(image)).all()
    assert image._repr_png_()  # what a notebook shows
    assert model([]) == []


def test_a_call_changes_how_the_model_samples(model: TrainedModel) -> None:
    assert model.sampling == SamplingSettings(steps=3, guidance=2.0)
    usual = np.asarray(model(PROMPT))

    assert (np.asarray(model(PROMPT, steps=3, guidance=2.0)) == usual).all()
    assert (np.asarray(model(PROMPT, steps=4)) != usual).any()
    assert (np.asarray(model(PROMPT, solver="heun")) != usual).any()
    assert (np.asarray(model(PROMPT, negative="a circle")) != usual).any()
    assert model(PROMPT, size=(128, 64)).size == (128, 64)
    with pytest.raises(SizeError):
        model(PROMPT, size=(3, 3))
    with pytest.raises(ValidationError, match="steps"):
        model(PROMPT, steps=0)


def test_a_file_or_its_folder_stands_in_for_the_trained_model(
    root: Path, model: TrainedModel
) -> None:
    trained = output(make_workspace(root), "train")

    for path in (trained.folder, str(trained.file("denoiser.safetensors"))):
        other = load_model(
            TINY, ["root=/nowhere", "evaluate.steps=3", "evaluate.device=cpu"], model=path
        )
        assert (np.asarray(other(PROMPT)) == np.asarray(model(PROMPT))).all()


def test_encodings_open_with_their_split(root: Path) -> None:
    encodings = open_encodings(TINY, overrides(root))

    numbers = np.concatenate([encodings.split.train, encodings.split.held_out])
    assert sorted(numbers) == list(range(40))
    assert encodings.pairs.batch(encodings.split.train[:2]).latents.shape == (2, 4, 8, 8)
    assert encodings.manifest.stage == "encode"


def test_what_is_not_there_is_named_with_the_next_move(root: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingOutput, match=r"train stage of 'tiny'.*--until train"):
        load_model(TINY, [*overrides(root), "train.lr=1e-4"])
    with pytest.raises(MissingOutput, match=str(tmp_path)):
        open_encodings(TINY, [f"root={tmp_path}"])
    with pytest.raises(ConfigError, match="did you mean"):
        load_model(TINY, ["train.step=3"])


def test_the_curves_of_a_training_are_what_it_has_logged(root: Path) -> None:
    model = run_stages(TINY, overrides(root), until="train")["train"]

    assert training_curves(model)["loss"] == [(1, 2.0), (2, 1.0), (3, 2 / 3)]
