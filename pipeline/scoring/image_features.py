"""Image features: the networks whose embeddings of two sets of images the distances compare.

n images   h, w pixels   d feature width
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from data_catalog.feature_names import CLIP, DINOV2, EFFICIENTNET, INCEPTION, parse_features
from data_catalog.images import Images
from pipeline.config.feature_weights import weights_identity
from pipeline.scoring.feature_networks import (
    PixelEncoder,
    load_dinov2,
    load_efficientnet,
    load_inception,
)
from tld_model.encoders.clip import Clip
from tld_model.encoders.pretrained import EncoderError

_LOADERS = {EFFICIENTNET: load_efficientnet, INCEPTION: load_inception, DINOV2: load_dinov2}


@dataclass(frozen=True, slots=True)
class ImageFeatures:
    """One network that embeds images."""

    name: str  # as in FEATURE_NAMES, without weights
    digest: str  # of the weights: SHA-256, or a name if they are those of a hub
    embed: Callable[[Images, int], Tensor]
    """uint8 [n, h, w, 3], images at a time -> float32 [n, d], on the CPU"""


def load_features(
    names: Sequence[str], clip: ImageFeatures | None, device: str
) -> tuple[ImageFeatures, ...]:
    """The features that evaluate.features names, in its order; without CLIP those of the others.

    Raises:
        EncoderError: weights are missing, damaged or of another network.
    """
    features = []
    for choice in map(parse_features, names):
        if choice.name != CLIP:
            try:
                encode = _LOADERS[choice.name](choice.weights, device)
            except EncoderError as error:
                raise EncoderError(f"evaluate.features: {error}") from error
            digest = weights_identity(choice)
            features.append(ImageFeatures(choice.name, digest, _in_batches(encode)))
        elif clip is not None:
            features.append(clip)
    return tuple(features)


def clip_features(clip: Clip, digest: str) -> ImageFeatures:
    """The image embeddings of the CLIP model of a run."""
    return ImageFeatures(CLIP, digest, _in_batches(clip.encode_images))


def _in_batches(encode: PixelEncoder) -> Callable[[Images, int], Tensor]:
    def embed(images: Images, batch_size: int) -> Tensor:
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
        return torch.cat([encode(part).cpu() for part in pixels.split(batch_size)])

    return embed
