"""Which command leads a training on several machines, and what several machines cannot do."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_catalog.storage.manifest import Manifest
from pipeline.config.load import load_config
from pipeline.config.section import ConfigError
from pipeline.run.train_nodes import lead_or_join
from tests.support.small import TINY
from tests.support.workspace import make_workspace, output, overrides


def test_several_machines_train_one_phase_at_a_time(tmp_path: Path) -> None:
    """Machines meet for one training, so the phases before it have to be trained."""
    nodes = {"train.launch.nodes": 2, "train.launch.rendezvous": "127.0.0.1:29876"}
    phases = {"phases.a.train.seed": 1, "phases.b.train": "{seed: 2, launch: {nodes: 1}}"}
    first = make_workspace(tmp_path)

    def lead() -> Manifest:
        return output(first, "train")

    both = load_config(TINY, overrides(tmp_path, **phases, **nodes))
    with pytest.raises(ConfigError, match=r"first type this command with phase=a --until train"):
        lead_or_join(both, lead, print)
    on_one = load_config(TINY, overrides(tmp_path, **phases))
    assert lead_or_join(on_one, lead, print) == lead(), "one machine trains all of them"
    make_workspace(tmp_path, **phases)
    assert lead_or_join(both, lead, print) == lead(), "the last one needs one machine"
