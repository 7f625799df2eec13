"""The checks of train.mix before a run: unknown phases, and encodings that cannot be mixed."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config.load import load_config
from pipeline.config.run import RunConfig
from pipeline.config.section import ConfigError
from pipeline.preflight.check import check_run
from pipeline.preflight.mix_checks import mix_problems
from tests.support.small import TINY, small

OTHER_IMAGES = "phases.fine.download.limit=40"
MIX = "phases.fine.train.mix={first: 0.3, fine: 0.7}"


def config_of(tmp_path: Path, *overrides: str) -> RunConfig:
    return load_config(TINY, [*small(tmp_path / "data"), *overrides])


def problems(tmp_path: Path, *overrides: str) -> list[str]:
    return list(mix_problems(config_of(tmp_path, *overrides)))


def test_a_mix_of_this_phase_and_an_earlier_one_is_fine(tmp_path: Path) -> None:
    may_differ = ("phases.fine.encode.flips=true", "phases.fine.encode.text=tokens")
    check_run(config_of(tmp_path, OTHER_IMAGES, MIX, *may_differ))
    assert not problems(tmp_path, OTHER_IMAGES)


def test_a_run_without_phases_and_a_first_phase_have_nothing_to_mix(tmp_path: Path) -> None:
    (alone,) = problems(tmp_path, "train.mix={first: 1}")
    assert alone.startswith("train.mix: mixes the encodings of phases, but this run has none")
    with pytest.raises(ConfigError, match=r"train\.mix: there is no phase before this one to mix"):
        check_run(config_of(tmp_path, OTHER_IMAGES, "train.mix={first: 1}"))


def test_unknown_and_later_phases_are_named_together_with_all_else(tmp_path: Path) -> None:
    mix = "phases.fine.train.mix={base: 1, last: 1, first: 1, fine: 1}"
    with pytest.raises(ConfigError) as raised:
        check_run(
            config_of(
                tmp_path,
                *(OTHER_IMAGES, mix, "phases.last.train.lr=1e-5", "phases.fine.model.width=128"),
                *("phases.fine.encode.latent_clip=8", "phases.fine.encode.posterior=sample"),
                "train.held_out_fraction=0.1",
                "phases.fine.train.held_out_fraction=0.05",
            )
        )
    told = [line.strip() for line in str(raised.value).splitlines()]
    assert (
        "phases.fine: train.mix: base, last: is neither this phase nor an earlier one; those are "
        "first, fine"
    ) in told
    assert [line.partition("; ")[0] for line in told if "train.mix" in line][1:] == [
        "phases.fine: train.mix: encode.latent_clip is 8.0, but 7.0 in first",
        "phases.fine: train.mix: encode.posterior is sample, but mean in first",
        "phases.fine: train.mix: train.held_out_fraction is 0.05, but 0.1 in first, of which pairs "
        "that are held out would be trained on",
    ]
    assert any("model.width: is 128" in line for line in told)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            ("phases.fine.download.image_size=128", "phases.fine.model.latent_size=16"),
            "model.latent_size is 16, but 8 in first",
        ),
        (("phases.fine.encode.text_tokens=8",), "encode.text_tokens is 8, but None in first"),
        (
            ("encode.text=tokens", "model.text=tokens", "phases.fine.encode.token_dtype=float16"),
            "encode.token_dtype is float16, but uint8 in first",
        ),
    ],
)
def test_latents_and_text_of_other_form_are_refused(
    tmp_path: Path, changes: tuple[str, ...], told: str
) -> None:
    (problem,) = problems(tmp_path, OTHER_IMAGES, MIX, *changes)
    assert problem.startswith(f"train.mix: {told}")


def test_phases_with_the_same_encodings_are_one(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, "phases.fine.train.lr=1e-4", MIX)
    assert problem.startswith("train.mix: first and fine have the same encodings; name one of them")


def test_caption_weights_are_of_the_columns_of_any_phase(tmp_path: Path) -> None:
    with_column = "download.more_caption_columns=[short_1]"
    without = "phases.fine.download.more_caption_columns=[]"
    weights = "train.caption_weights={short_1: 2}"
    check_run(config_of(tmp_path, with_column, without, weights, MIX))
    with pytest.raises(ConfigError, match=r"phases\.fine: .* no such caption column: short_1"):
        check_run(config_of(tmp_path, with_column, without, weights))
    nothing = "train.caption_weights={caption: 0}"
    with pytest.raises(ConfigError, match="all captions of caption have weight 0"):
        check_run(config_of(tmp_path, with_column, without, nothing, MIX))
