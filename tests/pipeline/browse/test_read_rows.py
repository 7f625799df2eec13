"""The rows to look through are all rows of the input, each with what became of it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow as pa

from pipeline.browse.browser import DataBrowser
from pipeline.browse.read_rows import FinishedShards, read_finished, sources_of
from pipeline.config.run import RunConfig
from pipeline.maintenance.excluded_rows import dropped_rows
from pipeline.stages.freshness import stage_statuses
from pipeline.stages.run_inputs import RunInputs
from tests.support.browsed import ROWS, browsed_config, download_browsed


def test_every_row_is_there_once_with_the_reason_that_the_csv_gives(
    config: RunConfig, browser: DataBrowser
) -> None:
    table = browser.rows.table
    assert sorted(table["row"].to_pylist()) == list(range(len(ROWS)))
    assert {row["row"]: row["caption"] for row in table.to_pylist()} == {
        number: caption for number, (_, caption, _, _) in enumerate(ROWS)
    }
    listed = dropped_rows(config.download, stage_statuses(RunInputs(config)))
    assert Counter(
        (row["caption"], f"{row['stage']}: {row['reason']}") for row in listed
    ) == Counter((row["caption"], row["reason"]) for row in table.to_pylist() if row["reason"])
    assert Counter(reason.partition(":")[0] for reason in table["reason"].to_pylist()) == {
        "": 11,
        "table": 1,
        "download": 4,
        "encode": 1,
    }


def test_rows_are_in_the_order_of_their_keys_and_rejected_ones_last(browser: DataBrowser) -> None:
    keys = browser.rows.table["key"].to_pylist()
    assert keys[-1] == ""
    assert keys[:-1] == sorted(keys[:-1])
    assert all(keys[:-1])


def test_further_captions_sizes_and_scores_are_read(browser: DataBrowser) -> None:
    boat = browser.rows.table.slice(0, 1).to_pylist()[0]
    assert boat["more_captions"] == ["un bateau rouge"]
    assert (boat["original_width"], boat["original_height"]) == (150, 100)
    assert boat["source"] == "a"
    scored = [
        row for row in browser.rows.table.to_pylist() if row["clip_score"] == row["clip_score"]
    ]
    assert {row["reason"] for row in scored} == {""}
    assert len(scored) == 11


def test_of_an_unfinished_download_the_finished_shards_are_read(tmp_path: Path) -> None:
    config = browsed_config(tmp_path)
    folder = download_browsed(config).folder
    (folder / "manifest.json").unlink()
    (folder / "00001_stats.json").unlink()
    images = FinishedShards.of(stage_statuses(RunInputs(config))["download"])
    assert images
    assert sorted(images.shards) == ["00000", "00002"]
    assert set(read_finished(images, None)["shard"].to_pylist()) == {"00000", "00002"}


def test_of_a_row_that_was_tried_again_the_last_try_counts(tmp_path: Path) -> None:
    from pyarrow import parquet

    config = browsed_config(tmp_path)
    folder = download_browsed(config).folder
    images = FinishedShards.of(stage_statuses(RunInputs(config))["download"])
    assert images
    last = max(images.shards)
    rows = parquet.read_table(folder / f"{last}.parquet")
    failed = rows.filter(pa.compute.not_equal(rows["status"], "success"))
    assert len(failed) == 2
    again = failed.set_column(
        failed.schema.get_field_index("error_message"),
        "error_message",
        pa.array(["timed out"] * len(failed)),
    )
    parquet.write_table(again, folder / "00099.parquet")
    shards = {**images.shards, "00099": images.shards[last].model_copy(update={"name": "00099"})}
    table = read_finished(FinishedShards(folder, shards), None)
    assert len(table) == len(ROWS) - 1
    assert [row["reason"] for row in table.to_pylist() if row["is_image"] is False] == [
        "download: timed out"
    ] * 2


def test_sources_are_hosts_files_and_folders() -> None:
    urls = [
        "https://Example.com:8080/a.jpg",
        "http://user:word@b.example/x",
        "tar:cats/0.tar!/1.jpg",
        "parquet:p/0.parquet!/7",
        "file:dogs/1.jpg",
        "http://[::1]/x",
        "http://[broken",
        "no url",
        "",
        None,
    ]
    assert sources_of(pa.chunked_array([urls], pa.string())) == [
        *("example.com", "b.example", "cats/0.tar", "p/0.parquet", "dogs", "::1"),
        *["(none)"] * 4,
    ]
