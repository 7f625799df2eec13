"""What is measured, not how fast it was: the parts really run, and the figures belong together."""

from __future__ import annotations

import json
import mmap
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest

from flows.cli.tables import bench_page
from pipeline.bench import measure as stopwatch
from pipeline.bench.bench import bench
from pipeline.bench.measure import Speed, largest_batch, memory
from pipeline.bench.model_speed import forward_operations
from pipeline.bench.synthetic_data import NoRoom, write_encodings
from pipeline.config.load import load_config
from pipeline.dataset.encoded_dataset import open_dataset
from pipeline.dataset.split import split_pairs
from tests.support.command import tld
from tests.support.small import TINY, small
from tld_model.config import DenoiserConfig

pytestmark = pytest.mark.slow

MODEL = DenoiserConfig(latent_size=4, text_dim=8, width=64, layers=1, noise_embed_dim=16)


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopwatch, "_LEAST_S", 0.01)
    monkeypatch.setattr(stopwatch, "_PRODUCTS", ((64, 64, 64),))


def test_a_bench_of_some_parts_tells_all_that_belongs_to_them(tmp_path: Path) -> None:
    config = load_config(TINY, small(tmp_path / "data"))
    figures = bench(config, ("load", "train", "denoise", "decode"), 2000, lambda _: None)
    assert set(figures["images_per_s"]) == {"load", "train", "original_train", "denoise", "decode"}
    assert figures["loader"]["pairs"] == 2000
    assert figures["train"]["batch_size"] == config.train.batch_size
    assert figures["train"]["step_memory"]["images_at_a_time"] == config.train.batch_size
    images = f"with {config.train.batch_size} images at a time"
    assert f"projected, not measured: {images}" in bench_page(figures)[1]
    assert figures["load_over_train"] > 0
    assert set(figures["projected_hours"]) == {"train", "sample"}
    assert figures["sample_images_per_s"] < figures["images_per_s"]["denoise"]["fastest"]
    # By hand, for a forward pass of one image: patches, embedding, the block's linear layers, self-
    # and cross-attention, depthwise convolution, condition tokens, head.
    n, d, h, patch = 16, 64, 128, 16
    block = n * (3 * d * d + d * d + 2 * d * h + 9 * h + 2 * n * d + 2 * 2 * d) + 2 * 2 * d * d
    condition = 128 * d + d * d + 64 * d
    forward = 2 * (n * (patch * patch + 2 * patch * d) + block + condition)
    assert figures["train"]["gflop_per_image"] == pytest.approx(3 * forward / 1e9, abs=0.006)
    json.dumps(figures)


def test_operations_of_joint_blocks_are_counted(tmp_path: Path) -> None:
    config = load_config(TINY, [*small(tmp_path / "data"), "model.blocks=joint"])
    # Of one image, by hand: 16 tokens attend to themselves and to the two of the condition.
    n, m, d, h, patch = 16, 2, 64, 128, 16
    joint = n * (3 * d * d + d * d) + m * 2 * d * d + 2 * n * (n + m) * d
    block = joint + n * (2 * d * h + 9 * h)
    condition = 128 * d + d * d + 64 * d
    forward = 2 * (n * (patch * patch + 2 * patch * d) + block + condition)
    assert forward_operations(config) == forward
    figures = bench(config, ("train",), 1000, lambda _: None)
    assert set(figures["images_per_s"]) == {"train"}, "the original project has no such blocks"
    assert figures["train"]["gflop_per_image"] == round(3 * forward / 1e9, 2)


def test_the_smallest_batch_divides_into_the_parts_of_a_step(tmp_path: Path) -> None:
    more = {"train__accumulate": 24, "train__batch_size": 48, "model__qk_norm": "true"}
    config = load_config(TINY, small(tmp_path / "data", **more))
    figures = bench(config, ("train",), 1000, lambda _: None)
    assert figures["train"]["batch_size"] in (24, 48)


def test_the_original_is_left_out_where_memory_is_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=0, total=2**34))
    reports: list[str] = []
    figures = bench(load_config(TINY, small(tmp_path / "data")), ("train",), 1000, reports.append)
    assert set(figures["images_per_s"]) == {"train"}
    assert "needs more memory than this device has" in reports[-1]


def test_training_is_compared_with_the_original_where_the_model_is_its(tmp_path: Path) -> None:
    reports: list[str] = []
    config = load_config(TINY, small(tmp_path / "data"))
    figures = bench(config, ("train",), 1000, reports.append)
    times, speeds = figures["train"]["times_original"], figures["images_per_s"]
    assert times["slowest"] <= times["median"] <= times["fastest"]
    least = speeds["train"]["slowest"] / speeds["original_train"]["fastest"]
    most = speeds["train"]["fastest"] / speeds["original_train"]["slowest"]
    assert least - 0.01 <= times["median"] <= most + 0.01
    assert any("original" in report for report in reports)
    table, lines = bench_page(figures)
    assert list(table.columns[0].cells) == ["train", "original train"]
    assert f"training is {times['median']:.2f} times as fast" in lines


def test_another_architecture_is_not_compared(tmp_path: Path) -> None:
    config = load_config(TINY, small(tmp_path / "data", model__qk_norm="true"))
    figures = bench(config, ("train",), 1000, lambda _: None)
    assert set(figures["images_per_s"]) == {"train"}
    assert "original" not in bench_page(figures)[1]


def test_a_comparison_is_made_round_by_round() -> None:
    ours, theirs = Speed((3.0, 8.0, 2.0)), Speed((1.0, 2.0, 2.0))
    assert ours.relative_to(theirs).summary() == {"median": 3, "slowest": 1, "fastest": 4}


def test_the_command_measures_a_part_without_table_or_encoders(tmp_path: Path) -> None:
    lacking = small(
        tmp_path / "data", download__urls=tmp_path / "none.csv", encode__vae="/no/such/vae"
    )
    done = tld("bench", TINY, *lacking, "--only", "load", "--pairs", "1000", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["images_per_s"]["load"]["median"] > 0
    refused = tld("bench", TINY, *lacking, "--only", "decode")
    assert refused.returncode == 2
    assert "encode.vae" in refused.stderr


def test_too_many_pairs_for_the_disk_are_refused_before_they_are_written(tmp_path: Path) -> None:
    with pytest.raises(NoRoom, match="--pairs"):
        write_encodings(tmp_path, 10**12, MODEL)
    assert not list(tmp_path.iterdir())


def test_a_batch_is_as_large_as_wanted_or_as_time_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    assert largest_batch(lambda count: lambda: count, 48) == 48
    monkeypatch.setattr(stopwatch, "_MOST_S", 0)
    assert largest_batch(lambda count: lambda: count, 48) == 1
    assert largest_batch(lambda count: lambda: count, 48, least=8) == 8


def test_pages_of_taken_pairs_do_not_stay_in_this_process(tmp_path: Path) -> None:
    model = MODEL.model_copy(update={"latent_size": 64})  # 16 KiB a pair
    encodings = write_encodings(tmp_path, 4000, model)
    pairs, split = open_dataset(encodings), split_pairs(encodings, 0.02)
    assert isinstance(pairs.shards[0].latents.base, mmap.mmap)
    before = memory().mapped
    for numbers in np.array_split(split.train, 40):
        pairs.batch(numbers)
    assert memory().mapped - before < 20 * 2**20, "62 MiB were read"
    again = pairs.batch(np.array([7])).text.numpy()
    np.testing.assert_array_equal(again, pairs.shards[0].text[7:8].astype(np.float32))


def test_made_up_encodings_have_the_text_that_the_model_takes(tmp_path: Path) -> None:
    model = MODEL.model_copy(update={"text": "tokens"})
    batch = open_dataset(write_encodings(tmp_path, 1000, model), "tokens").batch(np.arange(64))
    assert batch.text.shape[0::2] == (64, model.text_dim)
    assert batch.text.shape[1] <= 77
    assert len(set(batch.text.any(dim=2).sum(dim=1).tolist())) > 10, "captions of many lengths"
