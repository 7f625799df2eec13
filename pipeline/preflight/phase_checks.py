"""Preflight checks of a phase: whether its model can begin with the weights of the phase before."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pipeline.config.encode import EncodeConfig
from pipeline.config.run import RunConfig
from pipeline.config.section import settings_not_in_fingerprint
from pipeline.preflight.continuation_checks import differing_text_settings


def phase_problems(config: RunConfig) -> Iterator[str]:
    """Compare the model of a phase, and the encoders of its input, with those of the phase
    before."""
    if (before := config.before) is None:
        return
    from tld_model.weight_transfer import incompatible_settings

    for name in incompatible_settings(before.model, config.model):
        yield _differs(f"model.{name}", getattr(config.model, name), getattr(before.model, name))
    ours, former = config.encode, before.encode
    if ours.vae != former.vae:
        yield _differs("encode.vae", ours.vae, former.vae)
    if ours.text_model != former.text_model:
        by = "text_encoder" if ours.text_encoder else "clip"
        yield _differs(f"encode.{by}", ours.text_model, former.text_model)
    for name, have, theirs in differing_text_settings(ours.text_settings, former.text_settings):
        yield _differs(f"encode.text_{name}", have, theirs)
    yield from _deleted_images(config)


def _deleted_images(config: RunConfig) -> Iterator[str]:
    """Images that an earlier phase deletes when it has encoded them, and this one encodes anew."""
    for earlier in config.chain[:-1]:
        same_images = earlier.download == config.download
        if same_images and not earlier.encode.keep_images and _made(earlier) != _made(config):
            setting = earlier.setting("encode.keep_images")
            yield (
                f"encode: encodes the images of the phase {earlier.phase} in another way, but that "
                f"deletes them when it has encoded them; set {setting}=true"
            )


def _made(config: RunConfig) -> dict[str, Any]:
    return config.encode.model_dump(exclude={*settings_not_in_fingerprint(EncodeConfig)})


def _differs(setting: str, have: object, theirs: object) -> str:
    return (
        f"{setting}: is {have}, but {theirs} in the phase before, with whose weights this one "
        "begins; leave it out"
    )
