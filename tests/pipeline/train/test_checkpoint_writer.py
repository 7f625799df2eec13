"""Checkpoints written beside training: what is written is the state at the time, and it is whole at
the end."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from data_catalog.model_files import checkpoints
from pipeline.compute.ranks import ALONE, Ranks
from pipeline.config.train import TrainConfig
from pipeline.train import checkpoint_writer
from pipeline.train.checkpoint_writer import CheckpointWriter
from pipeline.train.checkpoints import CheckpointNotWritten, resume, write_checkpoint
from pipeline.train.loop import TrainState, initial_state
from tests.support.training import MODEL, SETTINGS

CONFIG = TrainConfig(**SETTINGS)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Nothing is written before this is set."""
    gate = threading.Event()

    def write(content: dict[str, Any], folder: Path, trunk_steps: int | None) -> None:
        assert gate.wait(30)
        write_checkpoint(content, folder, trunk_steps)

    monkeypatch.setattr(checkpoint_writer, "write_checkpoint", write)
    return gate


def state_at(step: int) -> TrainState:
    state = initial_state(CONFIG, MODEL, "cpu")
    for weight in state.denoiser.parameters():
        weight.grad = torch.ones_like(weight)
    state.optimizer.step()
    state.step = step
    return state


def test_what_is_written_is_the_state_that_was_saved_though_training_went_on(
    tmp_path: Path, gate: threading.Event
) -> None:
    state = state_at(4)
    saved = [weight.detach().clone() for weight in state.denoiser.parameters()]
    with CheckpointWriter(tmp_path, ALONE) as writer:
        writer.save(state)
        state.optimizer.step()
        state.step += 1
        assert checkpoints(tmp_path) == []
        gate.set()
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000004.pt"]
    back = initial_state(CONFIG, MODEL, "cpu")
    resume(back, tmp_path, "cpu", warn=pytest.fail)
    assert all(map(torch.equal, back.denoiser.parameters(), saved))
    moments = back.optimizer.state_dict()["state"].values()
    assert all(values["step"] == 1 for values in moments)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError])
def test_the_last_checkpoint_is_whole_however_training_ends(
    error: type[BaseException], tmp_path: Path, gate: threading.Event
) -> None:
    def train() -> None:
        with CheckpointWriter(tmp_path, ALONE) as writer:
            writer.save(state_at(1))
            threading.Timer(0.2, gate.set).start()
            raise error

    with pytest.raises(error):
        train()
    assert len(checkpoints(tmp_path)) == 1


def test_a_disk_that_refuses_is_reported_with_the_next_checkpoint(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").touch()
    with CheckpointWriter(tmp_path / "file", ALONE) as writer:
        writer.save(state_at(1))
        with pytest.raises(CheckpointNotWritten, match="could not write the checkpoint of step 1"):
            writer.save(state_at(2))


@pytest.mark.parametrize("stops", [False, True])
def test_a_disk_that_refuses_the_last_checkpoint_is_reported(tmp_path: Path, stops: bool) -> None:
    (tmp_path / "file").touch()

    def train() -> None:
        with CheckpointWriter(tmp_path / "file", ALONE) as writer:
            writer.save(state_at(3))
            if stops:
                raise SystemExit

    with pytest.raises(CheckpointNotWritten, match="could not write the checkpoint of step 3"):
        train()


def test_only_the_leading_rank_writes(tmp_path: Path) -> None:
    with CheckpointWriter(tmp_path, Ranks(rank=1, count=2)) as writer:
        writer.save(state_at(1))
    assert checkpoints(tmp_path) == []


def test_the_checkpoint_before_the_decay_stays_beside_the_newest_two(tmp_path: Path) -> None:
    with CheckpointWriter(tmp_path, ALONE, {"vae": "shapes-vae"}, trunk_steps=4) as writer:
        for step in (2, 4, 6, 8, 9):
            writer.save(state_at(step))
    names = [path.name for path in checkpoints(tmp_path)]
    assert names == ["step-00000004.pt", "step-00000008.pt", "step-00000009.pt"]
    content = torch.load(tmp_path / names[0], weights_only=True)
    assert content["model"] == MODEL.model_dump(mode="json")
    assert content["encoders"] == {"vae": "shapes-vae"}
