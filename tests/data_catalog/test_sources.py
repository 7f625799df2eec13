"""The catalog: entries that are complete, and settings that follow from them."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_catalog.input_rows import open_rows
from data_catalog.sources import Source, known_sources
from data_catalog.url_table.files import UrlTableError
from pipeline.config.load import load_config
from pipeline.config.section import ConfigError
from tests.support.command import REPOSITORY, tld

CONFIG = REPOSITORY / "conf" / "tld-100m.yaml"


def config_with(path: Path, download: str) -> Path:
    path.write_text(f"name: t\ndownload: {download}\n")
    return path


@pytest.mark.parametrize("name", known_sources())
def test_an_entry_says_how_to_get_its_data_and_puts_it_where_it_is_looked_for(name: str) -> None:
    source = known_sources()[name]
    if name != "shapes":
        assert source.place == (f"data/{name}" if source.images else f"data/urls/{name}")
        assert source.place in source.get
        assert source.homepage.startswith("https://")
    config = load_config(CONFIG, [f"download.source={name}"]).download
    assert (config.urls, config.images) == (source.urls, source.images)
    assert (config.caption_column, config.split_column) == (
        source.columns.caption,
        source.columns.split,
    )
    assert source.images or config.url_column == source.columns.url
    assert config.known_source == name
    assert 0 < config.min_success_rate < source.success


def test_what_the_user_sets_wins_over_the_source(tmp_path: Path) -> None:
    path = config_with(tmp_path / "c.yaml", "{source: laion-coco, caption_column: TEXT}")
    config = load_config(
        path, ["download.urls=mine.parquet", "download.min_success_rate=0.1"]
    ).download
    assert (config.urls, config.url_column, config.caption_column) == (
        "mine.parquet",
        "URL",
        "TEXT",
    )
    assert config.min_success_rate == 0.1


def test_an_unknown_source_and_no_table_at_all_are_told(tmp_path: Path) -> None:
    path = config_with(tmp_path / "c.yaml", "{source: cc12mm}")
    with pytest.raises(
        ConfigError,
        match=r"^[^\n]*\n  download.source: no such data set .* mean 'cc12m'\?, got 'cc12mm'$",
    ):
        load_config(path)
    with pytest.raises(
        ConfigError, match=r"download: neither urls nor images is set; .* `tld catalog list`"
    ):
        load_config(config_with(path, "{image_size: 64}"))


def test_a_known_table_that_is_not_there_says_where_it_comes_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = load_config(CONFIG, ["download.source=cc12m"]).download
    with pytest.raises(
        UrlTableError, match=r"no URL table at data/urls/cc12m;(.|\n)*conceptual_12m/cc12m.tsv"
    ):
        open_rows(config.rows)


def test_an_entry_is_a_table_of_urls_or_images(tmp_path: Path) -> None:
    entry = known_sources()["emoji"].model_dump(exclude_unset=True)
    for wrong in (
        {"urls": "data/urls/emoji"},
        {"images": None},
        {"columns": {"url": "u", "caption": "c"}},
    ):
        with pytest.raises(ValueError, match=r"urls and columns\.url, or images and neither"):
            Source.model_validate(entry | wrong)
    with pytest.raises(ConfigError, match="source 'emoji' has images, but urls is set"):
        load_config(config_with(tmp_path / "c.yaml", "{source: emoji, urls: mine.parquet}"))
    mine = load_config(config_with(tmp_path / "c.yaml", "{source: emoji, images: mine}")).download
    assert (mine.images, mine.urls, mine.split_column) == ("mine", None, "split")


def test_known_images_that_are_not_there_say_where_they_come_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = load_config(CONFIG, ["download.source=emoji"]).download
    with pytest.raises(
        UrlTableError,
        match=r"nothing at data/emoji\n(.|\n)*python -m tools.emoji_tars --out data/emoji",
    ):
        open_rows(config.rows)


def test_the_catalog_lists_and_teaches() -> None:
    listed = tld("catalog", "list").stdout
    assert all(name in listed for name in known_sources())
    shown = tld("catalog", "show", "laion-coco").stdout
    for text in (
        "top_caption",
        "licence",
        "hf download",
        "tld download tld-100m download.source=laion-coco",
    ):
        assert text in shown
    images = tld("catalog", "show", "emoji").stdout
    for text in ("Put the images at data/emoji:", "split in 'split'", "of the images to be used"):
        assert text in images
    assert "tld run emoji\n" in images
    assert "tld run tiny\n" in tld("catalog", "show", "shapes").stdout
    wrong = tld("catalog", "show", "laion-cocoa")
    assert wrong.returncode == 2
    assert "did you mean 'laion-coco'?" in wrong.stderr
