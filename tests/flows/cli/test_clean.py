"""What a workspace of many runs holds, what of it can go, and how it comes back."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from mlflow import MlflowClient

from data_catalog.storage.file_lock import LOCK_NAME, LockTimeout, file_lock
from data_catalog.storage.manifest import Manifest
from data_catalog.storage.receipts import MANIFEST_NAME
from flows.cli.clean import clean
from flows.terminal.errors import UserError
from flows.tracking.registry import CHAMPION
from flows.tracking.store import open_store, tracking_uri
from pipeline.config.run import RunConfig
from pipeline.maintenance.cleanup import UnneededFile, find_unneeded, remove
from pipeline.maintenance.trash import empty_trash, move_to_trash, undo
from pipeline.stages.freshness import stage_statuses
from pipeline.stages.run_inputs import RunInputs
from tests.support.command import snapshot, tld
from tests.support.small import TINY
from tests.support.workspace import make_workspace, overrides


@pytest.fixture
def run(tmp_path: Path) -> RunConfig:
    """A run, with another training and an interrupted one beside it; each finished one has left a
    checkpoint."""
    config = make_workspace(tmp_path / "data")
    make_workspace(tmp_path / "data", train__seed=1)
    for manifest in config.folder.glob("03_model/*/manifest.json"):
        (manifest.parent / "checkpoints").mkdir()
        (manifest.parent / "checkpoints/step-00000012.pt").write_bytes(bytes(5_000_000))
        changed = json.loads(manifest.read_text()) | {
            "made_by": ""
        }  # MLflow has no part in most of these tests
        manifest.write_text(json.dumps(changed))
    half = config.folder / "03_model/0123456789ab"
    (half / "checkpoints").mkdir(parents=True)
    (half / "checkpoints/step-00000010.pt").write_bytes(bytes(3_000_000))
    return config


def states(config: RunConfig) -> list[str]:
    return [status.state for status in stage_statuses(RunInputs(config)).values()]


def manifests(config: RunConfig, stage: str) -> list[Manifest]:
    paths = config.folder.glob(f"{stage}/*/manifest.json")
    records = (json.loads(path.read_text()) | {"folder": path.parent} for path in paths)
    return [Manifest.model_validate(one) for one in records]


def other_training(config: RunConfig) -> Manifest:
    return next(one for one in manifests(config, "03_model") if one.settings["seed"] == 1)


def interrupted(config: RunConfig) -> UnneededFile:
    return next(item for item in find_unneeded([config], others=True) if "interrupted" in item.why)


def content(config: RunConfig) -> dict[str, tuple[int, int]]:
    return {
        path: state
        for path, state in snapshot(config.folder).items()
        if not path.endswith(LOCK_NAME)
    }


def test_status_all_shows_every_output_and_what_it_was_made_from(run: RunConfig) -> None:
    done = tld("status", TINY, *overrides(run.folder), "--all", "--json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert [(row["stage"], row["state"]) for row in rows] == [
        ("download", "finished"),
        ("encode", "finished"),
        ("train", "finished"),
        ("train", "finished"),
        ("train", "interrupted"),
    ]
    assert [row["this_run"] for row in rows].count("fresh") == 3
    assert rows[1]["made_from"] == rows[0]["output"]
    assert rows[2]["made_from"] == rows[3]["made_from"] == rows[1]["output"]


def test_by_default_nothing_goes_that_costs_work_to_make_again(run: RunConfig) -> None:
    """Of no run of the workspace: neither its finished outputs nor what an interrupted one would go
    on from."""
    download = run.folder / "01_images/0123456789ab"
    (download / ".00003").mkdir(parents=True)
    for name in (
        "00001.tar",
        "00001_stats.json",
        ".00003/pairs.feather",
        ".00002.1f2e3d4c.partial.tar",
    ):
        (download / name).touch()
    waste = find_unneeded([run])
    assert {item.why for item in waste if item.path.name == "checkpoints"} == {
        "checkpoints of a finished training, which cannot be made longer without them"
    }
    gone = {str(item.path.relative_to(run.folder)) for item in waste}
    checkpoints = {
        str(one.folder.relative_to(run.folder) / "checkpoints")
        for one in manifests(run, "03_model")
    }
    assert len(checkpoints) == 2
    assert gone == checkpoints | {
        "01_images/0123456789ab/.00003",
        "01_images/0123456789ab/.00002.1f2e3d4c.partial.tar",
    }


def test_what_a_training_begins_with_is_never_offered(run: RunConfig) -> None:
    """Neither its checkpoints nor, of other settings, its folder."""
    source = other_training(run).folder
    for setting, path in (("continue_from", source), ("init_from", source / "denoiser.x")):
        train = run.train.model_copy(update={setting: path})
        begins = run.model_copy(update={"train": train})
        kept_by_both = find_unneeded([run]), find_unneeded([run, begins])
        without, with_it = ({item.output for item in items} for items in kept_by_both)
        assert without - with_it == {source}


def test_outputs_of_other_settings_are_shown_with_what_they_are_and_cost(
    run: RunConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    clean(TINY, *overrides(run.folder), other_settings=True)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "seed" in line]
    other = other_training(run)
    for part in (
        str(other.folder.relative_to(run.folder)),
        "tiny",
        other.made_at[:16],
        "seed=1 (here 0)",
    ):
        assert part in line


def test_what_goes_is_in_the_trash_until_that_is_emptied(
    run: RunConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    before, fresh = content(run), states(run)
    typed = [*overrides(run.folder)]
    clean(TINY, *typed, other_settings=True)
    assert content(run) == before, "only shown"
    clean(TINY, *typed, other_settings=True, yes=True)
    output = capsys.readouterr().out
    assert "this frees nothing yet" in output
    assert states(run) == fresh == ["fresh", "fresh", "fresh", "missing"]
    assert not other_training_is_there(run)
    assert "nothing to clean" in shown(capsys, *typed, other_settings=True)

    clean(TINY, *typed, undo=True)
    assert content(run) == before
    with pytest.raises(UserError, match="nothing is in the trash"):
        clean(TINY, *typed, undo=True)

    clean(TINY, *typed, other_settings=True, yes=True)
    size = sum(path.stat().st_size for path in run.folder.glob("trash/*/0*/**/*") if path.is_file())
    assert f"{size / 1e6:,.1f} MB in the trash would be deleted" in shown(
        capsys, *typed, empty_trash=True
    )
    assert f"{size / 1e6:,.1f} MB freed" in shown(capsys, *typed, empty_trash=True, yes=True)
    assert list((run.folder / "trash").iterdir()) == []
    assert states(run) == fresh


def other_training_is_there(config: RunConfig) -> bool:
    return any(one.settings["seed"] == 1 for one in manifests(config, "03_model"))


def shown(
    capsys: pytest.CaptureFixture[str],
    *typed: str,
    other_settings: bool = False,
    yes: bool = False,
    empty_trash: bool = False,
) -> str:
    capsys.readouterr()
    clean(TINY, *typed, other_settings=other_settings, yes=yes, empty_trash=empty_trash)
    return capsys.readouterr().out


@pytest.mark.slow
def test_the_commands_that_it_suggests_work(run: RunConfig) -> None:
    asked = tld("clean", TINY, *overrides(run.folder), "--other-settings")
    assert asked.returncode == 0, asked.stderr
    moved = tld(*shlex.split(asked.stdout.splitlines()[-1].partition("tld ")[2]))
    assert moved.returncode == 0, moved.stderr
    back, for_good = (
        shlex.split(line.partition("tld ")[2]) for line in moved.stdout.splitlines()[-2:]
    )
    assert tld(*back).stdout.count("restored: ") == 3
    assert tld(*for_good).stdout == "0.0 MB freed\n"


def test_undo_overwrites_nothing(run: RunConfig) -> None:
    other = other_training(run).folder
    move_to_trash(run.folder, find_unneeded([run], others=True))
    other.mkdir()
    (other / "new").touch()
    undone = undo(run.folder)
    assert undone
    assert undone.in_the_way == (other,)
    assert [path.name for path in other.iterdir()] == ["new"]
    assert len(list(run.folder.glob("trash/*/03_model/*/denoiser.safetensors"))) == 1


def give_alias(config: RunConfig, model: Manifest, alias: str) -> None:
    client = MlflowClient(tracking_uri(config.folder))
    client.create_registered_model("tiny")
    version = client.create_model_version(
        "tiny", str(model.folder), tags={"tld.model": model.fingerprint}
    )
    client.set_registered_model_alias("tiny", alias, version.version)


@pytest.mark.parametrize("alias", [CHAMPION, "in-the-shop"])
def test_the_champion_and_what_it_was_made_from_are_never_offered(
    run: RunConfig, alias: str
) -> None:
    """As seen by a run that shares nothing with it."""
    open_store(run)
    changed = {"download__jpeg_quality": 90, "encode__latent_clip": 3.0}
    unrelated = make_workspace(run.folder, **changed)
    typed = overrides(run.folder, **changed)
    offered = {item.output for item in find_unneeded([unrelated], others=True)}
    champion = other_training(run)
    lineage = {
        champion.folder,
        *(
            one.folder
            for stage in ("download", "encode")
            if (one := stage_statuses(RunInputs(run))[stage].manifest)
        ),
    }
    assert lineage < offered
    give_alias(run, champion, alias)
    for manifest in run.folder.glob("03_model/*/manifest.json"):
        manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"made_by": ""}))
    clean(TINY, *typed, other_settings=True, yes=True)
    assert all((folder / MANIFEST_NAME).is_file() for folder in lineage)
    assert [one.fingerprint for one in manifests(run, "03_model") if one.settings["seed"]] == [
        champion.fingerprint
    ]


def test_without_mlflow_no_model_goes(
    run: RunConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = content(run)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with monkeypatch.context() as away:
        away.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        with pytest.raises(UserError, match="does not say which model is the champion"):
            clean(TINY, *overrides(run.folder), other_settings=True, yes=True)
    path = other_training(run).folder / MANIFEST_NAME
    path.write_text(json.dumps(json.loads(path.read_text()) | {"made_by": "0123456789abcdef"}))
    output = shown(capsys, *overrides(run.folder), other_settings=True)
    assert "the MLflow at hand does not know their runs" in output
    assert "seed=1" not in output
    assert content(run).keys() == before.keys()


def test_a_run_that_is_named_is_kept_and_one_of_another_workspace_is_a_mistake(
    run: RunConfig, tmp_path: Path
) -> None:
    other = " ".join(map(str, [TINY, *overrides(run.folder), "train.seed=1"]))
    listed = tld("clean", TINY, *overrides(run.folder), "--other-settings", "--keep", other)
    assert "seed=1 (here 0)" not in listed.stdout
    elsewhere = tld(
        "clean", TINY, *overrides(run.folder), "--keep", f"{TINY} root={tmp_path / 'other'}"
    )
    assert elsewhere.returncode == 2
    assert "is another workspace than" in elsewhere.stderr


def test_a_run_that_is_named_is_kept_however_its_workspace_is_spelled(
    run: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    other = run.model_copy(update={"train": run.train.model_copy(update={"seed": 1})})
    waste = find_unneeded([run.model_copy(update={"root": "data"}), other], others=True)
    assert [item.path.name for item in waste] == ["checkpoints", "checkpoints", "0123456789ab"]


def test_what_a_process_works_in_stays(run: RunConfig, capsys: pytest.CaptureFixture[str]) -> None:
    working = interrupted(run)
    with file_lock(working.path / LOCK_NAME, timeout_s=0):
        assert not remove(working, run)
        whole = sum(
            item.bytes for item in find_unneeded([run], others=True) if item.path != working.path
        )
        output = shown(capsys, *overrides(run.folder), other_settings=True, yes=True)
        assert "kept: a process works in it" in output
        assert f"{whole / 1e6:,.1f} MB moved" in output
        assert (working.path / "checkpoints/step-00000010.pt").exists()
    assert remove(working, run)
    assert not working.path.exists()


def test_who_comes_while_an_output_is_deleted_waits_to_the_end(
    run: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    going = interrupted(run)
    (going.path / "half.bin").touch()
    unlink = Path.unlink

    def unlink_while_another_comes(path: Path, missing_ok: bool = False) -> None:
        if path.parent == going.path:
            with pytest.raises(LockTimeout), file_lock(going.path / LOCK_NAME, timeout_s=0):
                """Nobody else works in half an output."""
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink_while_another_comes)
    assert remove(going, run)
    assert not going.path.exists()
    assert remove(going, run), "as by another `tld clean` at the same time"
    assert not going.path.exists()


def test_bytes_that_another_output_links_to_are_not_freed(run: RunConfig) -> None:
    whole, half = interrupted(run), interrupted(run).path / "checkpoints/step-00000010.pt"
    encodings = stage_statuses(RunInputs(run))["encode"].folder
    assert encodings
    (encodings / "linked.bin").hardlink_to(half)
    assert whole.bytes - interrupted(run).bytes == 3_000_000


def test_links_to_folders_come_back_or_what_they_hold_is_freed(
    run: RunConfig, tmp_path: Path
) -> None:
    """As where a disk is full, and checkpoints or an output were put on another."""
    elsewhere, other = tmp_path / "elsewhere", other_training(run).folder
    elsewhere.mkdir()
    other.rename(elsewhere / "output")
    other.symlink_to(Path("../../elsewhere/output"))
    (mine,) = [one.folder for one in manifests(run, "03_model") if one.settings["seed"] == 0]
    (mine / "checkpoints").rename(elsewhere / "checkpoints")
    (mine / "checkpoints").symlink_to(elsewhere / "checkpoints")
    files = sorted(path for path in elsewhere.rglob("*") if path.name != LOCK_NAME)
    move_to_trash(run.folder, find_unneeded([run], others=True))
    assert not other.exists()
    undo(run.folder)
    assert (other / MANIFEST_NAME).is_file()
    assert (mine / "checkpoints/step-00000012.pt").is_file()
    assert sorted(path for path in elsewhere.rglob("*") if path.name != LOCK_NAME) == files
    move_to_trash(run.folder, find_unneeded([run], others=True))
    empty_trash(run.folder)
    assert list(elsewhere.iterdir()) == []


def test_while_a_stage_is_unfinished_nothing_of_those_after_it_goes(run: RunConfig) -> None:
    """As in the middle of a download that is done again: its manifest is gone, and comes back with
    the same digest."""
    folder = stage_statuses(RunInputs(run))["download"].folder
    assert folder
    before = len(find_unneeded([run], others=True))
    (folder / MANIFEST_NAME).rename(folder / "kept")
    assert {item.path.name for item in find_unneeded([run], others=True)} == {"checkpoints"}
    (folder / "kept").rename(folder / MANIFEST_NAME)
    assert len(find_unneeded([run], others=True)) == before
