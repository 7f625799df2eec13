"""The checkpoint of another training with which one would begin, known without beginning it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from data_catalog.model_files import TRUNK_FILE
from data_catalog.storage.files import make_folder
from pipeline.train.trunk import checkpoint_to_begin_with, trunk_of
from tests.support.command import REPOSITORY
from tests.support.continued import CONSTANT, training
from tests.support.training import write_encodings


@pytest.fixture(scope="module")
def encodings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encodings(tmp_path_factory.mktemp("parents") / "encodings").folder


def test_a_longer_training_begins_with_the_last_checkpoint_of_the_trunk(
    tmp_path: Path, encodings: Path
) -> None:
    decay = "train.decay_steps=20"
    short = training(encodings, tmp_path, CONSTANT, decay, "train.steps=60")
    trunk = trunk_of(short)
    assert trunk
    assert trunk.steps == 40
    make_folder(short.folder / "checkpoints")
    (short.folder / TRUNK_FILE).write_text(trunk.model_dump_json())
    for step in (30, 40, 60):
        (short.folder / f"checkpoints/step-{step:08d}.pt").touch()
    longer = training(encodings, tmp_path, CONSTANT, decay, "train.steps=90")
    assert checkpoint_to_begin_with(longer) == short.folder / "checkpoints/step-00000040.pt"
    other = training(encodings, tmp_path, CONSTANT, decay, "train.steps=90", "train.seed=1")
    assert checkpoint_to_begin_with(other) is None
    cosine = training(encodings, tmp_path, "train.steps=90")
    assert trunk_of(cosine) is None
    assert checkpoint_to_begin_with(cosine) is None


def test_a_checkpoint_that_is_chosen_is_the_beginning(tmp_path: Path, encodings: Path) -> None:
    (tmp_path / "step-00000007.pt").touch()
    chosen = training(encodings, tmp_path, f"train.continue_from={tmp_path}/step-00000007.pt")
    assert checkpoint_to_begin_with(chosen) == tmp_path / "step-00000007.pt"


def test_it_needs_no_torch() -> None:
    code = "import sys, pipeline.maintenance.reasons; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=False).returncode == 0
