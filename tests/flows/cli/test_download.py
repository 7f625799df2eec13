"""`tld download`: its plan fetches nothing, and it retries only what a download left."""

from __future__ import annotations

from pathlib import Path

from tests.support.command import tld
from tests.support.small import TINY, small


def test_a_plan_fetches_nothing(tmp_path: Path) -> None:
    done = tld("download", TINY, *small(tmp_path / "data"), "--plan")
    assert done.returncode == 0, done.stderr
    assert "usable     120  (100.0%)" in done.stdout
    assert "3 of 40 rows" in done.stdout
    assert not list(tmp_path.glob("data/01_images/*"))


def test_without_a_download_there_is_nothing_to_retry(tmp_path: Path) -> None:
    root = tmp_path / "data"
    done = tld("download", TINY, *small(root), "--retry-failed")
    assert done.returncode == 2
    assert f"nothing to retry yet in {root}: first finish the download with" in done.stderr
    assert f"\n  tld download {TINY}" in done.stderr
