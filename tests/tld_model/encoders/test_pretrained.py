"""Encoders whose files and config do not agree: no weight is made up."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import socket
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tld_model.encoders.clip import load_clip
from tld_model.encoders.names import SHIPPED_ENCODERS
from tld_model.encoders.pretrained import EncoderError, load_files
from tld_model.encoders.text_encoder import load_text_encoder
from tld_model.encoders.vae import load_image_codec

LOADERS: dict[str, Callable[[str, str], Any]] = {
    "vae": load_image_codec,
    "clip": load_clip,
    "text": load_text_encoder,
}


@pytest.fixture(params=LOADERS)
def strange(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Callable[[], Any], Path]:
    """A loader, and the copy of a shipped encoder that it loads."""
    shipped = SHIPPED_ENCODERS["shapes-vae" if request.param == "vae" else "shapes-clip"]
    folder = tmp_path / "encoder"
    shutil.copytree(shipped, folder)
    load = LOADERS[request.param]
    load(str(folder), "cpu")
    return lambda: load(str(folder), "cpu"), folder


def change_config(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    for part in (config, config.get("text_config"), config.get("vision_config")):
        if part is not None:
            change(part)
    path.write_text(json.dumps(config))


def one_of(weights: dict[str, torch.Tensor]) -> str:
    """A weight that each part of the encoder has."""
    return next(
        name for name in weights if name in ("encoder.conv_in.weight", "text_projection.weight")
    )


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    (path,) = folder.glob("*.safetensors")
    weights = load_file(path)
    change(weights)
    save_file(weights, path, metadata={"format": "pt"})


def deeper(by: int) -> Callable[[dict[str, Any]], None]:
    def change(part: dict[str, Any]) -> None:
        for name in {"num_hidden_layers", "layers_per_block"} & part.keys():
            part[name] += by

    return change


def wider(part: dict[str, Any]) -> None:
    for name in {"intermediate_size", "latent_channels"} & part.keys():
        part[name] *= 2


def test_a_layer_without_weights_is_not_made_up(strange: tuple[Callable[[], Any], Path]) -> None:
    load, folder = strange
    change_config(folder, deeper(1))
    with pytest.raises(EncoderError, match=r"lacks \d+ of the weights that its config describes"):
        load()


def test_a_weight_that_was_left_out_is_not_made_up(strange: tuple[Callable[[], Any], Path]) -> None:
    load, folder = strange
    change_weights(folder, lambda weights: weights.pop(one_of(weights)))
    with pytest.raises(EncoderError, match="lacks 1 of the weights"):
        load()


def test_weights_of_another_shape_are_told(strange: tuple[Callable[[], Any], Path]) -> None:
    load, folder = strange
    change_config(folder, wider)
    with pytest.raises(EncoderError, match=r"other shapes than|size mismatch|expected shape"):
        load()


def test_layers_without_number_are_not_built(strange: tuple[Callable[[], Any], Path]) -> None:
    load, folder = strange
    change_config(folder, deeper(10**9))
    with pytest.raises(EncoderError, match="too few for 10000000"):
        load()


def test_weights_that_are_not_finite_are_refused(strange: tuple[Callable[[], Any], Path]) -> None:
    load, folder = strange

    def break_one(weights: dict[str, torch.Tensor]) -> None:
        weights[one_of(weights)].flatten()[3] = float("nan")

    change_weights(folder, break_one)
    with pytest.raises(EncoderError, match="not finite"):
        load()


@pytest.mark.parametrize("load", [load_clip, load_text_encoder])
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda text: text.update(vocab_size=20), "has [0-9]+ tokens, but its text encoder has 20"),
        (lambda text: text.update(eos_token_id=7), "its text encoder looks for 7"),
        (lambda text: text.update(eos_token_id=2), ""),  # the highest, as in the first configs
    ],
)
def test_a_tokenizer_of_another_model_is_refused(
    load: Callable[[str, str], Any],
    change: Callable[[dict[str, Any]], None],
    says: str,
    tmp_path: Path,
) -> None:
    folder = tmp_path / "clip"
    shutil.copytree(SHIPPED_ENCODERS["shapes-clip"], folder)
    config = json.loads((folder / "config.json").read_text())
    change(config["text_config"])
    (folder / "config.json").write_text(json.dumps(config))

    def fewer_tokens(weights: dict[str, torch.Tensor]) -> None:
        name = "text_model.embeddings.token_embedding.weight"
        weights[name] = weights[name][: config["text_config"]["vocab_size"]].clone()

    change_weights(folder, fewer_tokens)
    with pytest.raises(EncoderError, match=says) if says else contextlib.nullcontext():
        load(str(folder), "cpu")


@pytest.mark.parametrize("load", [load_clip, load_text_encoder])
def test_a_tokenizer_is_not_made_up_and_the_highest_token_must_end_a_caption(
    load: Callable[[str, str], Any], tmp_path: Path
) -> None:
    folder = tmp_path / "clip"
    shutil.copytree(SHIPPED_ENCODERS["shapes-clip"], folder)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    end, other = max(vocabulary, key=vocabulary.get), min(vocabulary, key=vocabulary.get)
    vocabulary[end], vocabulary[other] = vocabulary[other], vocabulary[end]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["eos_token_id"] = 2
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(EncoderError, match="its text encoder looks for"):
        load(str(folder), "cpu")
    for file in folder.glob("*token*"):
        file.unlink()
    with pytest.raises(EncoderError, match=r"has no tokenizer|cannot load a CLIP tokenizer"):
        load(str(folder), "cpu")


def test_the_width_of_a_projection_may_stand_at_the_top_of_a_config_alone(tmp_path: Path) -> None:
    shutil.copytree(SHIPPED_ENCODERS["shapes-clip"], tmp_path / "clip")
    config = json.loads((tmp_path / "clip/config.json").read_text())
    del config["text_config"]["projection_dim"]
    (tmp_path / "clip/config.json").write_text(json.dumps(config))
    expected = load_text_encoder("shapes-clip", "cpu")(["a red star"])
    torch.testing.assert_close(
        load_text_encoder(str(tmp_path / "clip"), "cpu")(["a red star"]), expected
    )


def test_a_config_without_end_or_sense_is_an_error_of_its_folder(
    strange: tuple[Callable[[], Any], Path],
) -> None:
    load, folder = strange
    for content in (
        b"\xff",
        b"[1]",
        b"null",
        b"[" * 800 + b"]" * 800,
        b'{"text_config": null, "a": ' + b"[" * 600 + b"]" * 600 + b"}",
    ):
        (folder / "config.json").write_bytes(content)
        with pytest.raises(EncoderError, match="encoder"):
            load()


def test_a_hub_that_is_out_of_reach_is_named_as_such_and_nothing_else_is_printed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def load(name: str) -> None:
        logging.getLogger("huggingface_hub.utils").warning("Retrying in 1s [Retry 1/5].")
        warnings.warn("The `local_dir_use_symlinks` argument is deprecated", stacklevel=1)
        try:
            raise socket.gaierror(-2, "Name or service not known")
        except OSError as error:
            raise OSError(f"{name} does not appear to have a file named config.json.") from error

    with pytest.raises(EncoderError) as refused:
        load_files("VAE", "me/vae", load)
    assert str(refused.value).endswith("([Errno -2] Name or service not known)")
    assert "Retrying" not in caplog.text
