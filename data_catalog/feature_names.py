"""Names of image features, `NAME` or `NAME:WEIGHTS`: those of evaluate.features and of scores."""

from __future__ import annotations

from dataclasses import dataclass

CLIP, EFFICIENTNET, INCEPTION, DINOV2 = "clip", "efficientnet-lite0", "inception", "dinov2"
FEATURE_NAMES = (CLIP, EFFICIENTNET, INCEPTION, DINOV2)
_HAS_WEIGHTS_OF_ITS_OWN = {CLIP: "it is encode.clip", EFFICIENTNET: "its package carries them"}


@dataclass(frozen=True, slots=True)
class FeatureChoice:
    """Image features, and the weights that a setting names for them."""

    name: str  # one of FEATURE_NAMES
    weights: str | None = None  # a path, or of dinov2 a name on the Hugging Face hub


def parse_features(text: str) -> FeatureChoice:
    """`inception:weights.pth` -> FeatureChoice("inception", "weights.pth"). Raises ValueError if
    there are no such features, or if they take no weights or need some."""
    name, colon, weights = text.partition(":")
    if name not in FEATURE_NAMES:
        raise ValueError(f"no such features: {text!r}; known: {', '.join(FEATURE_NAMES)}")
    if colon and name in _HAS_WEIGHTS_OF_ITS_OWN:
        raise ValueError(f"{text!r}: {name} takes no weights, {_HAS_WEIGHTS_OF_ITS_OWN[name]}")
    if not weights and (colon or name == DINOV2):
        hub = " or dinov2:facebook/dinov2-small" if name == DINOV2 else ""
        raise ValueError(f"{text!r} names no weights; write {name}:PATH{hub}")
    return FeatureChoice(name, weights or None)
