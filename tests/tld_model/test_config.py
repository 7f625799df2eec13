"""Settings of sampling: what a file or a keyboard may say, and the form that digests cover."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from tld_model.config import MOST_GUIDANCE, MOST_STEPS, SamplingSettings

READ = TypeAdapter(SamplingSettings)
NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"steps": 1, "guidance": 1},
        {"steps": MOST_STEPS, "guidance": MOST_GUIDANCE},
        {"solver": "heun", "guidance_interval": [0.2, 0.8]},
    ],
)
def test_settings_within_the_bounds_are_read(settings: dict[str, Any]) -> None:
    read = READ.validate_python(settings)
    assert read.steps == settings.get("steps", 20)
    assert read.guidance_interval == tuple(settings.get("guidance_interval", (0, 1)))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("steps", value) for value in (0, -1, MOST_STEPS + 1, 1.5, "many", None)),
        *(("guidance", value) for value in (0.9, MOST_GUIDANCE + 1, NAN, INF, "high", None)),
        *(("solver", value) for value in ("none", "", 1, None)),
        *(
            ("guidance_interval", value)
            for value in (
                *([0.8, 0.2], [0.5, 0.5], [-0.1, 1], [0, 1.1], [NAN, 1], [0, NAN], [0, INF]),
                *([0.5], [0, 0.5, 1], [], 0.5, None),
            )
        ),
    ],
)
def test_settings_outside_of_the_bounds_are_refused(name: str, value: object) -> None:
    with pytest.raises(ValidationError) as refused:
        READ.validate_python({name: value})
    assert {problem["loc"][0] for problem in refused.value.errors()} == {name}


def test_points_of_sweeps_keep_their_names() -> None:
    """The digest of a stored point covers the text of its settings."""
    assert repr(SamplingSettings(5, 2)) == (
        "SamplingSettings(steps=5, guidance=2, solver='dpmpp_2m', guidance_interval=(0.0, 1.0))"
    )
