"""Names of image features: with and without weights, and what is refused."""

from __future__ import annotations

import pytest

from data_catalog.feature_names import FeatureChoice, parse_features


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("clip", FeatureChoice("clip")),
        ("efficientnet-lite0", FeatureChoice("efficientnet-lite0")),
        ("inception", FeatureChoice("inception")),
        ("inception:C:/weights.pth", FeatureChoice("inception", "C:/weights.pth")),
        ("dinov2:facebook/dinov2-small", FeatureChoice("dinov2", "facebook/dinov2-small")),
    ],
)
def test_a_name_may_carry_weights(text: str, choice: FeatureChoice) -> None:
    assert parse_features(text) == choice


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("vgg", "no such features: 'vgg'; known: clip, efficientnet-lite0, inception, dinov2"),
        ("", "no such features: ''"),
        ("dinov2", "write dinov2:PATH or dinov2:facebook/dinov2-small"),
        ("inception:", "write inception:PATH"),
        ("clip:openai/clip", "clip takes no weights, it is encode.clip"),
        ("efficientnet-lite0:x", "takes no weights, its package carries them"),
    ],
)
def test_a_mistake_says_what_to_write(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_features(text)
