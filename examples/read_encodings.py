"""Read the encodings of a run with pandas and numpy alone, and say what is in them.

In the checkout of a finished `make demo`:

    python -m examples.read_encodings data/02_encodings/*/

The format is described in docs/reference/encoded-shards.md. n pairs of a shard, c latent channels,
z latent size, d width of a text embedding.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray


@dataclass(frozen=True)
class EncodedShard:
    """One shard; row i of all three is the same pair."""

    rows: pd.DataFrame  # key, url, caption, clip_score, …
    latents: NDArray[np.float32]  # scaled latents [n, c, z, z], spread about 1
    text: NDArray[np.float32]  # CLIP text embeddings of the main captions [n, d]


def read_shards(folder: Path) -> Iterator[EncodedShard]:
    """All shards of a finished encode output, in order."""
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    for shard in manifest["shards"]:
        rows = pd.read_parquet(folder / f"{shard['name']}.parquet")
        with np.load(folder / f"{shard['name']}.npz") as arrays:
            latents = _scaled(arrays["latents"], manifest["figures"]["quantization"])
            text = arrays["text"].astype(np.float32)
            if "text_start" in arrays:  # of several captions the main one comes first
                text = text[arrays["text_start"][:-1]]
        yield EncodedShard(rows, latents, text)


def _scaled(stored: NDArray[Any], quantization: dict[str, Any]) -> NDArray[np.float32]:
    """Latents as they are stored -> scaled latents."""
    if quantization["dtype"] == "float16":
        return stored.astype(np.float32)
    scale = np.reshape(
        np.array(quantization["scale"], np.float32), (-1, 1, 1)
    )  # one, or one for each channel
    return (stored.astype(np.float32) - np.float32(quantization["zero_point"])) * scale


def main(words: Sequence[str] | None = None) -> None:
    """Print how many pairs there are, how far each channel spreads, and which captions fit
    worst."""
    parser = argparse.ArgumentParser(description="Say what is in the encodings of a run.")
    parser.add_argument(
        "folder", type=Path, help="the folder of an encode output, with a manifest.json"
    )
    shards = list(read_shards(parser.parse_args(words).folder))

    rows = pd.concat([shard.rows for shard in shards], ignore_index=True)
    latents = np.concatenate([shard.latents for shard in shards])
    print(
        f"{len(rows)} pairs, latents {list(latents.shape[1:])}, text {shards[0].text.shape[1]} wide"
    )
    for channel, values in enumerate(latents.swapaxes(0, 1)):
        print(f"channel {channel}: spread {values.std():.2f}, largest {abs(values).max():.2f}")
    print("\ncaptions that fit their images least:")
    print(rows.nsmallest(5, "clip_score")[["clip_score", "caption"]].to_string(index=False))


if __name__ == "__main__":
    main()
