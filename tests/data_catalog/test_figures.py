"""The schema of figures is that of what is on disk, and reads what other versions wrote."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from data_catalog.figures import (
    EncodedShardFigures,
    EncodingsFigures,
    ImagesFigures,
    ImageShardFigures,
    ModelFigures,
    ReportFigures,
)
from data_catalog.latent_figures import LatentSums
from data_catalog.storage.manifest import (
    Figures,
    Manifest,
    ManifestError,
    StoredValues,
    read_manifest_alone,
    write_manifest,
)

FORMAT_1 = Path(__file__).parent / "fixtures/format_1"
OUTPUTS: dict[str, type[Figures]] = {
    "images": ImagesFigures,
    "encodings": EncodingsFigures,
    "encodings_tokens": EncodingsFigures,
    "model": ModelFigures,
    "report": ReportFigures,
}
SHARDS: dict[str, type[Figures]] = {
    "images": ImageShardFigures,
    "encodings": EncodedShardFigures,
    "encodings_tokens": EncodedShardFigures,
}


def stored(name: str) -> Manifest:
    manifest = read_manifest_alone(FORMAT_1 / name)
    assert manifest
    return manifest


def with_figures(manifest: Manifest, figures: dict[str, Any]) -> Manifest:
    return manifest.model_copy(update={"figures": figures})


def in_json(values: StoredValues) -> str:
    """With the order of its names."""
    return json.dumps(values.model_dump(mode="json"))


@pytest.mark.parametrize("name", OUTPUTS)
def test_figures_are_written_as_they_are_read(name: str) -> None:
    manifest = stored(name)
    assert in_json(OUTPUTS[name].of(manifest)) == json.dumps(manifest.figures)


@pytest.mark.parametrize("name", SHARDS)
def test_figures_of_shards_are_written_as_they_are_read(name: str) -> None:
    for shard in stored(name).shards:
        assert in_json(SHARDS[name].of(shard)) == json.dumps(shard.figures)


def test_of_a_shard_without_pairs_there_are_no_statistics() -> None:
    (shard,) = stored("encodings").shards
    whole = EncodedShardFigures.of(shard)
    assert whole.statistics
    empty = whole.model_copy(update={"statistics": None, "sums": LatentSums(rows=0)})
    in_receipt = empty.model_dump(mode="json")
    assert next(iter(in_receipt)) == "sums"
    assert in_receipt["sums"] == {"rows": 0}
    assert EncodedShardFigures.of(shard.model_copy(update={"figures": in_receipt})) == empty


@pytest.mark.parametrize("name", OUTPUTS)
def test_names_of_newer_versions_are_ignored(name: str) -> None:
    manifest = stored(name)
    newer = with_figures(manifest, manifest.figures | {"surprise": {"of": "later"}})
    assert OUTPUTS[name].of(newer) == OUTPUTS[name].of(manifest)


def test_what_older_manifests_lack_means_as_before() -> None:
    figures = dict(stored("encodings").figures)
    figures["quantization"] = {**figures["quantization"]}
    del figures["quantization"]["dtype"]
    read = EncodingsFigures.of(with_figures(stored("encodings"), figures))
    assert read.quantization.dtype == "uint8"
    assert read.caption_columns is None
    assert read.captions is read.token_dim is read.longest_caption is None
    assert ReportFigures.of(with_figures(stored("report"), {"scores": {}})).intervals == {}


def test_a_score_that_is_no_number_is_null_in_json(tmp_path: Path) -> None:
    figures = ReportFigures(scores={"cmmd": math.nan}, intervals={"cmmd": (math.nan, 1.0)})
    report = with_figures(stored("report"), figures.model_dump(mode="json"))
    write_manifest(report.model_copy(update={"folder": tmp_path}))
    assert '"cmmd": null' in (tmp_path / "manifest.json").read_text()
    read = read_manifest_alone(tmp_path)
    assert read
    assert math.isnan(ReportFigures.of(read).scores["cmmd"])
    assert math.isnan(ReportFigures.of(read).intervals["cmmd"][0])


@pytest.mark.parametrize("name", OUTPUTS)
def test_figures_that_do_not_fit_name_the_file_the_value_and_the_command(name: str) -> None:
    manifest = stored(name)
    first = next(iter(manifest.figures))
    for figures in ({}, manifest.figures | {first: "three"}):
        with pytest.raises(ManifestError) as refused:
            OUTPUTS[name].of(with_figures(manifest, figures))
        message = str(refused.value)
        assert message.startswith(f"{FORMAT_1 / name}/manifest.json is damaged (figures.{first}")
        assert f"`tld {manifest.stage} … --force`" in message
        assert "\n" not in message


def test_figures_of_a_shard_that_do_not_fit_name_the_shard() -> None:
    (shard,) = stored("images").shards
    damaged = shard.model_copy(update={"figures": {"failed": {"timeout": "often"}}})
    with pytest.raises(ManifestError, match=r"shard 00000 is damaged \(figures\.failed\.timeout: "):
        ImageShardFigures.of(damaged)


def test_what_the_vae_leaves_of_images_is_a_line_where_it_was_measured() -> None:
    manifest = stored("encodings")
    assert EncodingsFigures.of(manifest).round_trips == ""
    measured = manifest.figures | {"round_trip_psnr": 31.24, "round_trip_psnr_min": 28.0}
    line = EncodingsFigures.of(with_figures(manifest, measured)).round_trips
    assert "PSNR 31.2 dB on average, 28.0 dB at least" in line
