"""What is said before there is anything to look through, and while a stage is not finished."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.data_page.server import browsed_run
from flows.terminal.errors import UserError
from tests.support.browsed import browsed_config, download_browsed


def test_before_any_stage_it_says_what_to_type(tmp_path: Path) -> None:
    config = browsed_config(tmp_path)
    with pytest.raises(
        UserError, match=r"nothing is downloaded yet; type\n  tld download x\.yaml a=1"
    ):
        browsed_run(config, "x.yaml a=1")
    download_browsed(config)
    other = config.model_copy(update={"download": config.download.model_copy(update={"limit": 3})})
    with pytest.raises(UserError, match="of other settings or another input"):
        browsed_run(other, "x.yaml")


def test_what_is_not_there_yet_is_said(tmp_path: Path) -> None:
    config = browsed_config(tmp_path)
    folder = download_browsed(config).folder
    run = browsed_run(config, "x.yaml")
    assert run.encodings is None
    assert run.notes == ("Nothing is encoded yet, so there are no CLIP scores.",)
    (folder / "manifest.json").unlink()
    (folder / "00002_stats.json").unlink()
    assert (
        browsed_run(config, "x.yaml").notes[0].startswith("The download is not finished: 2 shards")
    )
    for receipt in folder.glob("*_stats.json"):
        receipt.unlink()
    with pytest.raises(UserError, match="no shard of the download is finished yet"):
        browsed_run(config, "x.yaml")
