"""The checks of phases before a run: each phase like a run of its own, and its model like that of
the phase before."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config.load import load_config
from pipeline.config.run import RunConfig
from pipeline.config.section import ConfigError
from pipeline.preflight.check import check_run
from pipeline.preflight.phase_checks import phase_problems
from tests.support.small import TINY, small


def config_of(tmp_path: Path, *overrides: str) -> RunConfig:
    return load_config(TINY, [*small(tmp_path / "data"), *overrides])


def test_a_phase_may_change_size_data_and_inpainting(tmp_path: Path) -> None:
    larger = ("phases.a.download.image_size=128", "phases.a.model.latent_size=16")
    check_run(config_of(tmp_path, *larger, "phases.b.model.inpainting=true"))


def test_a_phase_with_another_architecture_or_encoder_is_refused(tmp_path: Path) -> None:
    changes = ("model.width=128", "model.text=tokens", "encode.vae=other", "encode.clip=another")
    template = "encode.text_template='a drawing of {}'"
    config = config_of(
        tmp_path, *(f"phases.a.{change}" for change in (*changes, template)), "phases.b.train.lr=1"
    )
    told = list(phase_problems(config.chain[1]))
    assert [text.partition(": ")[0] for text in told] == [
        *("model.text", "model.width", "encode.vae", "encode.clip", "encode.text_template")
    ]
    assert "model.width: is 128, but 64 in the phase before" in told[1]
    assert not list(phase_problems(config)), "the next one has all this too"
    assert not list(phase_problems(config.chain[0]))


def test_all_phases_are_checked_and_each_problem_is_told_once(tmp_path: Path) -> None:
    missing = tmp_path / "none.csv"
    config = config_of(
        tmp_path,
        *("train.held_out_fraction=0", f"download.urls={missing}"),
        *("phases.a.download.image_size=128", "phases.b.download.image_size=100"),
    )
    with pytest.raises(ConfigError) as raised:
        check_run(config)
    told = [line.strip().partition(", ")[0] for line in str(raised.value).splitlines()[1:]]
    assert [text for text in told if "image_size" in text or "latent_size" in text] == [
        "phases.a: model.latent_size: is 8",
        "phases.b: download.image_size: 100 is not a multiple of 8",
    ]
    assert len([text for text in told if "none.csv" in text]) == 1
    assert len([text for text in told if "held_out_fraction" in text]) == 1


def test_the_report_is_checked_with_the_last_phase_alone(tmp_path: Path) -> None:
    columns = ("evaluate.concept_column=mixed", "evaluate.style_column=short_1")
    with_columns = "phases.a.download.keep_columns=[mixed, short_1]"
    check_run(config_of(tmp_path, *columns, with_columns))
    with pytest.raises(ConfigError, match="mixed, short_1 is not carried into the encodings"):
        check_run(config_of(tmp_path, *columns, with_columns, "phase=first"))


def test_images_that_a_phase_deletes_are_not_encoded_in_another_way(tmp_path: Path) -> None:
    deleted, otherwise = "encode.keep_images=false", "phases.a.encode.latent_clip=9"
    with pytest.raises(ConfigError, match=r"phases\.a: encode: .* phase first .* encode.keep_im"):
        check_run(config_of(tmp_path, deleted, otherwise))
    check_run(config_of(tmp_path, deleted, "phases.a.encode.batch_size=9"))
    check_run(config_of(tmp_path, deleted, otherwise, "phases.a.download.image_format=jpg"))
    check_run(config_of(tmp_path, otherwise, "phases.a.encode.keep_images=false"))
