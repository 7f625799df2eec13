"""A user's own table of odd and broken pictures runs through to samples, and the report says where
each row went."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from tests.support import images as web
from tests.support.command import tld
from tests.support.small import TINY, small

pytestmark = pytest.mark.slow


def test_a_users_own_table_runs_through_to_samples(tmp_path: Path) -> None:
    root, table = tmp_path / "data", tmp_path / "urls.csv"
    with web.serve_images() as (address, _):
        table.write_text(web.table(address))
        settings = small(
            root,
            download__urls=table,
            download__min_success_rate=0.5,
            download__allowed_networks="['127.0.0.0/8']",
            download__min_image_size=14,
        )
        done = tld("run", TINY, *settings)
    assert done.returncode == 0, done.stderr
    (report,) = (root / "04_report").glob("*/report.html")
    page = report.read_text()
    for cause in ("HTTP 404", "not an image", "truncated or damaged image", "empty caption"):
        assert cause in page
    scores = json.loads((report.parent / "metrics.json").read_text())
    assert "prompt_accuracy" not in scores, "only the built-in data set can be graded"
    assert "clip_score" in scores
    frames = pd.concat(
        pd.read_parquet(path) for path in (root / "02_encodings").glob("*/*.parquet")
    )
    assert "ein schönes Bild – 写真 и картинка" in set(frames["caption"])
    assert len(frames) == web.GOOD + 5
