"""The checks before a run report everything at once, whichever part of the run it is about."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config.load import load_config
from pipeline.config.section import ConfigError
from pipeline.preflight.check import check_run
from tests.support.small import TINY, small
from tests.support.vaes import SHAPES, VAES, save_vae


def test_a_run_that_can_succeed_passes(tmp_path: Path) -> None:
    check_run(load_config(TINY, small(tmp_path / "data")))


def test_all_problems_are_in_one_message(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    config = load_config(
        TINY,
        small(
            tmp_path / "data",
            download__urls=tmp_path / "no-table.csv",
            encode__vae=tmp_path / "no-vae",
            model__text="tokens",
            train__held_out_fraction=0,
            train__init_from=tmp_path / "no-model",
            evaluate__features=f"['dinov2:{tmp_path / 'no-dinov2'}']",
        ),
    )
    with pytest.raises(ConfigError) as raised:
        check_run(config)
    title, *problems = str(raised.value).splitlines()
    assert title == "cannot start this run:"
    for setting in (
        *("download.urls", "encode.vae", "model.text", "train.held_out_fraction"),
        *("train.init_from", "evaluate.features", "root"),
    ):
        assert len([line for line in problems if line.startswith(f"  {setting}: ")]) == 1, setting


@pytest.mark.parametrize("class_name", VAES)
def test_the_latents_of_each_vae_are_compared_with_the_model(
    class_name: str, tmp_path: Path
) -> None:
    vae = save_vae(class_name, tmp_path / "vae")
    downscale, channels = SHAPES[class_name]
    settings = {"encode__vae": vae, "model__latent_size": 2, "model__latent_channels": 99}
    with pytest.raises(ConfigError) as raised:
        check_run(load_config(TINY, small(tmp_path / "data", **settings)))
    assert f"set model.latent_size={64 // downscale}" in str(raised.value)
    assert f"set model.latent_channels={channels}" in str(raised.value)


def test_a_vae_of_another_class_is_refused_before_the_run(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"_class_name": "AutoencoderKLWan"}')
    with pytest.raises(ConfigError, match=r"encode\.vae: .*AutoencoderKLWan; supported are"):
        check_run(load_config(TINY, small(tmp_path / "data", encode__vae=tmp_path)))


def test_a_posterior_is_refused_before_the_run_of_a_vae_without_one(tmp_path: Path) -> None:
    vae = save_vae("AutoencoderDC", tmp_path / "vae")
    for posterior in ("sample", "spread"):
        settings = small(tmp_path / "data", encode__vae=vae, encode__posterior=posterior)
        with pytest.raises(ConfigError, match=rf"encode\.posterior: is {posterior}, but the VAE"):
            check_run(load_config(TINY, settings))


def test_a_gate_on_what_captions_leave_open_needs_captions_that_do(tmp_path: Path) -> None:
    gate = "evaluate.require={open_attribute_diversity: 0.5}"
    settings = small(tmp_path / "data")
    with pytest.raises(ConfigError, match=r"leave nothing open; set download\.caption_column=mix"):
        check_run(load_config(TINY, [*settings, gate]))
    check_run(load_config(TINY, [*settings, gate, "download.caption_column=mixed"]))
    with pytest.raises(ConfigError, match="diversity: available only for the built-in data set"):
        check_run(load_config(TINY, [*settings, gate, f"download.urls={tmp_path}/t.csv"]))


def test_what_a_distilled_model_must_reach_is_checked_too(tmp_path: Path) -> None:
    required = "{retrieval_at_1: 0.5, frechet_distance: 5, held_out_loss: 1}"
    config = load_config(TINY, [*small(tmp_path / "data"), f"distill.require={required}"])
    with pytest.raises(ConfigError) as raised:
        check_run(config)
    problems = [line for line in str(raised.value).splitlines() if "distill.require" in line]
    assert len(problems) == 3
    assert "retrieval_at_1: needs evaluate.concept_column" in problems[0]
    assert "evaluate.prompts is 12; set evaluate.prompts=50" in problems[1]
    assert "held_out_loss: is not computed of a distilled model" in problems[2]
    assert "evaluate.require" not in str(raised.value)
