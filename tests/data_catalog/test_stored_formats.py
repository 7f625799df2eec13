"""Outputs that an earlier version wrote still read, and mean what they meant."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data_catalog.encodings import read_arrays, read_rows
from data_catalog.excluded_rows import read_dropped
from data_catalog.storage.digests import file_digest
from data_catalog.storage.manifest import (
    Manifest,
    content_digest,
    read_manifest,
    read_manifest_alone,
)
from data_catalog.storage.receipts import finished_shards, read_receipt
from pipeline.dataset.encoded_dataset import open_dataset
from pipeline.dataset.split import split_pairs

FORMAT_1 = Path(__file__).parent / "fixtures/format_1"
ENCODINGS = ("encodings", "encodings_tokens")
CAPTIONS = [
    "a small yellow triangle in the center on a white background",
    "a large red circle in the top right on a white background",
    "a large blue star in the bottom left on a purple background",
    "a small yellow cross in the top right on a green background",
    "a small red square in the center on a blue background",
    "a small blue circle in the bottom right on a red background",
]
STEP = 7 / 127  # latent_clip over the largest of the signed levels


def manifest_of(name: str) -> Manifest:
    manifest = read_manifest(FORMAT_1 / name)
    assert manifest is not None
    return manifest


def digest_in(name: str) -> str:
    manifest = json.loads((FORMAT_1 / name / "manifest.json").read_text(encoding="utf-8"))
    return str(manifest["digest"])


@pytest.mark.parametrize(
    ("name", "stage", "version", "rows", "parents"),
    [
        ("images", "download", 1, 6, {}),
        ("encodings", "encode", 1, 6, {"download": "images"}),
        ("model", "train", 1, 5, {"encode": "encodings"}),
        ("report", "evaluate", 3, 1, {"encode": "encodings", "train": "model"}),
    ],
)
def test_the_manifest_of_every_stage_reads(
    name: str, stage: str, version: int, rows: int, parents: dict[str, str]
) -> None:
    manifest = read_manifest_alone(FORMAT_1 / name)
    assert manifest is not None
    assert (manifest.stage, manifest.version, manifest.rows) == (stage, version, rows)
    assert manifest.digest == content_digest(manifest.shards)
    assert manifest.parents == {parent: digest_in(folder) for parent, folder in parents.items()}
    assert (manifest.name, manifest.made_at[:10]) == ("format-1", "2026-11-28")
    assert manifest.hardware == "Example CPU, 2 cores, 8 GB"


def test_the_figures_that_later_stages_read_are_there() -> None:
    names = ("images", "model", "report")
    images, model, report = (read_manifest_alone(FORMAT_1 / name) for name in names)
    assert images
    counts = images.figures["account"]
    assert (counts["rows"], counts["downloaded"]) == (6, 6)
    assert counts["rejected"] == counts["failed"] == counts["dropped"] == {}
    assert images.settings["image_size"] == 64
    assert model
    assert (model.figures["train_pairs"], model.figures["held_out_pairs"]) == (5, 1)
    assert model.figures["steps"] == 2
    assert model.settings["model"]["width"] == 64
    assert report
    assert report.figures["scores"]["clip_score"] == pytest.approx(7.0576, abs=1e-4)


@pytest.mark.parametrize("name", ENCODINGS)
def test_receipts_read_and_name_whole_files(name: str) -> None:
    folder, manifest = FORMAT_1 / name, manifest_of(name)
    receipt = read_receipt(folder, "00000")
    assert receipt is not None
    assert finished_shards(folder) == [receipt] == list(manifest.shards)
    assert {file: file_digest(folder / file) for file in receipt.files} == {
        file: record.sha256 for file, record in receipt.files.items()
    }
    assert receipt.figures["latent_shape"] == [4, 8, 8]


def test_pooled_encodings_read() -> None:
    manifest = manifest_of("encodings")
    arrays = read_arrays(manifest.file("00000.npz"))
    assert [key.decode() for key in arrays.key] == [f"{number:06d}" for number in range(6)]
    assert (arrays.latents.shape, arrays.latents.dtype.name) == ((6, 4, 8, 8), "uint8")
    assert arrays.latents[:, 0, 0, 0].tolist() == [150, 152, 111, 124, 101, 128]
    assert (arrays.text.shape, arrays.text.dtype.name) == ((6, 64), "float16")
    assert arrays.text[0, :3].tolist() == [-1.0986328125, 1.9248046875, -2.14453125]
    assert arrays.text_start is None
    assert arrays.tokens is None

    rows = read_rows(manifest.folder, "00000")
    assert rows["key"].to_pylist() == [key.decode() for key in arrays.key]
    assert rows["caption"].to_pylist() == CAPTIONS
    assert rows["split"].to_pylist() == ["held_out", *["train"] * 5]
    assert rows["clip_score"][0].as_py() == pytest.approx(93.5729, abs=1e-4)
    assert list(read_dropped(manifest.folder, "00000")) == []


def test_encodings_by_token_with_several_captions_read() -> None:
    manifest = manifest_of("encodings_tokens")
    arrays = read_arrays(manifest.file("00000.npz"))
    assert arrays.text.shape == (3, 64)
    assert arrays.text_start is not None
    assert arrays.text_start.tolist() == [0, 1, 3]
    assert arrays.text_column is not None
    assert arrays.text_column.tolist() == [0, 0, 1]
    assert arrays.tokens is not None
    assert arrays.tokens.shape == (18, 128)
    assert arrays.token_start is not None
    assert arrays.token_start.tolist() == [0, 5, 14, 18]
    assert arrays.tokens[17, :2].tolist() == [1.447265625, -0.62548828125]

    rows = read_rows(manifest.folder, "00000", ["caption", "more_captions", "original_width"])
    assert rows.to_pylist() == [
        {"caption": "a blue circle", "more_captions": [None], "original_width": 150},
        {"caption": "green – 緑", "more_captions": ["a triangle"], "original_width": 150},
    ]
    excluded = list(read_dropped(manifest.folder, "00000"))
    assert [(row["key"], row["caption"]) for row in excluded] == [
        ("00000000", "a red star"),
        ("00000003", "a star"),
    ]
    assert {row["reason"] for row in excluded} == {"clip score below 20"}


@pytest.mark.parametrize("name", ENCODINGS)
def test_others_read_them_with_numpy_pandas_and_json_alone(name: str) -> None:
    folder = FORMAT_1 / name
    figures = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["figures"]
    scale = np.reshape(figures["quantization"]["scale"], (-1, 1, 1))
    with np.load(folder / "00000.npz") as shard:
        latents = (shard["latents"].astype(np.float32) - 128) * scale
        keys = [key.decode() for key in shard["key"]]
    assert pd.read_parquet(folder / "00000.parquet")["key"].tolist() == keys
    expected = {
        "encodings": [22 * STEP, 0, -24 * STEP, 8 * STEP],
        "encodings_tokens": [11 * STEP, 0, -22 * STEP],
    }
    np.testing.assert_allclose(latents[0, : len(expected[name]), 0, 0], expected[name], rtol=1e-6)


def test_training_opens_them() -> None:
    pooled = manifest_of("encodings")
    batch = open_dataset(pooled).batch(np.array([4, 0]))
    assert batch.latents[:, 0, 0, 0].tolist() == pytest.approx([-27 * STEP, 22 * STEP])
    assert batch.text[1, :2].tolist() == [-1.0986328125, 1.9248046875]
    split = split_pairs(pooled, held_out_fraction=0)
    assert (split.train.tolist(), split.held_out.tolist()) == ([1, 2, 3, 4, 5], [0])
    assert split.held_out_captions == CAPTIONS[:1]

    by_token = open_dataset(manifest_of("encodings_tokens"), "tokens")
    assert by_token.caption_columns == ("caption", "alt")
    text = by_token.batch(np.array([0, 1])).text
    assert text.shape == (2, 9, 128)
    assert text[0, 5:].abs().sum() == 0, "the first caption has five tokens, the second nine"
    assert text[1, 8].abs().sum() > 0
