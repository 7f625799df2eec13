"""Checkpoints of a training as files: what is read of them, and what is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tld_model.training_state import DamagedState, describe_training_state, read_training_state

WEIGHTS = {"weight": torch.arange(6.0)}
STATE: dict[str, Any] = {
    "step": 7,
    "denoiser": WEIGHTS,
    "averages": {"0.9": WEIGHTS},
    "optimizer": {"state": {0: {"exp_avg": torch.zeros(6)}}, "param_groups": []},
}


@pytest.mark.parametrize("mapped", [False, True])
def test_a_state_is_read_as_it_was_written(tmp_path: Path, mapped: bool) -> None:
    torch.save(STATE, tmp_path / "state.pt")
    content = read_training_state(tmp_path / "state.pt", mapped=mapped)
    assert torch.equal(content["denoiser"]["weight"], WEIGHTS["weight"])
    described = describe_training_state(tmp_path / "state.pt")
    assert (described.step, described.model, described.encoders.vae) == (7, None, None)
    assert set(described.averages) == {"0.9"}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ([1, 2], "it does not contain a training state"),
        (STATE | {"layout": 2}, "it has layout 2, of a newer version of tld"),
        (STATE | {"layout": 0}, "it has layout 0, of another version of tld"),
        (STATE | {"averages": None}, "it does not contain a training state: see averages"),
        (STATE | {"optimizer": {"state": {0: 1}}}, "see optimizer.state.0"),
        (STATE | {"encoders": {"vae": 3}}, "see encoders.vae"),
    ],
)
def test_what_is_no_state_is_refused(tmp_path: Path, content: Any, why: str) -> None:
    torch.save(content, tmp_path / "state.pt")
    with pytest.raises(DamagedState, match=why):
        describe_training_state(tmp_path / "state.pt")


def test_a_flipped_bit_is_damage_and_a_missing_file_is_not(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "state.pt")
    content = bytearray((tmp_path / "state.pt").read_bytes())
    place = content.index(WEIGHTS["weight"].numpy().tobytes())
    content[place + 5] ^= 4
    (tmp_path / "state.pt").write_bytes(content)
    with pytest.raises(DamagedState, match="has the wrong checksum"):
        read_training_state(tmp_path / "state.pt")
    with pytest.raises(FileNotFoundError):
        read_training_state(tmp_path / "none.pt")
