"""Descriptors and memory that run out."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from tests.support.faults import (
    TRAINING,
    UNFINISHED,
    WORKER,
    Tell,
    Victim,
    assert_kept,
    ended,
    parts,
)


@pytest.mark.parametrize("more", [0, 30])
def test_few_descriptors(victim: Victim, undisturbed: Victim, tell: Tell, more: int) -> None:
    """In a worker of the download that has begun."""
    process = victim.begin_until("download")
    (worker,) = parts(process, WORKER)
    may = len(list(Path(f"/proc/{worker}/fd").iterdir())) + more if more else 0
    resource.prlimit(worker, resource.RLIMIT_NOFILE, (may, may))
    seen = ended(process)
    fault = (
        f"{f'{more} more' if more else 'no more'} files may be opened by a worker of the download"
    )
    tell(fault, seen, "nothing" if more else UNFINISHED["download"])
    if more:
        seen.ended_with(0)
    else:
        seen.ended_with(1, "too many open files")
        victim.run().ended_with(0)
    assert victim.digests() == undisturbed.digests()


def test_memory_of_a_worker(victim: Victim, undisturbed: Victim, tell: Tell) -> None:
    """It fails, or stands still for want of a thread; its successor may have more."""
    victim.copy_from(undisturbed, "encode")
    process = victim.begin_until("encode")
    kept = victim.finished()
    _take_no_more_memory(*parts(process, WORKER))
    seen = ended(process)
    tell("no more memory for a worker of encode", seen, UNFINISHED["encode"])
    if seen.code:
        seen.ended_with(1, "memory ran out")
        victim.run().ended_with(0)
    else:
        seen.ended_with(0)
    assert_kept(victim, kept)
    assert victim.digests() == undisturbed.digests()


def test_memory_of_the_training(victim: Victim, undisturbed: Victim, tell: Tell) -> None:
    victim.copy_from(undisturbed, "train")
    process = victim.begin_until("train")
    _take_no_more_memory(*parts(process, TRAINING))
    seen = ended(process)
    tell("no more memory for the training process", seen, UNFINISHED["train"])
    seen.ended_with(1, "memory ran out")
    victim.run().ended_with(0)
    assert victim.digests() == undisturbed.digests()


def _take_no_more_memory(*pids: int) -> None:
    for pid in pids:
        has = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()
        resource.prlimit(pid, resource.RLIMIT_AS, (has, has))
