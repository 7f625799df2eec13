"""Training as processes that are killed, stopped, starved of disk and multiplied: it goes on to the
same bits."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from data_catalog.storage.file_lock import file_lock
from pipeline.compute.child_processes import ChildFailed, run_processes
from pipeline.compute.ranks import rank_environments
from pipeline.compute.rendezvous import rendezvous_of
from pipeline.config.launch import LaunchConfig
from pipeline.config.load import load_config
from pipeline.config.section import ConfigError
from pipeline.config.train import TrainConfig
from pipeline.dataset.batch_order import PairOrder
from pipeline.dataset.encoded_dataset import open_dataset
from pipeline.dataset.split import split_pairs
from pipeline.preflight.check import check_run
from pipeline.stages.contract import Output, StageFailed
from pipeline.train import stage as train_process
from tests.support.command import descendants, is_running
from tests.support.small import TINY
from tests.support.tracker import RememberingTracker
from tests.support.training import SETTINGS, start_training, train_in, write_encodings
from tests.support.waiting import wait_while_running

pytestmark = pytest.mark.slow

WAIT_S = 120


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Output, RememberingTracker]:
    """A training that nothing happens to, and what it told."""
    folder = tmp_path_factory.mktemp("undisturbed")
    write_encodings(folder / "encodings")
    track = RememberingTracker()
    return train_in(folder, track), track


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_encodings(tmp_path / "encodings")
    return tmp_path


def logged_steps(folder: Path) -> list[int]:
    path = folder / "model/events.jsonl"
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:  # a process that starts moves it away
        lines = []
    return [json.loads(line)["step"] for line in lines if '"loss"' in line and line.endswith("}")]


def curve(track: RememberingTracker, name: str = "loss") -> dict[int, float]:
    return {step: values[name] for step, values in track.heard if name in values}


def assert_same_story(ours: RememberingTracker, theirs: RememberingTracker) -> None:
    for name in ("loss", "gradient_norm", "held_out_loss"):
        assert curve(ours, name) == curve(theirs, name)
    assert ours.artifacts == theirs.artifacts


def test_kill_9_at_random_steps_leaves_no_trace(
    folder: Path, undisturbed: tuple[Output, RememberingTracker]
) -> None:
    seed = random.randrange(1000)
    for step in sorted(random.Random(seed).sample(range(1, 18), 3)):
        process = start_training(folder)
        wait_while_running(lambda step=step: any(n >= step for n in logged_steps(folder)), process)  # type: ignore[misc]
        for pid in [process.pid, *descendants(process.pid)]:
            os.kill(pid, signal.SIGKILL)
        process.communicate()
    track = RememberingTracker()
    assert train_in(folder, track).shards[0].digest == undisturbed[0].shards[0].digest, (
        f"seed {seed}"
    )
    assert_same_story(track, undisturbed[1])


@pytest.mark.parametrize("processes", [1, 2])
def test_sigterm_writes_a_checkpoint_and_the_rest_follows(
    folder: Path, undisturbed: tuple[Output, RememberingTracker], processes: int
) -> None:
    process = start_training(
        folder, checkpoint_every=1000, sample_every=2, launch={"processes": processes}
    )
    wait_while_running(lambda: len(logged_steps(folder)) >= 3, process)
    os.kill(descendants(process.pid)[-1], signal.SIGTERM)  # one rank of two: they agree on the step
    _, output_text = process.communicate(timeout=WAIT_S)
    assert process.returncode == 1
    (checkpoint,) = (folder / "model/checkpoints").glob("step-*.pt")
    assert (
        f"The checkpoint {checkpoint.name} is kept: run the same command to resume." in output_text
    )
    track = RememberingTracker()
    output = train_in(folder, track, sample_every=2, launch={"processes": processes})
    assert len(track.artifacts) == 10, "also the grid that was cut short"
    assert len(set(curve(track))) == 10
    if processes == 1:
        assert output.shards[0].digest == undisturbed[0].shards[0].digest


@pytest.fixture
def small_disk(folder: Path) -> Iterator[Path]:
    """The model's folder on a disk with room for two checkpoints, not three."""
    disk = folder / "model"
    disk.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2800k", "tmpfs", disk],
        check=False,
        capture_output=True,
    )
    if done.returncode:
        pytest.skip(f"mounting a small disk needs root: {done.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_full_disk_is_an_error_that_says_what_is_needed_and_costs_nothing(
    folder: Path, small_disk: Path, undisturbed: tuple[Output, RememberingTracker]
) -> None:
    with pytest.raises(StageFailed) as failed:
        train_in(folder, RememberingTracker())
    message = str(failed.value)
    assert "No space left on device" in message
    assert f"MB in {small_disk / 'checkpoints'}" in message
    assert "is intact: run the same command to resume" in message
    assert "Traceback" not in message
    assert not list(small_disk.glob("checkpoints/*.partial"))
    assert list(small_disk.glob("checkpoints/step-*.pt"))
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    track = RememberingTracker()
    assert train_in(folder, track).shards[0].digest == undisturbed[0].shards[0].digest
    assert_same_story(track, undisturbed[1])


def test_a_damaged_checkpoint_is_told_and_costs_only_steps(
    folder: Path, undisturbed: tuple[Output, RememberingTracker]
) -> None:
    process = start_training(folder)
    wait_while_running(lambda: (folder / "model/checkpoints/step-00000008.pt").exists(), process)
    process.kill()
    process.communicate()
    with file_lock(folder / "model/train.lock", timeout_s=60):  # its child has seen that, and ended
        *_, newest = sorted((folder / "model/checkpoints").glob("step-*.pt"))
    content = bytearray(newest.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 200] = bytes(
        byte ^ 1 for byte in content[middle : middle + 200]
    )  # past any padding
    newest.write_bytes(content)
    track = RememberingTracker()
    assert train_in(folder, track).shards[0].digest == undisturbed[0].shards[0].digest
    few, warning = track.warnings
    assert "pairs are held out of training" in few
    assert warning.startswith(f"{newest.name} is damaged (its part ")
    assert "steps are repeated" in warning


def test_poisoned_pairs_stop_the_training_and_are_named(tmp_path: Path) -> None:
    clean = write_encodings(tmp_path / "clean")
    split = split_pairs(clean, SETTINGS["held_out_fraction"])
    batch_size = SETTINGS["batch_size"]
    numbers, _ = PairOrder(split.train, seed=0, position=3 * batch_size).take(batch_size)
    bad = int(min(numbers))
    write_encodings(tmp_path / "encodings", poison=(bad,))
    with pytest.raises(StageFailed) as failed:
        train_in(tmp_path, RememberingTracker(), log_every=20, checkpoint_every=3)
    message = str(failed.value)
    assert (
        "at step 4; in its batch these pairs contain values that are not finite: " + f"{bad:09d} ("
        in message
    )
    assert f"The last good checkpoint: {tmp_path}/model/checkpoints/step-00000003.pt" in message
    assert "lower train.lr" in message
    assert "Traceback" not in message
    assert (tmp_path / "model/bad_batch.txt").read_text().split() == open_dataset(clean).keys(
        numbers
    )


@pytest.mark.parametrize(
    "more",
    [{}, {"accumulate": 2}, {"sharding": "fsdp"}, {"sharding": "fsdp", "checkpoint_blocks": True}],
)
def test_two_processes_make_the_curve_of_one(
    folder: Path, undisturbed: tuple[Output, RememberingTracker], more: dict[str, Any]
) -> None:
    track = RememberingTracker()
    output = train_in(folder, track, launch={"processes": 2}, **more)
    for name in ("loss", "gradient_norm", "held_out_loss", "held_out_loss/0.4-0.6"):
        assert curve(track, name) == pytest.approx(curve(undisturbed[1], name), abs=1e-5)
    assert output.figures["held_out_loss"] == pytest.approx(
        undisturbed[0].figures["held_out_loss"], abs=1e-5
    )
    assert track.artifacts == undisturbed[1].artifacts


def test_joint_blocks_resume_exactly_and_train_in_two_processes(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    joint = RememberingTracker()
    expected = train_in(folder, joint, "joint")
    killed, divided = (tmp_path_factory.mktemp(name) for name in ("killed", "divided"))
    for place in (killed, divided):
        write_encodings(place / "encodings")
    process = start_training(killed, blocks="joint")
    wait_while_running(lambda: any(step >= 8 for step in logged_steps(killed)), process)
    process.kill()
    process.communicate()
    resumed = train_in(killed, RememberingTracker(), "joint")
    assert resumed.shards[0].digest == expected.shards[0].digest
    track = RememberingTracker()
    train_in(divided, track, "joint", launch={"processes": 2})
    for name in ("loss", "gradient_norm", "held_out_loss"):
        assert curve(track, name) == pytest.approx(curve(joint, name), abs=1e-5)


MIX: dict[str, Any] = {"mix": {"first": 0.3, "fine": 0.7}}


def mixed_folder(folder: Path) -> Path:
    """Encodings of two phases of different sizes."""
    write_encodings(folder / "encodings")
    write_encodings(folder / "earlier", (31,))
    return folder


def test_a_mix_resumes_exactly_and_trains_in_two_processes(
    tmp_path_factory: pytest.TempPathFactory,
    undisturbed: tuple[Output, RememberingTracker],
) -> None:
    whole, killed, divided = (mixed_folder(tmp_path_factory.mktemp("mix")) for _ in range(3))
    mixed = RememberingTracker()
    expected = train_in(whole, mixed, **MIX)
    assert expected.shards[0].digest != undisturbed[0].shards[0].digest
    assert expected.figures["mix"]["first"]["drawn_pairs"] == 48  # 0.3 of 20 batches of 8
    assert expected.figures["held_out_pairs"] == undisturbed[0].figures["held_out_pairs"]
    process = start_training(killed, **MIX)
    wait_while_running(lambda: any(step >= 9 for step in logged_steps(killed)), process)
    for pid in [process.pid, *descendants(process.pid)]:
        os.kill(pid, signal.SIGKILL)
    process.communicate()
    resumed = RememberingTracker()
    assert train_in(killed, resumed, **MIX).shards[0].digest == expected.shards[0].digest
    assert_same_story(resumed, mixed)
    track = RememberingTracker()
    output = train_in(divided, track, launch={"processes": 2}, **MIX)
    for name in ("loss", "gradient_norm", "held_out_loss"):
        assert curve(track, name) == pytest.approx(curve(mixed, name), abs=1e-5)
    assert output.figures["mix"] == expected.figures["mix"]


def test_two_processes_of_a_mix_resume_exactly(tmp_path_factory: pytest.TempPathFactory) -> None:
    whole, killed = (mixed_folder(tmp_path_factory.mktemp("ranks")) for _ in range(2))
    together = {"launch": {"processes": 2}, **MIX}
    expected = train_in(whole, RememberingTracker(), **together)
    process = start_training(killed, **together)
    wait_while_running(lambda: any(step >= 9 for step in logged_steps(killed)), process)
    for pid in [process.pid, *descendants(process.pid)]:
        os.kill(pid, signal.SIGKILL)
    process.communicate()
    resumed = train_in(killed, RememberingTracker(), **together)
    assert resumed.shards[0].digest == expected.shards[0].digest


def test_poisoned_pairs_of_a_mix_are_named_with_their_phase(tmp_path: Path) -> None:
    write_encodings(tmp_path / "encodings")
    write_encodings(tmp_path / "earlier", (31,), poison=tuple(range(31)))
    with pytest.raises(StageFailed, match="not finite: first/0000") as failed:
        train_in(tmp_path, RememberingTracker(), **MIX)
    assert "at step 1;" in str(failed.value)


def test_a_killed_parent_leaves_no_rank_and_one_process_goes_on_where_two_were(
    folder: Path, undisturbed: tuple[Output, RememberingTracker]
) -> None:
    process = start_training(folder, launch={"processes": 2}, sharding="fsdp")
    wait_while_running(lambda: bool(logged_steps(folder)), process)
    ranks = descendants(process.pid)
    assert len(ranks) == 2
    process.kill()
    process.communicate()
    track = RememberingTracker()
    output = train_in(folder, track)
    assert not any(is_running(pid) for pid in ranks)
    assert curve(track) == pytest.approx(curve(undisturbed[1]), abs=1e-5)
    assert output.figures["held_out_loss"] == pytest.approx(
        undisturbed[0].figures["held_out_loss"], abs=1e-5
    )


def test_processes_of_a_killed_parent_that_do_not_end_are_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_process, "_TIMEOUT_S", 0)
    with (
        file_lock(folder / "model/train.lock", timeout_s=0),
        pytest.raises(
            StageFailed,
            match=r"train: another process still holds .*train\.lock .*; wait for it, or stop",
        ),
    ):
        train_in(folder, RememberingTracker())


def test_a_killed_rank_ends_the_others_and_the_training_can_go_on(folder: Path) -> None:
    process = start_training(folder, launch={"processes": 2})
    wait_while_running(lambda: (folder / "model/checkpoints/step-00000004.pt").exists(), process)
    ranks = descendants(process.pid)
    os.kill(ranks[1], signal.SIGKILL)
    _, stderr = process.communicate(timeout=WAIT_S)
    assert "process 2 of 2 was killed" in stderr
    assert "is kept: run the same command to resume." in stderr
    assert not any(is_running(pid) for pid in ranks)
    assert train_in(folder, RememberingTracker(), launch={"processes": 2}).figures["steps"] == 20


def test_the_traceback_of_the_rank_that_failed_first_is_told(tmp_path: Path) -> None:
    launch = LaunchConfig(processes=2)
    with rendezvous_of(launch) as meeting:
        environments = rank_environments(launch, 0, meeting)
        with pytest.raises(ChildFailed) as failed:
            run_processes(
                ["tests.support.failing_ranks"],
                tmp_path / "train.log",
                environments,
                2,
                lambda: "",
            )
    message = str(failed.value)
    assert message.startswith("process 2 of 2 ended with exit code 1")
    assert "ValueError: the second rank cannot go on" in message
    assert f"Its log: {tmp_path / 'train.1.log'}" in message


def test_what_processes_cannot_share_is_told_all_at_once() -> None:
    message = (
        r"batch_size 9 does not divide into .* × 1 \(nodes\) × 2 \(processes\) equal parts; "
        "device 'cuda:1' is one"
    )
    with pytest.raises(ValueError, match=message):
        TrainConfig(batch_size=9, launch={"processes": 2}, device="cuda:1")
    with pytest.raises(
        ValueError, match=r"sharding 'fsdp' needs launch\.processes or launch\.nodes of 2 or more"
    ):
        TrainConfig(sharding="fsdp")


def test_more_processes_than_gpus_are_refused_before_any_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    config = load_config(TINY, ["train.launch.processes=4"])
    with pytest.raises(ConfigError, match="processes: is 4, but this machine has 2 CUDA devices"):
        check_run(config)
    check_run(load_config(TINY, ["train.launch.processes=4", "train.device=cpu"]))


def test_the_deterministic_mode_reaches_the_process_and_changes_nothing_on_a_cpu(
    folder: Path, undisturbed: tuple[Output, RememberingTracker]
) -> None:
    output = train_in(folder, RememberingTracker(), deterministic=True)
    assert output.shards[0].digest == undisturbed[0].shards[0].digest
