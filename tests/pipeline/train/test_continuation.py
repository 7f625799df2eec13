"""A training that begins with a checkpoint of another: which one it takes, that nothing but the
repeated steps differs, and what a kill or a damaged file costs."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from data_catalog.model_files import checkpoints, read_trunk
from data_catalog.storage.cached_files import RemoteRecord, write_remote_record
from data_catalog.storage.files import make_folder
from data_catalog.storage.manifest import write_manifest
from pipeline.stages.contract import StageFailed
from pipeline.stages.run_inputs import StageRun
from pipeline.train.checkpoints import resume
from pipeline.train.continuation import begin_training
from pipeline.train.loop import initial_state
from tests.support.command import descendants
from tests.support.continued import CONSTANT, finish_training, start, training
from tests.support.tracker import RememberingTracker
from tests.support.training import save_checkpoint, write_encodings
from tests.support.waiting import wait_while_running

DECAY = "train.decay_steps=20"


@pytest.fixture(scope="module")
def encodings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encodings(tmp_path_factory.mktemp("parents") / "encodings").folder


def begun(run: StageRun, *steps: int, is_forced: bool = False) -> RememberingTracker:
    """Begin a training, which then writes checkpoints after these steps."""
    make_folder(run.folder)
    track = RememberingTracker()
    begin_training(run, run.folder, track, from_others=not is_forced)
    state = initial_state(run.config.train, run.config.model, "cpu")
    for state.step in steps:
        save_checkpoint(state, run.folder / "checkpoints")
    return track


def steps_in(run: StageRun) -> list[str]:
    return [
        path.stem.removeprefix("step-").lstrip("0")
        for path in checkpoints(run.folder / "checkpoints")
    ]


@pytest.mark.parametrize(
    ("overrides", "is_shared"),
    [
        (["train.steps=90", DECAY], True),
        (["train.steps=90", "train.decay_steps=5"], True),
        (["train.steps=60", "train.checkpoint_every=7", "train.accumulate=2"], True),
        (["train.steps=90", "train.lr=0.002"], False),
        (["train.steps=90", "train.seed=1"], False),
        (["train.steps=90", "train.warmup_steps=3"], False),
        (["train.steps=90", "model.layers=2"], False),
        (["train.steps=90", "model.blocks=joint"], False),
        (["train.steps=90", "train.lr_schedule=cosine"], False),
    ],
)
def test_trainings_share_a_trunk_if_they_differ_in_length_alone(
    tmp_path: Path, encodings: Path, overrides: list[str], is_shared: bool
) -> None:
    first = training(encodings, tmp_path, CONSTANT, DECAY, "train.steps=60")
    begun(first, 30, 40)
    second = training(encodings, tmp_path, CONSTANT, *overrides)
    assert second.folder != first.folder
    track = begun(second)
    assert steps_in(second) == (["40"] if is_shared else [])
    steps = second.config.train.steps
    assert (
        track.notes
        == [
            f"continues the training in {first.folder} from step 40: 40 of {steps} steps need not be "
            "repeated"
        ]
        * is_shared
    )


def test_other_encodings_are_another_trunk(tmp_path: Path, encodings: Path) -> None:
    begun(training(encodings, tmp_path, CONSTANT), 8)
    parent = write_encodings(tmp_path / "more").model_copy(update={"digest": "0" * 64})
    write_manifest(parent)
    other = training(parent.folder, tmp_path, CONSTANT, "train.steps=90")
    begun(other)
    assert steps_in(other) == []


def test_a_checkpoint_of_the_decay_is_not_of_the_trunk(tmp_path: Path, encodings: Path) -> None:
    first = training(encodings, tmp_path, CONSTANT, DECAY, "train.steps=60")
    begun(first, 35, 50)
    longer = training(encodings, tmp_path, CONSTANT, "train.steps=90")
    shorter = training(encodings, tmp_path, CONSTANT, "train.steps=30")
    begun(longer)
    assert steps_in(longer) == ["35"]
    track = begun(shorter)
    assert (steps_in(shorter), track.notes, track.warnings) == ([], [], [])


def test_a_begun_and_a_forced_training_take_nothing(tmp_path: Path, encodings: Path) -> None:
    begun(training(encodings, tmp_path, CONSTANT), 16)
    begun_before = training(encodings, tmp_path, CONSTANT, "train.steps=30")
    begun(begun_before, 4, is_forced=True)
    assert steps_in(begun_before) == ["4"]
    begun(begun_before)
    assert steps_in(begun_before) == ["4"]


def test_a_damaged_checkpoint_costs_its_steps_and_a_warning(
    tmp_path: Path, encodings: Path
) -> None:
    first = training(encodings, tmp_path, CONSTANT, "train.steps=60")
    begun(first, 20, 40)
    older, newest = checkpoints(first.folder / "checkpoints")
    newest.write_bytes(newest.read_bytes()[:-1000])
    second = training(encodings, tmp_path, CONSTANT, "train.steps=90")
    track = begun(second)
    assert steps_in(second) == ["20"]
    assert track.warnings == [
        f"this training cannot continue from {newest}: File is not a zip file"
    ]
    older.write_bytes(b"")
    shutil.rmtree(second.folder)
    track = begun(second)
    assert (steps_in(second), len(track.warnings), track.notes) == ([], 2, [])
    assert not list((second.folder / "checkpoints").iterdir())


def test_a_damaged_record_of_another_training_is_passed_over(
    tmp_path: Path, encodings: Path
) -> None:
    first = training(encodings, tmp_path, CONSTANT)
    begun(first, 8)
    (first.folder / "trunk.json").write_text('{"fingerprint"')
    second = training(encodings, tmp_path, CONSTANT, "train.steps=90")
    begun(second)
    assert steps_in(second) == []


def test_the_history_up_to_the_step_comes_along(tmp_path: Path, encodings: Path) -> None:
    first = training(encodings, tmp_path, CONSTANT)
    begun(first, 8)
    (first.folder / "samples").mkdir()
    (first.folder / "samples/step-00000004.png").write_bytes(b"grid")
    events = [
        {"kind": "metrics", "step": 4, "values": {"loss": 2.0}},
        {"kind": "artifact", "step": 4, "path": "samples/step-00000004.png", "folder": "samples"},
        {"kind": "artifact", "step": 6, "path": "samples/step-00000006.png", "folder": "samples"},
        {"kind": "artifact", "step": 6, "path": "../manifest.json", "folder": "samples"},
        {"kind": "metrics", "step": 8, "values": {"loss": 1.0}},
        {"kind": "metrics", "step": 10, "values": {"loss": 0.5}},
    ]
    lines = [json.dumps(event) + "\n" for event in events]
    (first.folder / "events.before.jsonl").write_text("".join(lines[:2]))
    (first.folder / "events.jsonl").write_text("".join(lines[2:]))
    second = training(encodings, tmp_path, CONSTANT, "train.steps=90")
    begun(second)
    assert (second.folder / "events.before.jsonl").read_text() == "".join(
        (lines[0], lines[1], lines[4])
    )
    assert (second.folder / "samples/step-00000004.png").read_bytes() == b"grid"


def test_a_trunk_in_object_storage_is_fetched(tmp_path: Path, encodings: Path) -> None:
    first = training(encodings, tmp_path / "data", CONSTANT)
    begun(first, 8)
    for name in ("trunk.json", "checkpoints/step-00000008.pt"):
        local, there = first.folder / name, tmp_path / Path(name).name
        local.rename(there)
        write_remote_record(local, RemoteRecord(f"file://{there}", there.stat().st_size, "1"), None)
    second = training(encodings, tmp_path / "data", CONSTANT, "train.steps=90")
    assert begun(second).warnings == []
    assert steps_in(second) == ["8"]


def test_continue_from_takes_the_checkpoint_before_the_decay(
    tmp_path: Path, encodings: Path
) -> None:
    first = training(encodings, tmp_path / "a", CONSTANT, DECAY, "train.steps=60")
    begun(first, 40, 60)
    chosen = f"train.continue_from={first.folder}"
    second = training(encodings, tmp_path / "b", "train.lr=0.002", "train.steps=90", chosen)
    track = begun(second)
    assert steps_in(second) == ["40"]
    assert track.notes[0].endswith("step-00000040.pt at step 40 of 90")
    assert read_trunk(second.folder) is None, "its cosine depends on the number of steps"
    file = checkpoints(first.folder / "checkpoints")[0]
    by_file = training(
        encodings, tmp_path / "b", "train.lr=0.002", "train.steps=90", f"train.continue_from={file}"
    )
    assert by_file.fingerprint == second.fingerprint

    checkpoints(first.folder / "checkpoints")[0].unlink()
    late = training(encodings, tmp_path / "c", CONSTANT, "train.lr=0.002", "train.steps=90", chosen)
    assert "step-00000060.pt, of the decay of its training, at step 60" in begun(late).notes[0]


def test_a_continued_training_has_the_settings_of_its_own_optimizer(
    tmp_path: Path, encodings: Path
) -> None:
    first = training(encodings, tmp_path / "a", CONSTANT, "train.steps=60")
    begun(first, 40)
    others = ("train.weight_decay=0.5", "train.beta2=0.9", f"train.continue_from={first.folder}")
    second = training(encodings, tmp_path / "b", CONSTANT, "train.steps=90", *others)
    begun(second)
    state = initial_state(second.config.train, second.config.model, "cpu")
    resume(state, second.folder / "checkpoints", "cpu")
    assert state.step == 40
    (group,) = state.optimizer.param_groups
    assert (group["weight_decay"], tuple(group["betas"])) == (0.5, (0.9, 0.9))


def test_a_chosen_checkpoint_that_changes_during_the_run_is_refused(
    tmp_path: Path, encodings: Path
) -> None:
    first = training(encodings, tmp_path / "a", CONSTANT)
    begun(first, 8)
    chosen = f"train.continue_from={first.folder}"
    second = training(encodings, tmp_path / "b", "train.steps=90", chosen)
    begun(first, 12)
    with pytest.raises(StageFailed, match=r"step-00000012\.pt has changed during this run"):
        begun(second)
    shutil.rmtree(first.folder)
    with pytest.raises(StageFailed, match="there is no file or folder"):
        begun(second)
    assert steps_in(second) == []


def losses(track: RememberingTracker) -> dict[int, float]:
    return {step: values["loss"] for step, values in track.heard if "loss" in values}


@pytest.fixture(scope="module")
def trained(encodings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a finished training of 60 steps."""
    root = tmp_path_factory.mktemp("trained")
    run = training(encodings, root, CONSTANT, DECAY, "train.steps=60")
    finish_training(run, RememberingTracker())
    assert steps_in(run) == ["40", "56", "60"], "that before the decay, and the newest two"
    return root


@pytest.fixture
def root(trained: Path, tmp_path: Path) -> Path:
    return shutil.copytree(trained, tmp_path / "root")


@pytest.mark.slow
def test_a_longer_and_a_shorter_training_end_with_the_bits_of_fresh_ones(
    encodings: Path, root: Path, tmp_path: Path
) -> None:
    for steps, decay in ((120, 20), (50, 10)):
        length = (CONSTANT, f"train.steps={steps}", f"train.decay_steps={decay}")
        track, fresh = RememberingTracker(), RememberingTracker()
        continued = finish_training(training(encodings, root, *length), track)
        anew = finish_training(training(encodings, tmp_path / "fresh" / str(steps), *length), fresh)
        assert continued.digest == anew.digest
        assert f"from step 40: 40 of {steps} steps need not be repeated" in track.notes[0]
        assert fresh.notes == []
        assert losses(track) == losses(fresh)
        assert track.artifacts == fresh.artifacts


@pytest.mark.slow
def test_kill_9_in_a_continued_training_leaves_no_trace(
    encodings: Path, root: Path, tmp_path: Path
) -> None:
    length = (CONSTANT, DECAY, "train.steps=100")
    run, track = training(encodings, root, *length), RememberingTracker()
    process = start(encodings, root, *length)
    wait_while_running(lambda: "48" in steps_in(run), process)
    for pid in [process.pid, *descendants(process.pid)]:
        os.kill(pid, signal.SIGKILL)
    process.communicate()
    continued = finish_training(run, track)
    fresh = RememberingTracker()
    anew = finish_training(training(encodings, tmp_path / "fresh", *length), fresh)
    assert continued.digest == anew.digest
    assert losses(track) == losses(fresh)
    (note,) = track.notes
    assert note.startswith("resumed at step "), "it resumes from its own checkpoint"


@pytest.mark.slow
def test_a_phase_with_other_settings_continues_to_the_bits_of_its_own_resume(
    encodings: Path, root: Path, tmp_path: Path
) -> None:
    first = training(encodings, root, CONSTANT, DECAY, "train.steps=60")
    phase = ("train.steps=70", "train.lr=0.0005", f"train.continue_from={first.folder}")
    track = RememberingTracker()
    model = finish_training(training(encodings, root, *phase), track)
    assert model.figures["steps"] == 70
    assert min(losses(track)) == 42
    assert (
        model.digest
        == finish_training(
            training(encodings, tmp_path / "again", *phase), RememberingTracker()
        ).digest
    )
