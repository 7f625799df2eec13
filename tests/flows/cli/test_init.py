"""`tld init` as a user types it."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import jsonschema_rs
import pytest

from flows.cli.init import init
from pipeline.config.config_file import SCHEMA_FILE
from pipeline.config.yaml_tree import read_tree
from tests.support.command import tld
from tests.support.images import encoded, photo
from tests.support.users import as_another_user, shared_folder


def png(edge: int = 64) -> bytes:
    return encoded(photo(0, (edge + 20, edge)), "PNG")


def test_it_writes_a_config_whose_printed_commands_run(tmp_path: Path) -> None:
    photos = tmp_path / "my photos"
    photos.mkdir()
    for number in range(6):
        (photos / f"{number}.png").write_bytes(png(64))
        (photos / f"{number}.txt").write_text(f"picture number {number}", encoding="utf-8")

    done = tld("init", "my photos", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "a folder of images at my photos: 6 rows" in done.stdout
    assert "6 of the first 6 rows have one, such as 'picture number 0'" in done.stdout

    written = (tmp_path / "my-photos.yaml").read_text(encoding="utf-8")
    assert written.startswith(f"# yaml-language-server: $schema={SCHEMA_FILE.name}\n")
    schema = (tmp_path / SCHEMA_FILE.name).read_text(encoding="utf-8")
    jsonschema_rs.validator_for(json.loads(schema)).validate(read_tree(written))
    assert tld("config", "--schema").stdout == schema

    assert "fewer than 1,000 images mostly repeats them" in done.stdout
    assert "a taste" not in done.stdout  # of six images
    plan = next(line for line in done.stdout.splitlines() if "--plan" in line)
    planned = tld(*shlex.split(plan.partition("#")[0])[1:], cwd=tmp_path)
    assert planned.returncode == 0
    assert "usable     6  (100.0%)" in planned.stdout

    again = tld("init", "my photos", cwd=tmp_path)
    assert again.returncode == 2
    assert "my-photos.yaml exists; give another name" in again.stderr


def test_a_config_or_its_schema_is_asked_for() -> None:
    refused = tld("config")
    assert refused.returncode == 2
    assert refused.stderr == (
        "tld: name a config: tld config CONFIG; or print the schema: tld config --schema\n"
    )


def test_a_mistake_is_one_line_and_writes_nothing(tmp_path: Path) -> None:
    refused = tld("init", "owner/name", cwd=tmp_path)
    assert refused.returncode == 2
    assert refused.stderr == (
        "tld: there is nothing at owner/name; for the data set owner/name of the Hugging Face hub "
        "write hf://datasets/owner/name\n"
    )
    assert not any(tmp_path.iterdir())


def test_a_schema_that_may_not_be_changed_is_left_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with shared_folder() as folder:
        folder.chmod(0o777)
        monkeypatch.chdir(folder)
        photos = folder / "photos"
        photos.mkdir()
        (photos / "a red apple.png").write_bytes(png(64))
        (folder / SCHEMA_FILE.name).write_text("{}", encoding="utf-8")
        (folder / SCHEMA_FILE.name).chmod(0o444)
        with as_another_user():
            init("photos")
        assert (folder / "photos.yaml").exists()
        assert (folder / SCHEMA_FILE.name).read_text(encoding="utf-8") == "{}"


def test_a_schema_that_cannot_be_written_leaves_no_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    Path("photos/a red apple.png").write_bytes(png(64))
    Path(SCHEMA_FILE.name).mkdir()
    with pytest.raises(IsADirectoryError):
        init("photos")
    assert not Path("photos.yaml").exists(), "another try is not told that it exists"


@pytest.mark.slow
def test_any_name_of_a_folder_or_file_becomes_the_name_of_a_run(tmp_path: Path) -> None:
    photos = tmp_path / "Fotos de España"
    photos.mkdir()
    (photos / "a red apple.png").write_bytes(png(64))
    assert tld("init", photos.name, cwd=tmp_path).returncode == 0
    assert "name: Fotos-de-Espa-a\n" in (tmp_path / "Fotos-de-Espa-a.yaml").read_text("utf-8")
    assert tld("init", photos.name, "años.yaml", cwd=tmp_path).returncode == 0
    assert "name: a-os\n" in (tmp_path / "años.yaml").read_text("utf-8")
