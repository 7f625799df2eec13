"""A disk that is full, or takes nothing, in the middle of a run."""

from __future__ import annotations

import subprocess

import pytest

from tests.support.command import snapshot
from tests.support.faults import UNFINISHED, Tell, Victim, ended, fill, small_disk


@pytest.mark.parametrize("stage", list(UNFINISHED))
def test_full_disk(victim: Victim, undisturbed: Victim, tell: Tell, stage: str) -> None:
    """The whole workspace is on it, with the databases of Prefect and MLflow."""
    with small_disk(victim.root, megabytes=64):
        victim.copy_from(undisturbed, stage)
        process = victim.begin_until(stage)
        kept = victim.finished()
        make_room = fill(victim.root)
        seen = ended(process)
        tell(f"full disk in {stage}", seen, UNFINISHED[stage])
        seen.ended_with(1, "No space left on device")
        make_room()
        victim.run().ended_with(0)
        after = snapshot(victim.root)
        assert {path: after[path] for path in kept} == kept
        assert victim.digests() == undisturbed.digests()


@pytest.mark.parametrize("stage", ["download", "train"])
def test_artifact_store_that_takes_nothing(
    victim: Victim, undisturbed: Victim, tell: Tell, stage: str
) -> None:
    """From the start, or from the middle of the training on."""
    store = victim.root / "mlartifacts"
    with small_disk(store, megabytes=16):
        victim.copy_from(undisturbed, stage)

        def remount(how: str) -> None:
            subprocess.run(["mount", "-o", f"remount,{how}", str(store)], check=True)

        if stage == "download":
            remount("ro")
        process = victim.begin() if stage == "download" else victim.begin_until(stage)
        remount("ro")
        seen = ended(process)
        when = "at the start" if stage == "download" else f"in {stage}"
        tell(
            f"read-only artifact store {when}",
            seen,
            "nothing" if stage == "download" else UNFINISHED[stage],
        )
        seen.ended_with(1, "Read-only file system")
        remount("rw")
        victim.run().ended_with(0)
        assert victim.digests() == undisturbed.digests()
