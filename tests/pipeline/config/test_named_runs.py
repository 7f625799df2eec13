"""Names of runs, and the configs that they are."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from data_catalog.storage import files
from pipeline.config.config_file import find_config_file
from pipeline.config.load import load_config
from pipeline.config.named_runs import (
    check_name,
    config_of_run,
    named_runs,
    run_name,
    write_named_run,
)
from pipeline.config.run import RunConfig
from pipeline.config.section import ConfigError
from pipeline.config.typed_settings import overrides_between, typed_settings
from tests.support.small import TINY


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def name(name: str, *overrides: str) -> RunConfig:
    config = load_config(TINY, overrides)
    check_name(name, config)
    write_named_run(TINY, overrides, config, name, f"tld run tiny --name {name}")
    return config


def test_a_name_stands_for_the_config_with_its_overrides() -> None:
    config = name("low-lr", "train.lr=1e-4", "train.steps=3", "encode.vae='1e5'")
    assert find_config_file(Path("low-lr")) == Path("data/runs/low-lr.yaml")
    again = load_config(Path("low-lr"))
    assert again == config
    assert again.encode.vae == "1e5", "text, which YAML 1.1 needs no quotes for"
    assert load_config(Path("low-lr"), ["train.steps=4"]).train.steps == 4
    assert config_of_run(config.folder, "low-lr") == Path("low-lr")
    assert config_of_run(Path("/disk/d"), "low-lr") == Path("/disk/d/runs/low-lr.yaml")
    with pytest.raises(ConfigError, match=r"did you mean 'low-lr'\? .* with a name are low-lr;"):
        find_config_file(Path("low-l"))


def test_the_file_names_the_command_that_made_it() -> None:
    name("long", "train.steps=3")
    assert Path("data/runs/long.yaml").read_text().startswith("# tld run tiny --name long\nname: ")


def test_a_run_is_known_by_its_settings_whatever_was_typed() -> None:
    config = name("low-lr", "train.lr=1e-4")
    assert run_name(config) == "low-lr"
    assert run_name(load_config(TINY, ["train.lr=0.0001", "download.workers=3"])) == "low-lr"
    assert run_name(load_config(TINY)) is None
    assert run_name(load_config(TINY, ["train.lr=1e-4", "name=other"])) is None


def test_one_name_has_one_run_and_one_run_has_one_name() -> None:
    name("low-lr", "train.lr=1e-4")
    before = Path("data/runs/low-lr.yaml").read_text()
    name("low-lr", "train.lr=1e-4", "download.workers=3")
    assert Path("data/runs/low-lr.yaml").read_text() == before
    with pytest.raises(ConfigError) as refused:
        name("low-lr", "train.lr=1e-3", "train.steps=7")
    for text in ("train.lr=0.0001 (here 0.001)", "(here 7)", "data/runs/low-lr.yaml"):
        assert text in str(refused.value)
    with pytest.raises(ConfigError, match=r"\n  name=tiny \(here other\)\n"):
        name("low-lr", "train.lr=1e-4", "name=other")
    with pytest.raises(ConfigError, match="has the name low-lr; to change it, rename"):
        name("another", "train.lr=1e-4")


@pytest.mark.parametrize("bad", ["", ".x", "../x", "a/b", "a b", "x" * 101, "x.yaml", "x\n", "-x"])
def test_bad_names_are_refused(bad: str) -> None:
    with pytest.raises(ConfigError, match="a name has up to 100 letters"):
        name(bad)
    with pytest.raises(ConfigError, match="a config that tld ships"):
        name("tiny")
    assert not Path("data").exists()


def test_a_workspace_that_was_moved_has_its_names(tmp_path: Path) -> None:
    name("low-lr", "train.lr=1e-4")
    Path("data").rename("moved")
    config = load_config(TINY, ["train.lr=1e-4", f"root={json.dumps(str(tmp_path / 'moved'))}"])
    assert run_name(config) == "low-lr"
    assert named_runs(config)["low-lr"].root == config.root


def test_a_path_stands_for_the_same_workspace_from_every_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name("far", "root=elsewhere/$$x", "train.lr=1e-4")
    name("here", "train.lr=1e-3")
    assert "\nroot: data\n" in Path("data/runs/here.yaml").read_text(), "which may be moved"
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    root = tmp_path / "elsewhere/$x"
    assert load_config(root / "runs/far.yaml").folder == root


def test_of_two_that_take_a_name_at_once_the_second_is_refused() -> None:
    first, second = (load_config(TINY, [f"train.steps={steps}"]) for steps in (3, 4))
    for config in (first, second):
        check_name("same", config)
    assert write_named_run(TINY, ["train.steps=3"], first, "same", "")
    with pytest.raises(ConfigError, match="the name of another run"):
        write_named_run(TINY, ["train.steps=4"], second, "same", "")


def test_a_damaged_file_is_left_out_and_a_name_in_a_phase_works() -> None:
    phases = "phases={next: {train: {steps: 5}}}"
    config = name("two", phases)
    Path("data/runs/broken.yaml").write_text("train: {")
    assert run_name(config) == "two"
    assert run_name(load_config(TINY)) is None
    assert overrides_between(typed_settings(load_config(Path("two"))), config) == {}


def test_a_password_stays_with_its_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    def modes_until_in_place(path: Path) -> None:
        seen.append(stat.S_IMODE(path.stat().st_mode))

    seen = list[int]()
    monkeypatch.setattr(files, "flush", modes_until_in_place)
    name("public", "train.steps=3")
    name("private", "download.urls=https://me:secret@example.org/table.csv")
    modes = [stat.S_IMODE(path.stat().st_mode) for path in sorted(Path("data/runs").iterdir())]
    assert modes[0] == 0o600
    assert modes[1] != 0o600
    assert seen[-2] == 0o600, "before it was in place"
    assert "secret" in Path("data/runs/private.yaml").read_text(), "or it could not run again"
