"""Columns of browsed rows: codes of names, sides, and the split that training makes."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from pipeline.browse.browser import DataBrowser
from pipeline.browse.rows import SCHEMA, BrowsedRows, NamedCodes
from pipeline.config.run import RunConfig
from pipeline.dataset.split import split_pairs
from pipeline.stages.freshness import stage_statuses
from pipeline.stages.run_inputs import RunInputs


def test_the_split_is_that_of_training(config: RunConfig, browser: DataBrowser) -> None:
    encodings = stage_statuses(RunInputs(config))["encode"].manifest
    assert encodings
    split = split_pairs(encodings, config.train.held_out_fraction)
    rows = browser.rows
    captions = np.array(rows.table["caption"].to_pylist(), object)
    assert captions[rows.held_out].tolist() == split.held_out_captions
    assert np.count_nonzero(rows.kept & ~rows.held_out) == len(split.train)
    assert rows.split_of(0) == "train"
    assert {rows.split_of(int(n)) for n in np.flatnonzero(rows.held_out)} == {"held_out"}
    assert {rows.split_of(int(n)) for n in np.flatnonzero(~rows.kept)} == {""}


def test_codes_agree_over_chunks_with_other_dictionaries() -> None:
    kind = SCHEMA.field("reason").type
    column = pa.chunked_array([pa.array(["", "b"], kind), pa.array(["c", "b", ""], kind)])
    codes = NamedCodes.of(column)
    assert [codes.names[code] for code in codes.codes] == ["", "b", "c", "b", ""]
    assert codes.counts() == {"": 2, "b": 2, "c": 1}
    assert codes.equal("b").tolist() == [False, True, False, True, False]
    assert not codes.equal("unknown").any()


def test_no_rows_at_all_are_rows_too() -> None:
    rows = BrowsedRows(SCHEMA.empty_table(), 0.1)
    assert len(rows) == 0
    assert rows.reasons.counts() == {}
    assert rows.held_out.tolist() == []
