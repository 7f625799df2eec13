"""Requests: what they follow from, and the bounds of what a stranger may ask for."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.generate.field_problems import problems_of
from pipeline.generate.request import (
    EditRequest,
    GenerationRequest,
    InputFile,
    InterpolateRequest,
    PanoramaRequest,
    SampleRequest,
)
from tld_model.config import SamplingSettings

SHARED = {
    "prompts": ["a star"],
    "seed": 7,
    "steps": 2,
    "guidance": 3.0,
    "solver": "heun",
    "guidance_interval": [0, 1],
}
FILE = {"name": "in.png", "sha256": "0" * 64}
EXAMPLES: dict[type[GenerationRequest], dict[str, Any]] = {
    SampleRequest: {"count": 2},
    EditRequest: {"image": FILE},
    InterpolateRequest: {"frames": 4},
    PanoramaRequest: {"windows": 3},
}
MISTAKES: list[tuple[type[GenerationRequest], dict[str, Any], str]] = [
    (SampleRequest, {"count": 4097}, "count"),
    (SampleRequest, {"prompts": ["a"] * 900, "count": 900}, ""),
    (SampleRequest, {"size": [10**6, 64]}, "size.0"),
    (SampleRequest, {"layout": "strip"}, "layout"),
    (EditRequest, {"prompts": ["a", "b"]}, "prompts"),
    (EditRequest, {"image": None}, "image"),
    (EditRequest, {"image": {"name": "x" * 301, "sha256": ""}}, "image.name"),
    (EditRequest, {"image": {**FILE, "path": "/etc/passwd"}}, "image.path"),
    (EditRequest, {"strength": 0}, "strength"),
    (EditRequest, {"strength": float("nan")}, "strength"),
    (EditRequest, {"outpaint": {"left": 4097}}, "outpaint.left"),
    (EditRequest, {"outpaint": {"left": -1}}, "outpaint.left"),
    (EditRequest, {"outpaint": {"up": 3}}, "outpaint.up"),
    (EditRequest, {"outpaint": {}}, "outpaint"),
    (EditRequest, {"outpaint": {"left": 1}, "mask": FILE}, "outpaint"),
    (EditRequest, {"outpaint": {"left": 1}, "strength": 0.5}, "outpaint"),
    (EditRequest, {"overlap": 8}, "overlap"),
    (EditRequest, {"outpaint": {"left": 1}, "overlap": 5000}, "overlap"),
    (InterpolateRequest, {"prompts": ["a", "b", "c"]}, "prompts"),
    (InterpolateRequest, {"frames": 1}, "frames"),
    (InterpolateRequest, {"frames": 4097}, "frames"),
    (InterpolateRequest, {"frame": 4}, "frame"),
    (InterpolateRequest, {"to_seed": 2**63}, "to_seed"),
    (PanoramaRequest, {"windows": 4097}, "windows"),
    (PanoramaRequest, {"prompts": ["a", "b", "c", "d"]}, "windows"),
    (PanoramaRequest, {"overlap": 0}, "overlap"),
]
SHARED_MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"prompts": []}, "prompts"),
    ({"prompts": [" "]}, "prompts.0"),
    ({"prompts": ["x" * 3000]}, "prompts.0"),
    ({"prompts": ["\ud800"]}, "prompts.0"),
    ({"prompts": {"a": 1}}, "prompts"),
    ({"negative": "x" * 3000}, "negative"),
    ({"seed": -1}, "seed"),
    ({"seed": 2**63}, "seed"),
    ({"steps": 10**9}, "steps"),
    ({"guidance": float("nan")}, "guidance"),
    ({"guidance": float("inf")}, "guidance"),
    ({"solver": "magic"}, "solver"),
    ({"guidance_interval": [0, float("nan")]}, "guidance_interval"),
    ({"model": "/etc/passwd"}, "model"),
]


def request(kind: type[GenerationRequest], **changes: Any) -> GenerationRequest:
    return kind.model_validate({**SHARED, **EXAMPLES[kind], **changes})


@pytest.mark.parametrize("kind", EXAMPLES)
def test_all_kinds_share_prompts_seed_and_sampling(kind: type[GenerationRequest]) -> None:
    assert request(kind).sampling == SamplingSettings(2, 3.0, "heun", (0.0, 1.0))
    assert kind.model_validate(request(kind).model_dump(mode="json")) == request(kind)


@pytest.mark.parametrize(
    ("kind", "changes", "place"),
    [*MISTAKES, *((kind, *mistake) for kind in EXAMPLES for mistake in SHARED_MISTAKES)],
)
def test_every_field_is_bounded(
    kind: type[GenerationRequest], changes: dict[str, Any], place: str
) -> None:
    with pytest.raises(ValidationError) as mistake:
        request(kind, **changes)
    assert [at for at, _ in problems_of(mistake.value)] == [place]


def test_images_frames_and_windows_have_their_own_prompts_and_seeds() -> None:
    sample = SampleRequest.model_validate({**SHARED, "prompts": ["a", "b"], "count": 2})
    assert (sample.captions, sample.seeds) == (["a", "a", "b", "b"], [7, 8, 7, 8])
    frames = InterpolateRequest.model_validate({**SHARED, "frames": 4})
    assert (frames.ends, frames.seeds) == (("a star", "a star"), (7, 7))
    frames = InterpolateRequest.model_validate(
        {**SHARED, "prompts": ["a", "b"], "to_seed": 9, "frames": 4}
    )
    assert (frames.ends, frames.seeds) == (("a", "b"), (7, 9))
    wide = PanoramaRequest.model_validate({**SHARED, "prompts": ["a", "b"], "windows": 4})
    assert wide.captions == ["a", "b", "b", "b"]


def test_a_file_has_a_printable_name_and_the_digest_of_its_content() -> None:
    assert InputFile.of("ü.png", b"").name == "ü.png"
    assert InputFile.of("\udcff.png", b"").name == "?.png"
    assert InputFile.of("a", b"1") != InputFile.of("a", b"2")


def test_the_last_seed_is_within_bounds_too() -> None:
    """Or else an image could be written whose metadata cannot be read."""
    last = 2**63 - 1
    for kind, number in ((SampleRequest, "count"), (PanoramaRequest, "windows")):
        assert request(kind, seed=last - 2, **{number: 3}).seed == last - 2
        with pytest.raises(ValidationError, match=f"the last of 4 seeds from {last - 2} would be"):
            request(kind, seed=last - 2, **{number: 4})
