"""`tld download --plan`: exact counts of a large table, and nothing is fetched or made."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from data_catalog.storage.digests import FileRecord
from data_catalog.storage.receipts import Shard, write_receipt
from pipeline.config.load import load_config
from pipeline.download.plan import HeavyHosts, plan_download
from tests.support.command import tld
from tests.support.small import TINY, small

ROWS = 200_000


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Rows of hosts of very different weight; every 50th has no caption, every 20th stands there
    twice."""
    numbers = np.arange(ROWS)
    numbers[::20] = numbers[1::20]
    weights = np.log2(numbers + 1).astype(int)
    urls = [
        f"https://host{weight}.test/{number}.jpg"
        for weight, number in zip(weights, numbers, strict=True)
    ]
    captions = [None if number % 50 == 10 else f"caption {number}" for number in range(ROWS)]
    parquet.write_table(pa.table({"url": urls, "caption": captions}), tmp_path / "urls.parquet")
    return tmp_path / "urls.parquet"


def settings(tmp_path: Path, table: Path) -> list[str]:
    return small(
        tmp_path / "data", download__urls=table, download__shard_size=1000, download__limit="null"
    )


def test_a_plan_counts_every_row_and_makes_nothing(tmp_path: Path, table: Path) -> None:
    heard: list[tuple[int, int | None]] = []
    config = load_config(TINY, settings(tmp_path, table))
    plan = plan_download(config, lambda rows, total: heard.append((rows, total)))
    empty = ROWS // 50
    twice = ROWS // 20 - sum(1 for number in range(0, ROWS, 20) if number % 50 == 10)
    assert plan.account.rows == ROWS
    assert plan.account.rejected == {
        "empty caption": empty,
        "URL that stands in the table twice": twice,
    }
    assert plan.account.usable == ROWS - empty - twice
    assert plan.shards == -(-plan.account.usable // 1000)
    assert plan.hosts.top()[0][0] == "host17.test"
    assert not plan.hosts.missed
    assert heard[-1] == (ROWS, ROWS)
    assert not (tmp_path / "data").exists()


def test_a_plan_says_which_shards_are_there(tmp_path: Path, table: Path) -> None:
    config = load_config(TINY, settings(tmp_path, table))
    folder = plan_download(config, lambda *_: None).folder
    folder.mkdir(parents=True)
    gone = {"00001.tar": FileRecord(bytes=5, sha256="")}
    for name, files in (("00000", {}), ("00001", gone)):
        write_receipt(folder, Shard(name=name, rows=1, digest="", files=files))
    before = plan_download(config.model_copy(), lambda *_: None)
    assert before.finished == 1, "the other one's tar is missing"


def test_the_heaviest_hosts_are_found_in_bounded_memory() -> None:
    hosts = HeavyHosts(limit=100)
    for part in range(50):
        light = [f"http://light{part}-{number}.test/x" for number in range(90)]
        heavy = [
            f"http://user@HEAVY{number}.test:8080/{part}"
            for number in range(5)
            for _ in range(10 + number)
        ]
        hosts.add(pa.chunked_array([[*light, *heavy, "http://bare.test?x"]]))
    assert len(hosts.counts) <= 100
    assert [host for host, _ in hosts.top()[:5]] == [
        f"heavy{number}.test:8080" for number in (4, 3, 2, 1, 0)
    ]
    assert all(
        50 * (14 - rank) - hosts.missed <= count <= 50 * (14 - rank)
        for rank, (_, count) in enumerate(hosts.top()[:5])
    )


def test_the_command_prints_a_plan_and_makes_no_folder(tmp_path: Path, table: Path) -> None:
    done = tld("download", TINY, *settings(tmp_path, table), "--plan")
    assert done.returncode == 0, done.stderr
    for pattern in (
        r"rows +200,000",
        r"4,000 × empty caption",
        r"finished +none yet",
        r"host17\.test",
        r"free at",
        r"time +about \d+ min for what is missing",
    ):
        assert re.search(pattern, done.stdout), pattern
    assert not (tmp_path / "data").exists()
