"""PNG files that version 0.1.0 wrote are read as requests of today."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.generate.earlier_metadata import in_present_form
from pipeline.generate.image_metadata import ImageMetadata
from pipeline.generate.png_metadata import read_metadata
from pipeline.generate.request import InputFile
from tld_model.config import SamplingSettings

FORMAT_1 = Path(__file__).parent / "fixtures" / "format_1"
OWN = SamplingSettings(9, 9.0, "euler", (0.25, 0.75))  # of the run that reads
STAR, RING = "a small red star", "a blue ring"
SAMPLING = {"steps": 2, "guidance": 3.0, "solver": "dpmpp_2m", "guidance_interval": (0.0, 1.0)}
UNKNOWN = {"steps": 2, "guidance": 3.0, "solver": "euler", "guidance_interval": (0.25, 0.75)}
IN, MASK = (InputFile.of(name, (FORMAT_1 / name).read_bytes()) for name in ("in.png", "mask.png"))
EDIT: dict[str, Any] = {"command": "edit", "prompts": (STAR,), "image": IN.model_dump()}

REQUESTS: dict[str, dict[str, Any]] = {
    "sample": {
        **SAMPLING,
        "command": "sample",
        "prompts": (STAR,),
        "negative": "a square",
        "seed": 7,
        "count": 1,
        "size": (64, 64),
        "layout": "picture",
    },
    "grid": {
        **SAMPLING,
        "command": "sample",
        "prompts": (STAR, "ein grüner Kreis ✶"),
        "seed": 5,
        "count": 1,
        "solver": "heun",
        "size": (64, 64),
        "layout": "grid",
    },
    "edit": {**SAMPLING, **EDIT, "seed": 3, "strength": 0.7},
    "inpaint": {**SAMPLING, **EDIT, "seed": 0, "strength": 1.0, "mask": MASK.model_dump()},
    "outpaint": {
        **SAMPLING,
        **EDIT,
        "seed": 0,
        "outpaint": {"left": 0, "right": 24, "top": 8, "bottom": 0},
        "overlap": 24,
    },
    "interpolation": {
        **SAMPLING,
        "command": "interpolate",
        "prompts": (STAR, RING),
        "seed": 0,
        "to_seed": 3,
        "frames": 3,
    },
    "panorama": {
        **SAMPLING,
        "command": "panorama",
        "prompts": (STAR, RING),
        "seed": 0,
        "windows": 3,
        "overlap": 24,
    },
    "continued": {
        **SAMPLING,
        "command": "panorama",
        "prompts": (STAR,),
        "seed": 0,
        "windows": 1,
        "overlap": 24,
        "image": IN.model_dump(),
    },
    "served": {
        **UNKNOWN,
        "command": "sample",
        "prompts": (STAR,),
        "seed": 7,
        "count": 1,
        "layout": "picture",
    },
    "served_frame": {
        **UNKNOWN,
        "command": "interpolate",
        "prompts": (STAR, RING),
        "seed": 0,
        "to_seed": 3,
        "frames": 8,
    },
}


@pytest.mark.parametrize("name", REQUESTS)
def test_a_stored_file_is_read_as_what_it_was_asked_for(name: str) -> None:
    metadata = read_metadata(FORMAT_1 / f"{name}.png", OWN)
    recorded = metadata.request.model_dump()
    plain = {key: value for key, value in recorded.items() if value is not None and value != ""}
    expected = REQUESTS[name]
    if border := plain.get("outpaint"):
        plain["outpaint"] = {side: border[side] for side in expected["outpaint"]}
    assert plain == expected


def test_a_stored_file_says_of_its_origin_what_its_version_knew() -> None:
    origins = {name: read_metadata(FORMAT_1 / f"{name}.png", OWN).origin for name in REQUESTS}
    model = origins["sample"].model
    assert model
    assert model.clip
    assert (model.clip.name, origins["sample"].device, origins["sample"].tld) == (
        "shapes-clip",
        "cpu",
        "0.1.0",
    )
    for name in ("edit", "interpolation", "panorama"):
        only_digest = origins[name].model
        assert only_digest
        assert (only_digest.digest, only_digest.vae) == (model.digest, None)
    assert origins["served"].model is None


@pytest.mark.parametrize(
    "stored",
    [
        {"drawing": 7},
        {"drawing": {}, "layout": {}, "model": []},
        {"command": "edit"},
        {"command": "edit", "prompt": {}, "outpaint": 7},
        {"command": "interpolate", "seeds": 7},
        {"command": "interpolate", "seeds": [1, 2, 3]},
        {"command": "panorama", "prompts": {}},
        {"command": "panorama", "prompts": []},
        {"prompt": [], "seed": [], "steps": [], "guidance": []},
        {"prompt": 1, "to_prompt": 2, "seed": 3, "steps": 4, "guidance": 5, "frame": 6},
    ],
)
def test_wrong_types_in_an_old_form_are_for_the_schema_to_refuse(stored: dict[str, Any]) -> None:
    present = in_present_form(stored, OWN)
    assert present is not None
    with pytest.raises(ValueError, match="validation error"):
        ImageMetadata.model_validate(present)
