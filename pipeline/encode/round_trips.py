"""Round trips of a few images through the VAE and the stored latents: what a model that is trained
on these latents can at best draw.

n round trips of a shard   h, w pixels   c channels   z latent size
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data_catalog.images import read_image_pairs
from data_catalog.latent_figures import RoundTrip
from data_catalog.storage.files import replacing
from data_catalog.storage.receipts import Shard
from pipeline.encode.shard_encodings import ShardEncodings
from tld_model.encoders.vae import ImageCodec
from tld_model.quantize import Quantization, dequantize

ROUND_TRIPS = 8  # of an output
_LARGEST_SHOWN = 512  # pixels: of larger images the centre is shown
_LARGEST_PSNR = 100.0  # of equal images


def round_trips_file(shard: str) -> str:
    """The name of the image with a shard's round trips."""
    return f"{shard}.round_trips.png"


def round_trips_by_shard(shards: Sequence[Shard]) -> dict[str, int]:
    """Shard -> number of its round trips, which are spread evenly over the rows of all shards."""
    ends = np.cumsum([shard.rows for shard in shards])
    total = int(ends[-1]) if shards else 0
    count = min(ROUND_TRIPS, total)
    rows = [(2 * i + 1) * total // (2 * count) for i in range(count)]
    numbers = np.searchsorted(ends, rows, side="right")
    return dict(Counter(shards[number].name for number in numbers))


def write_round_trips(
    path: Path, tar: Path, encoded: ShardEncodings, count: int, codec: ImageCodec, by: Quantization
) -> tuple[RoundTrip, ...]:
    """Decode the stored latents of evenly spread rows of a shard. Writes a PNG of n rows, each an
    original beside its round trip. Raises ManifestError if the tar is damaged."""
    total = len(encoded.captions)
    rows = [(2 * i + 1) * total // (2 * count) for i in range(count)]
    keys = [encoded.rows["key"][row] for row in rows]
    originals = {pair.key: pair.image for pair in read_image_pairs(tar, keys)}
    round_trips, drawn = [], []
    for row, key in zip(rows, keys, strict=True):
        # One at a time, so that it takes less memory than encoding a batch.
        decoded = codec.decode(dequantize(encoded.stored[row : row + 1], by))
        image = decoded[0].permute(1, 2, 0).cpu().numpy()
        round_trips.append(
            RoundTrip(
                key=key, caption=encoded.rows["caption"][row], psnr=psnr(originals[key], image)
            )
        )
        drawn.append(np.concatenate([_centre(originals[key]), _centre(image)], axis=1))
    with replacing(path) as unfinished:
        Image.fromarray(np.concatenate(drawn)).save(unfinished, format="PNG")
    return tuple(round_trips)


def psnr(original: NDArray[np.uint8], image: NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio of an image [h, w, 3] in dB: 10 log10(255² / mean squared error),
    at most 100."""
    error = (original.astype(np.float64) - image) / 255
    return min(_LARGEST_PSNR, -10 * math.log10(max(np.square(error).mean(), 1e-300)))


def _centre(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The central part of an image [h, w, 3] that is shown."""
    top, left = (max(0, side - _LARGEST_SHOWN) // 2 for side in image.shape[:2])
    return image[top : top + _LARGEST_SHOWN, left : left + _LARGEST_SHOWN]
