"""The encode stage with text encoders other than CLIP's, without CLIP, and token states as uint8."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from data_catalog.encodings import EncodingsError, read_arrays, read_rows
from data_catalog.figures import EncodingsFigures
from data_catalog.storage.manifest import Manifest
from pipeline.config.load import load_config
from pipeline.config.section import ConfigError
from pipeline.dataset.encoded_dataset import open_dataset
from pipeline.preflight.check import check_run
from pipeline.stages.output_settings import output_settings
from tests.pipeline.encode.test_stage import config_with
from tests.pipeline.encode.test_text import encoded, images
from tests.support.small import TINY
from tests.support.text_encoders import minilm, needs_minilm, save_decoder, save_image_model
from tld_model.config import TextSettings
from tld_model.encoders.text_encoder import load_text_encoder

__all__ = ["images"]


def captions_of(output: Manifest) -> list[str]:
    return [
        caption
        for shard in output.shards
        for caption in read_rows(output.folder, shard.name, ["caption"])["caption"].to_pylist()
    ]


@needs_minilm
@pytest.mark.parametrize("dtype", ["uint8", "float16"])
def test_batches_hold_what_the_text_encoder_makes_of_the_captions(
    dtype: str, images: Manifest, tmp_path: Path
) -> None:
    chosen = {"text_encoder": minilm(), "text_layer": -2, "text_template": "a photo of {}"}
    output = encoded(tmp_path, images, text="tokens", token_dtype=dtype, batch_size=5, **chosen)
    figures = EncodingsFigures.of(output)
    text, statistics = figures.encoders.text, figures.token_statistics
    assert text
    assert statistics
    assert (text.layer, text.tokens, text.template) == (5, 256, "a photo of {}")
    assert (text.pooling, text.normalized, text.padding) == ("mean", True, "right")
    assert (figures.text_dim, figures.token_dim, statistics.dtype) == (384, 384, dtype)
    settings = TextSettings(text.layer, text.tokens, text.template)
    numbers, captions = np.arange(output.rows), captions_of(output)
    for form in ("pooled", "tokens"):
        expected = load_text_encoder(minilm(), "cpu", form, settings)(captions)
        batch = open_dataset(output, form).batch(numbers).text
        if form == "tokens":
            assert batch.shape[1] == figures.longest_caption
            assert batch.any(dim=2).equal(expected.any(dim=2)), "padding is zero, and only padding"
            rmse = float((batch - expected)[expected.any(dim=2)].square().mean().sqrt())
            assert rmse == pytest.approx(statistics.rmse, rel=0.05), "the figures say the error"
            assert statistics.rmse_sigma < (0.05 if dtype == "uint8" else 1e-3)
        else:
            assert (batch - expected).abs().max() < 1e-3


def test_clip_scores_are_those_of_clip_whoever_encodes_the_captions(
    images: Manifest, tmp_path: Path
) -> None:
    plain = encoded(tmp_path / "plain", images)
    name = save_decoder(tmp_path / "model")
    other = encoded(tmp_path / "other", images, text_encoder=name)
    first, second = (
        read_rows(output.folder, "00000")["clip_score"].to_numpy() for output in (plain, other)
    )
    np.testing.assert_allclose(first, second, atol=1e-3)
    figures = EncodingsFigures.of(other)
    assert figures.text_dim == 48
    assert figures.encoders.clip == "shapes-clip"
    assert EncodingsFigures.of(plain).encoders.text is None


def test_without_clip_there_is_no_score(images: Manifest, tmp_path: Path) -> None:
    name = save_decoder(tmp_path / "model")
    output = encoded(tmp_path / "out", images, clip=None, text_encoder=name)
    scores = read_rows(output.folder, "00000", ["clip_score"])["clip_score"].to_pylist()
    assert scores == [None] * len(scores)
    figures = EncodingsFigures.of(output)
    assert figures.statistics.clip_score is None
    assert figures.encoders.clip is None
    assert figures.encoders.text_model == name


def test_settings_that_contradict_each_other_are_refused() -> None:
    for settings, says in (
        ({"clip": None}, "captions need a text_encoder"),
        ({"clip": None, "text_encoder": "a/b", "min_clip_score": 10}, "min_clip_score needs"),
        ({"text_template": "no place"}, "needs {} once"),
        ({"text_layer": 0}, "layers count from 1"),
    ):
        with pytest.raises(ValidationError, match=says):
            config_with(**settings)


def test_what_cannot_encode_text_is_told_before_any_work(tmp_path: Path) -> None:
    vit, decoder = save_image_model(tmp_path / "vit"), save_decoder(tmp_path / "decoder")

    def problems(*settings: str) -> str:
        with pytest.raises(ConfigError) as refused:
            check_run(load_config(TINY, [f"root={tmp_path / 'data'}", *settings]))
        return str(refused.value)

    assert "encode.text_encoder: " in (told := problems(f"encode.text_encoder={vit}"))
    assert "of type vit, which is no text encoder" in told
    told = problems(f"encode.text_encoder={decoder}", "encode.text_layer=7")
    assert "model.text_dim: is 64, but the encoders produce 48; set model.text_dim=48" in told
    assert f"encode.text_layer: is 7, but {decoder!r} has 3 layers" in told
    told = problems(
        f"encode.text_encoder={decoder}", "encode.clip=null", "evaluate.require={clip_score: 20}"
    )
    assert "evaluate.require: clip_score: needs CLIP, but encode.clip is null" in told


def test_only_outputs_with_token_states_depend_on_their_number_format() -> None:
    pooled, tokens = output_settings("encode", config_with()), config_with(text="tokens")
    assert "token_dtype" not in pooled
    assert pooled == output_settings("encode", config_with(token_dtype="float16"))
    assert output_settings("encode", tokens)["token_dtype"] == "uint8"
    as_before = output_settings("encode", config_with(text="tokens", token_dtype="float16"))
    assert "token_dtype" not in as_before
    assert not {name for name in pooled if name.startswith("text_")}


def test_a_shard_whose_scales_do_not_fit_is_refused(images: Manifest, tmp_path: Path) -> None:
    output = encoded(tmp_path, images, text="tokens")
    path = output.file("00000.npz")
    good = dict(np.load(path))
    assert good["tokens"].dtype == np.uint8
    assert read_arrays(path).token_scale is not None
    for change, says in (
        ({"token_scale": good["token_scale"][:-1]}, "token_scale has"),
        ({"tokens": good["tokens"].astype(np.float16)}, "must come with token_scale"),
        ({"token_scale": good["token_scale"].astype(np.float32)}, "no encoding has"),
    ):
        np.savez(path, **(good | change))
        with pytest.raises(EncodingsError, match=says):
            read_arrays(path)
    del good["token_scale"]
    np.savez(path, **good)
    with pytest.raises(EncodingsError, match="must come with token_scale"):
        read_arrays(path)
