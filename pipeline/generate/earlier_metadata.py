"""Metadata as version 0.1.0 wrote it into PNG files, in the present form.

Its four forms: that of `tld sample`, those of `tld edit`, `tld interpolate` and `tld panorama` with
the digest of the denoiser alone, and that of the service, which knew only the fields of a request.
Nothing is validated here: what has another type than expected passes, for the schema to refuse.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from tld_model.config import SamplingSettings

_FRAMES = 8  # the service's default; it did not record the number of frames


def in_present_form(stored: Mapping[str, Any], own: SamplingSettings) -> dict[str, Any] | None:
    """The metadata in the form of ImageMetadata, or None if it has no form that tld ever wrote."""
    if "request" in stored:
        return dict(stored)
    if "drawing" in stored:
        return _of_sample(dict(stored))
    if stored.get("command") in ("edit", "interpolate", "panorama"):
        return _of_command(dict(stored))
    if {"prompt", "seed", "steps", "guidance"} <= stored.keys():
        return _of_service(dict(stored), own)
    return None


def _of_sample(stored: dict[str, Any]) -> dict[str, Any]:
    request, origin = stored.pop("drawing"), ("model", "device", "tld")
    if isinstance(request, dict):
        request = {**request, "command": "sample"}
        request |= {"layout": stored.pop("layout")} if "layout" in stored else {}
    return {
        "request": request,
        "origin": {name: stored.pop(name) for name in origin if name in stored},
        **stored,
    }


def _of_command(fields: dict[str, Any]) -> dict[str, Any]:
    match fields["command"]:
        case "edit":
            _rename(fields, "picture", "image")
            fields["prompts"] = [fields.pop("prompt", "")]
            fields["outpaint"] = fields.get("outpaint") or None
        case "interpolate":
            match fields.get("seeds"):
                case [first, last]:
                    fields |= {"seed": first, "to_seed": None if last == first else last}
                    del fields["seeds"]
        case "panorama":
            _rename(fields, "picture", "image")
            match fields.get("prompts"):
                case [*captions] if captions:  # one for each window
                    fields |= {"prompts": _without_repeats(captions), "windows": len(captions)}
    model = {"source": "", "digest": fields.pop("model", ""), "vae": None, "clip": None}
    return {"request": fields, "origin": {"model": model, "device": None, "tld": ""}}


def _of_service(fields: dict[str, Any], own: SamplingSettings) -> dict[str, Any]:
    prompt, to_prompt = fields.pop("prompt"), fields.pop("to_prompt", None)
    if to_prompt is None:
        fields |= {"command": "sample", "prompts": [prompt], "count": 1, "layout": "picture"}
    else:
        fields.pop("frame", None)
        fields |= {"command": "interpolate", "prompts": [prompt, to_prompt], "frames": _FRAMES}
    origin = {"model": None, "device": None, "tld": ""}
    return {"request": {**asdict(own), **fields}, "origin": origin}


def _rename(fields: dict[str, Any], name: str, present: str) -> None:
    if name in fields:
        fields[present] = fields.pop(name)


def _without_repeats(captions: list[Any]) -> list[Any]:
    """The captions without repeats of the last one at the end."""
    end = len(captions)
    while end > 1 and captions[end - 2] == captions[-1]:
        end -= 1
    return captions[:end]
