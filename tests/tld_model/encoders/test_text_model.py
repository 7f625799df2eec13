"""Folders that are no text encoder, or only half of one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from tests.support.text_encoders import save_decoder, save_image_model, save_t5
from tld_model.encoders.pretrained import EncoderError
from tld_model.encoders.text_config import text_encoder_problem
from tld_model.encoders.text_encoder import load_text_encoder


def set_config(folder: Path, **changed: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))


def drop_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if "layers.1." in name)
    del weights[name]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def drop_tokenizer(folder: Path) -> None:
    for path in folder.glob("*token*"):
        path.unlink()


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (drop_weight, "lacks 1 of the weights"),
        (drop_tokenizer, "tokenizer"),
        (lambda folder: (folder / "model.safetensors").unlink(), "text encoder"),
        (lambda folder: set_config(folder, model_type="bart"), "bart"),
        (lambda folder: set_config(folder, model_type="no such"), "no such"),
    ],
)
def test_half_a_model_is_one_clear_error(
    damage: Callable[[Path], None], says: str, tmp_path: Path
) -> None:
    folder = Path(save_decoder(tmp_path))
    damage(folder)
    with pytest.raises(EncoderError, match=says) as refused:
        load_text_encoder(str(folder), "cpu")
    assert refused.value.exit_code == 2


def test_a_model_of_images_is_refused(tmp_path: Path) -> None:
    name = save_image_model(tmp_path)
    with pytest.raises(EncoderError, match="of type vit, which is no text encoder"):
        load_text_encoder(name, "cpu")
    assert "of type vit, which is no text encoder" in str(text_encoder_problem(name))


def test_a_tokenizer_of_a_larger_model_is_refused(tmp_path: Path) -> None:
    save_decoder(tmp_path / "large")
    name = save_t5(tmp_path / "small")
    folder = Path(name)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["added_tokens"].append(
        {**tokenizer["added_tokens"][0], "id": 5000, "content": "<more>"}
    )
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(EncoderError, match="they belong to different models"):
        load_text_encoder(name, "cpu")
