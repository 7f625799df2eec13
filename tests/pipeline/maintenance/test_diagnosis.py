"""Each thing that can be broken is named, with what mends it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.maintenance import diagnosis
from pipeline.maintenance.diagnosis import (
    devices,
    installation_facts,
    machine_problems,
    package_problems,
)


def test_this_environment_has_what_is_declared() -> None:
    assert not [*package_problems()]


def test_a_package_that_is_missing_or_too_old_is_named_with_the_command_that_mends_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    declared = ["numpy>=99", "no-such-package>=1", "neither; python_version < '3'", "psutil>=1"]
    monkeypatch.setattr(diagnosis, "requirements", lambda: [*declared, "extra>=1; extra == 'ray'"])
    old, missing = package_problems()
    assert old.startswith("numpy is ")
    assert old.endswith("and tld requires numpy>=99: pip install 'numpy>=99'")
    assert missing == "no-such-package is not installed: pip install 'no-such-package>=1'"


def test_a_full_disk_and_a_full_memory_are_problems(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert not [*machine_problems(tmp_path)]
    monkeypatch.setattr(diagnosis, "_LEAST_DISK_GB", 1e9)
    monkeypatch.setattr(diagnosis, "_LEAST_MEMORY_GB", 1e9)
    disk, memory = machine_problems(tmp_path)
    assert str(tmp_path) in disk
    assert memory.endswith("GB of memory are available: end other programs")


def test_a_gpu_that_torch_does_not_see_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    names, problems = devices()
    assert names[0] == "cpu"
    assert not problems
    gpus = ["RTX"] * len(names)  # one more than there are
    monkeypatch.setattr(diagnosis, "gpu_names", lambda: gpus)
    _, (problem,) = devices()
    assert f"sees {len(names) - 1} of {len(names)} GPUs: " in problem


def test_facts_have_names_of_variables_and_no_values(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    variables = {"MLFLOW_TRACKING_PASSWORD": "canary"}
    monkeypatch.setattr(diagnosis, "_variables", lambda: variables)
    facts = installation_facts(tmp_path)
    assert "MLFLOW_TRACKING_PASSWORD" in facts["variables"]
    assert "canary" not in str(facts)
    assert str(tmp_path) in facts["disk free"]
