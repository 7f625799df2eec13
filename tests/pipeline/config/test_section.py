"""Markers of settings that change no output: what carries one, and what the reference says of it."""

from __future__ import annotations

import re
from typing import get_args

import pytest
from pydantic import BaseModel, Field

from pipeline.config.run import RunConfig
from pipeline.config.section import (
    NotInFingerprint,
    Section,
    SpeedOnly,
    SpeedOnlyUpToRounding,
    settings_not_in_fingerprint,
)
from pipeline.stages.dag import STAGES
from tests.support.command import REPOSITORY
from tools.reference_of_settings import all_settings

# Stored, so that an output does not become stale because a marker was lost.
NOT_IN_FINGERPRINT = {
    "download": (
        "source urls images captions workers threads min_success_rate requests_per_host host_requests_per_s "
        "shard_deadline_s"
    ),
    "encode": "device batch_size workers keep_images",
    "train": (
        "device compile deterministic launch sharding accumulate checkpoint_blocks checkpoint_every "
        "validate_every sample_every log_every score"
    ),
    "distill": "require",
    "evaluate": "device batch_size price_per_hour",
}
OTHER_REASONS = {
    *("download.source", "download.urls", "download.images", "download.captions"),
    *("download.min_success_rate", "encode.keep_images"),
    *("train.deterministic", "train.score", "distill.require", "evaluate.price_per_hour"),
}
UP_TO_ROUNDING = {
    *("encode.batch_size", "train.accumulate", "train.checkpoint_blocks", "train.compile"),
    *("train.launch", "train.sharding"),
}
SPEED_ONLY = {
    *("cache", "engine"),
    *(f"{stage}.{name}" for stage, names in NOT_IN_FINGERPRINT.items() for name in names.split()),
} - OTHER_REASONS


def section_of(stage: str) -> type[BaseModel]:
    annotation = RunConfig.model_fields[stage].annotation
    section = next(iter(get_args(annotation)), annotation)  # an optional one, or a section itself
    assert isinstance(section, type)
    assert issubclass(section, BaseModel)
    return section


@pytest.mark.parametrize("stage", STAGES)
def test_the_settings_that_change_no_output_are_marked(stage: str) -> None:
    assert settings_not_in_fingerprint(section_of(stage)) == {*NOT_IN_FINGERPRINT[stage].split()}


def test_no_marker_is_hidden_inside_a_union() -> None:
    """`SpeedOnly[int] | None` would mark nothing; `SpeedOnly[int | None]` does."""
    for stage in STAGES:
        for name, field in section_of(stage).model_fields.items():
            assert "FingerprintExclusion" not in repr(field.annotation), f"{stage}.{name}"


def test_the_help_of_what_changes_speed_only_ends_by_saying_so() -> None:
    sentence = re.compile(r"(?:^|.*[.)] )Changes speed only(, up to rounding)?\.", re.DOTALL)
    endings = {
        name: match[1]
        for name, setting in all_settings().items()
        if (match := sentence.fullmatch(setting.schema.get("description", "")))
    }
    assert set(endings) == SPEED_ONLY
    assert {name for name, rounding in endings.items() if rounding} == UP_TO_ROUNDING


def test_the_reference_says_so_of_each_and_of_nothing_else() -> None:
    page = (REPOSITORY / "docs/reference/settings.md").read_text(encoding="utf-8")
    entries = [line for line in page.splitlines() if "Changes speed only" in line]
    assert len(entries) == len(SPEED_ONLY)
    for name in SPEED_ONLY - {"cache", "engine", "train.launch"}:  # sections, not rows
        (row,) = [line for line in entries if f'<a id="{name}"></a>' in line]
        assert re.search(r"Changes speed only[^.]*\. \|$", row)


def test_the_page_about_freshness_lists_them() -> None:
    page = (REPOSITORY / "docs/explanation/freshness.md").read_text(encoding="utf-8")
    for stage, names in NOT_IN_FINGERPRINT.items():
        (row,) = re.findall(rf"^\| `{stage}` \| (.*) \|$", page, re.MULTILINE)
        assert set(re.findall(r"`(\w+)`", row)) == {*names.split()}


class Marked(Section):
    plain: int = 1
    """Counts."""
    faster: SpeedOnly[int | None] = Field(2, ge=1)
    """Processes."""
    rounded: SpeedOnlyUpToRounding[int] = 3
    apart: NotInFingerprint[str] = "4"
    """Counts by its digest."""


class MarkedLater(Marked):
    later: SpeedOnly[int] = 5


def test_a_marker_changes_what_is_collected_and_said_and_nothing_else() -> None:
    assert settings_not_in_fingerprint(Marked) == {"faster", "rounded", "apart"}
    assert settings_not_in_fingerprint(MarkedLater) == {"faster", "rounded", "apart", "later"}
    properties = MarkedLater.model_json_schema()["properties"]
    assert {name: schema.get("description") for name, schema in properties.items()} == {
        "plain": "Counts.",
        "faster": "Processes. Changes speed only.",
        "rounded": "Changes speed only, up to rounding.",
        "apart": "Counts by its digest.",
        "later": "Changes speed only.",
    }
    assert Marked(faster=None).faster is None
    for wrong in (0, True):
        with pytest.raises(ValueError, match="faster"):
            Marked(faster=wrong)
