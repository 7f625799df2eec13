"""The page of round trips: round_trips.html, images beside what the VAE makes of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import numpy as np

from data_catalog.figures import EncodedShardFigures
from data_catalog.image_formats import open_image
from data_catalog.latent_figures import RoundTrip
from data_catalog.storage.cached_files import ensure_local
from data_catalog.storage.files import write_atomically
from data_catalog.storage.receipts import Shard
from pipeline.encode.round_trips import ROUND_TRIPS, round_trips_file
from pipeline.reporting.render import image_uri, render_page
from pipeline.stages.contract import Tracker

PAGE_FILE = "round_trips.html"
POOR_PSNR = 22.0  # dB: below it no training gives good images


@dataclass(frozen=True, slots=True)
class RoundTripTile:
    """An image and its round trip on the page."""

    original: str  # data URI
    decoded: str  # data URI
    round_trip: RoundTrip


def publish_round_trips(
    out: Path, vae: str, shards: Sequence[Shard], track: Tracker
) -> list[RoundTrip]:
    """Write the page and store it with the run, and warn if the VAE spoils the images. Shards of
    versions before 0.2 have no round trips; without any, there is no page."""
    tiles = [tile for shard in shards for tile in _tiles(out, shard)]
    if not tiles:
        return []
    count = min(ROUND_TRIPS, len(tiles))  # shards of other outputs may bring more
    tiles = [tiles[(2 * i + 1) * len(tiles) // (2 * count)] for i in range(count)]
    round_trips = [tile.round_trip for tile in tiles]
    average, least = summary(round_trips)
    page = render_page(
        "round_trips.html.j2", tiles=tiles, vae=vae, mean=average, least=least, poor=POOR_PSNR
    )
    write_atomically(out / PAGE_FILE, page)
    track.artifact(out / PAGE_FILE)
    if average < POOR_PSNR:
        track.warning(
            f"the VAE {vae!r} spoils these images: after its round trip their PSNR is "
            f"{average:.1f} dB on average, below {POOR_PSNR:g} dB, and no training can mend that. "
            f"Look at {out / PAGE_FILE}, then choose another encode.vae, raise "
            "download.image_size, or train a VAE for your images, in a checkout of tld: "
            "`python -m tools.train_autoencoder CONFIG --out FOLDER`"
        )
    return round_trips


def summary(round_trips: Sequence[RoundTrip]) -> tuple[float, float]:
    """The mean and the least PSNR in dB."""
    ratios = [round_trip.psnr for round_trip in round_trips]
    return mean(ratios), min(ratios)


def _tiles(out: Path, shard: Shard) -> Iterator[RoundTripTile]:
    round_trips = EncodedShardFigures.of(shard).round_trips or ()
    if not round_trips:
        return
    with open_image(ensure_local(out / round_trips_file(shard.name)), ("PNG",)) as image:
        pixels = np.asarray(image)  # [n h, 2 w, 3]
    for row, round_trip in zip(np.split(pixels, len(round_trips)), round_trips, strict=True):
        original, decoded = np.split(row, 2, axis=1)
        yield RoundTripTile(image_uri(original), image_uri(decoded), round_trip)
