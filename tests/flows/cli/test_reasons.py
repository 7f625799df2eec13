"""What `tld status --why` and `tld run --dry-run` say."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from data_catalog.model_files import EVENTS_FILE
from flows.cli.reasons import announce
from flows.cli.stages import run
from flows.cli.status import status
from flows.terminal.errors import UserError
from flows.terminal.verbosity import choose_verbosity
from pipeline.config.load import load_config
from pipeline.config.run import RunConfig
from pipeline.maintenance.reasons import stage_reasons
from pipeline.stages.run_inputs import RunInputs
from tests.support.command import snapshot
from tests.support.small import TINY
from tests.support.workspace import make_workspace, output, overrides


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    """A run that is trained and not evaluated."""
    config = make_workspace(tmp_path / "data")
    speed = {"kind": "metrics", "step": 12, "values": {"images_per_s": 4.0}}
    (output(config, "train").folder / EVENTS_FILE).write_text(json.dumps(speed) + "\n")
    return config


def test_why_a_stage_is_stale(config: RunConfig, capsys: pytest.CaptureFixture[str]) -> None:
    words = overrides(config.folder, train__steps=3000)
    status(TINY, *words)
    plain = capsys.readouterr().out
    status(TINY, *words, why=True)
    explained = capsys.readouterr().out
    assert explained.startswith(plain)
    model = output(config, "train")
    _, place, train, change, evaluate = explained.removeprefix(plain).splitlines()
    assert place == f"in {config.folder}"
    made_at = model.made_at[:16].replace("T", " ")
    assert train == (
        f"train: the nearest is 03_model/{model.folder.name} of tiny, {made_at} UTC, took 0 s"
    )
    assert change == "  train.steps 12 -> 3000"
    assert evaluate == f"evaluate: no report yet in {config.folder}, and train must run first"


def test_a_stage_that_only_follows_another_says_so(
    config: RunConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    status(TINY, *overrides(config.folder, encode__latent_clip=6), why=True)
    lines = capsys.readouterr().out.splitlines()
    assert "  encode.latent_clip 7.0 -> 6.0" in lines
    assert "train: only because encode must run first; else the same as 03_model/" in "\n".join(lines)  # fmt: skip


def test_an_output_in_a_folder_of_another_name_says_so(
    config: RunConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = output(config, "train").folder
    folder.rename(folder.with_name("mine"))
    status(TINY, *overrides(config.folder), why=True)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2].startswith("train: the same as 03_model/mine of tiny")
    assert lines[-2].endswith("but that folder was renamed")


def test_a_finished_run_has_nothing_to_explain(
    config: RunConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    status(TINY, *overrides(config.folder), why=True, as_json=True)
    rows = json.loads(capsys.readouterr().out)
    assert [row["why"] for row in rows[:3]] == [None, None, None]
    assert rows[3]["why"]["waits_for"] == []
    assert rows[3]["why"]["nearest"] is None


def test_programs_read_the_differences(
    config: RunConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    words = overrides(config.folder, train__seed=3)
    status(TINY, *words, as_json=True)
    plain = json.loads(capsys.readouterr().out)
    status(TINY, *words, why=True, as_json=True)
    rows = json.loads(capsys.readouterr().out)
    assert plain == [{name: row[name] for name in row if name != "why"} for row in rows]
    why = rows[2]["why"]
    assert why["changes"] == [{"setting": "train.seed", "before": "0", "now": "3"}]
    assert why["nearest"]["folder"] == str(output(config, "train").folder)
    with pytest.raises(UserError, match="use one"):
        status(TINY, *words, why=True, every=True)


def test_a_dry_run_says_what_would_run_and_changes_nothing(
    config: RunConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    before = snapshot(config.folder)
    run(TINY, *overrides(config.folder, train__steps=300), until="train", dry_run=True)
    first, download, encode, train, change, time, last = capsys.readouterr().out.splitlines()
    assert first == f"in {config.folder}"
    assert (download, encode) == ("download: is fresh", "encode: is fresh")
    assert train.startswith("train: the nearest is 03_model/")
    assert change == "  train.steps 12 -> 300"
    minutes = 300 * 16 / 4 / 60
    assert time == f"about {minutes:.0f} min by the time of the nearest outputs"
    assert last == "nothing was started"

    run(TINY, *overrides(config.folder), until="train", force=("train",), dry_run=True)
    assert "train: is fresh, but --force runs it again" in capsys.readouterr().out
    run(TINY, *overrides(config.folder), until="train", dry_run=True)
    assert capsys.readouterr().out.splitlines()[-1] == "nothing would run"
    run(TINY, *overrides(config.folder / "new"), dry_run=True)
    assert "no output says how long this takes" in capsys.readouterr().out
    assert snapshot(config.folder) == before


def test_what_would_run_without_a_known_time_is_named(
    config: RunConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    run(TINY, *overrides(config.folder, model__layers=2, encode__latent_clip=6), dry_run=True)
    time, disk, last = capsys.readouterr().out.splitlines()[-3:]
    assert time.endswith("by the time of the nearest outputs, without train and evaluate")
    assert re.fullmatch(
        r"about [\d.]+ kB of disk by their size, without train and evaluate; .* are free", disk
    )
    assert last == "nothing was started"


def test_a_price_per_hour_and_too_small_a_disk_are_said(
    config: RunConfig, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (output(config, "train").folder / "checkpoints").mkdir()
    (output(config, "train").folder / "checkpoints/step-00000012.pt").write_bytes(bytes(10**6))
    words = overrides(config.folder, train__steps=300, evaluate__price_per_hour=6)
    run(TINY, *words, until="train", dry_run=True)
    time, disk, _ = capsys.readouterr().out.splitlines()[-3:]
    assert time.endswith(f"; at 6 per hour, {6 * 300 * 16 / 4 / 3600:.2f}")
    assert re.match(r"about [\d.]+ MB of disk by their size; ", disk)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    run(TINY, *words, until="train", dry_run=True)
    assert (
        capsys.readouterr().out.splitlines()[-2].endswith("by their size, but only 1 kB are free")
    )


def test_what_runs_is_announced_with_its_time_unless_quiet_or_all_is_fresh(
    config: RunConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    def announced(force: tuple[str, ...] = (), **changed: object) -> str:
        settings = load_config(TINY, overrides(config.folder, **changed))
        announce(stage_reasons(RunInputs(settings), force)[:3], settings, force)
        captured = capsys.readouterr()
        assert not captured.out
        return captured.err

    line = announced(train__steps=300)
    assert line == "runs train: about 20 min by the time of the nearest outputs\n"
    assert announced(("encode",)).startswith("runs encode: about ")
    assert announced() == ""
    unknown = "no output says how long this takes (tld bench measures it)"
    assert announced(model__layers=2) == f"runs train: {unknown}\n"
    choose_verbosity(quiet=True, verbose=False)
    assert announced(train__steps=300) == ""
    choose_verbosity(quiet=False, verbose=False)


def test_a_shared_stage_counts_once(config: RunConfig, capsys: pytest.CaptureFixture[str]) -> None:
    changed = {"phases.more.train.steps": 7, "encode.latent_clip": 6}
    settings = load_config(TINY, overrides(config.folder, **changed))
    announce(stage_reasons(RunInputs(settings)), settings)
    first = "runs encode first, train first, train more and evaluate more: "
    assert capsys.readouterr().err.startswith(first)
