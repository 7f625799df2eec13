"""A workspace and models that several users share: what one makes, others may use as the umask
says; and what they may not use is named with its mode and its owner."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from data_catalog.storage.file_lock import LOCK_NAME, file_lock
from data_catalog.storage.manifest import read_manifest
from flows.terminal.errors import external_cause
from flows.tracking.store import open_store
from pipeline.config.run import RunConfig
from pipeline.maintenance.verify import verify
from pipeline.stages.freshness import stage_statuses
from pipeline.stages.run_inputs import RunInputs
from tests.support.users import as_another_user, shared_folder
from tests.support.workspace import make_workspace
from tld_model.checkpoint import read_config


@pytest.fixture
def run() -> Iterator[RunConfig]:
    with shared_folder() as folder:
        yield make_workspace(folder / "data")


def model_of(config: RunConfig) -> Path:
    (path,) = config.folder.glob("03_model/*/denoiser.safetensors")
    return path


def refusal(work: Callable[[], object]) -> str:
    """What a user without rights is told."""
    with as_another_user(), pytest.raises(PermissionError) as refused:
        work()
    with as_another_user():
        told = external_cause(refused.value)
    assert told
    return told


def test_another_user_may_read_all_that_a_run_makes(run: RunConfig) -> None:
    with as_another_user():
        assert [status.state for status in stage_statuses(RunInputs(run)).values()] == [
            "fresh"
        ] * 3 + ["missing"]
        assert not verify(RunInputs(run)).damages
        assert read_config(model_of(run)) == run.model


def test_a_file_that_may_not_be_read_is_neither_missing_nor_damaged(run: RunConfig) -> None:
    model = model_of(run)
    model.chmod(0)
    for work in (lambda: read_config(model), lambda: verify(RunInputs(run))):
        told = refusal(work)
        assert told.startswith(f"{model} may not be read by ")
        assert "mode ----------, owner" in told


def test_a_folder_or_a_manifest_that_may_not_be_read_is_named(run: RunConfig) -> None:
    (manifest,) = run.folder.glob("03_model/*/manifest.json")
    manifest.chmod(0)
    assert refusal(lambda: stage_statuses(RunInputs(run))).startswith(
        f"{manifest} may not be read by "
    )
    manifest.parent.chmod(0)
    assert refusal(lambda: read_manifest(manifest.parent)).startswith(
        f"{manifest.parent} may not be read by "
    )
    manifest.parent.chmod(0o755)


def test_a_file_or_folder_that_may_not_be_written_is_named(run: RunConfig) -> None:
    lock = model_of(run).parent / LOCK_NAME
    lock.chmod(0o444)
    assert refusal(lambda: file_lock(lock, 0).__enter__()).startswith(
        f"{lock} may not be written by "
    )
    new = lock.with_name("new.lock")
    new.parent.chmod(0o555)
    assert refusal(lambda: file_lock(new, 0).__enter__()).startswith(
        f"{new.parent} may not be written by "
    )
    new.parent.chmod(0o755)


@pytest.mark.slow
def test_a_group_may_share_the_record_of_runs(tmp_path: Path) -> None:
    config = make_workspace(tmp_path / "data")
    before = os.umask(0o002)
    try:
        open_store(config)
    finally:
        os.umask(before)
    assert stat.S_IMODE((config.folder / "mlflow.db").stat().st_mode) == 0o664
