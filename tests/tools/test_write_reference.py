from pathlib import Path

import pytest

from pipeline.config.run import RunConfig
from tools import write_reference
from tools.reference_of_settings import all_settings, linked, value_words

REFERENCE = write_reference.REPOSITORY / "docs/reference"


def test_the_pages_of_this_repository_say_what_the_code_says() -> None:
    write_reference.main(["--check"])


def test_a_page_that_says_something_else_is_named(tmp_path: Path) -> None:
    write_reference.write_pages(tmp_path)
    page = tmp_path / "docs/reference/settings.md"
    page.write_text(
        page.read_text(encoding="utf-8").replace("`50000`", "`50001`"), encoding="utf-8"
    )

    with pytest.raises(SystemExit) as stopped:
        write_reference.main(["--check"], tmp_path)

    assert str(page) in str(stopped.value)
    assert "cli.md" not in str(stopped.value)


def test_a_page_that_is_missing_is_stale(tmp_path: Path) -> None:
    assert write_reference.stale_pages(tmp_path) == [
        tmp_path / "docs/reference/settings.md",
        tmp_path / "docs/reference/cli.md",
        tmp_path / "pipeline/config/presets/tld.schema.json",
    ]


def test_every_setting_has_a_row_and_a_sentence() -> None:
    page = (REFERENCE / "settings.md").read_text(encoding="utf-8")
    settings = all_settings()

    assert {name for name in settings if "." not in name} == set(RunConfig.model_fields)
    for name, setting in settings.items():
        if not setting.is_section:
            assert f'<a id="{name}"></a>`{name}`' in page
            assert setting.schema.get("description"), name


def test_every_command_has_a_section() -> None:
    page = (REFERENCE / "cli.md").read_text(encoding="utf-8")

    for command in (
        "run",
        "download",
        "sample",
        "catalog",
        "catalog verify",
        "import-checkpoint",
        "ui",
    ):
        assert f"\n### tld {command}\n" in page


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("train.lr", "number above 0"),
        ("train.launch.processes", "integer 1 to 4096"),
        ("download.limit", "integer at least 1, or `null`"),
        ("evaluate.guidance_interval", "list of 2 numbers"),
        ("train.caption_weights", "mapping from names to numbers, each at least 0"),
        ("download.image_format", "`jpg` or `png` or `webp`"),
        ("model.qk_norm", "`true` or `false`"),
    ],
)
def test_what_a_setting_takes_is_told_in_words(name: str, words: str) -> None:
    assert value_words(all_settings()[name].schema) == words


def test_help_links_the_settings_that_it_names() -> None:
    assert linked("Set train.init_from=FILE.") == "Set [`train.init_from=FILE`](#train.init_from)."
    assert (
        linked("See noise_levels.", "train.noise_alpha")
        == "See [`noise_levels`](#train.noise_levels)."
    )
    assert linked("`train.lr` and --out", page="settings.md") == "`train.lr` and `--out`"
