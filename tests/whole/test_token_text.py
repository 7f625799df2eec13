"""A table with several captions a picture, and a model that reads them by token, from the command
line."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pandas as pd
import pytest

from data_catalog.shapes import dataset as shapes
from pipeline.config.load import load_config
from pipeline.config.section import ConfigError
from pipeline.preflight.check import check_run
from tests.support import images as web
from tests.support.command import tld
from tests.support.small import TINY, small

pytestmark = pytest.mark.slow

BY_TOKEN = ("encode.text=tokens", "model.text=tokens", "model.text_dim=128")


def test_several_captions_by_token_run_through_to_samples(tmp_path: Path) -> None:
    root, table = tmp_path / "data", tmp_path / "urls.csv"
    captions = [
        drawing.attributes.caption
        for drawing in shapes.drawings(2 * web.GOOD, held_out=False, seed=1)
    ]
    with web.serve_images() as (address, _):
        with table.open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["url", "caption", "alt"])
            for i in range(web.GOOD):
                rows.writerow(
                    [
                        f"{address}/good/{i}.jpg",
                        captions[i],
                        captions[web.GOOD + i] if i % 4 else "",
                    ]
                )
        settings = small(
            root,
            download__urls=table,
            download__allowed_networks="['127.0.0.0/8']",
            evaluate__prompts=4,
        )
        more = (
            "download.more_caption_columns=[alt]",
            "train.caption_weights={alt: 3}",
            "train.held_out_fraction=0.1",
        )
        done = tld("run", TINY, *settings, *more, *BY_TOKEN)
    assert done.returncode == 0, done.stderr
    (report,) = (root / "04_report").glob("*/metrics.json")
    assert "clip_score" in json.loads(report.read_text())
    frames = pd.concat(
        pd.read_parquet(path) for path in (root / "02_encodings").glob("*/*.parquet")
    )
    assert frames["more_captions"].str[0].notna().sum() == 3 * web.GOOD // 4

    picture = tmp_path / "star.png"
    done = tld(
        "sample",
        TINY,
        "a small red star",
        *settings,
        *more,
        *BY_TOKEN,
        "--steps",
        "2",
        "--out",
        picture,
    )
    assert done.returncode == 0, done.stderr
    assert picture.stat().st_size > 0


def test_what_does_not_fit_is_told_before_any_work(tmp_path: Path) -> None:
    overrides = (f"root={tmp_path}", "model.text=tokens", "train.caption_weights={alt: 2}")
    with pytest.raises(ConfigError) as told:
        check_run(load_config(TINY, overrides))
    for part in (
        "model.text: is tokens, but the encodings will contain only pooled text; set "
        "encode.text=tokens",
        "model.text_dim: is 64, but the encoders produce 128",
        "train.caption_weights: no such caption column: alt; the captions come from caption",
    ):
        assert part in str(told.value)
    with pytest.raises(
        ConfigError,
        match="the built-in data set has no column 'alt'; its columns are 'url', 'caption'",
    ):
        check_run(load_config(TINY, [f"root={tmp_path}", "download.more_caption_columns=[alt]"]))
    with pytest.raises(ConfigError, match="name a column twice: alt"):
        load_config(TINY, ["download.more_caption_columns=[alt, alt]"])
    check_run(load_config(TINY, [f"root={tmp_path}", *BY_TOKEN]))
