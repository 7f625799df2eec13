"""A clock that jumps, and two runs at the same time."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support import faults
from tests.support.faults import Tell, Victim, ended

_DAY_S = 86400


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is preloaded into a process whose clock shall jump: nobody may set the machine's own for
    a test."""
    compiler = shutil.which("cc")
    if not compiler:
        pytest.skip("a clock that jumps needs a C compiler (cc)")
    library = tmp_path_factory.mktemp("clock") / "clock_jump.so"
    source = Path(faults.__file__).with_name("clock_jump.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", library, source, "-ldl"], check=True)
    return library


@pytest.mark.parametrize("by", [_DAY_S, -_DAY_S])
def test_clock_that_jumps(
    tell: Tell, victim: Victim, undisturbed: Victim, clock: Path, tmp_path: Path, by: int
) -> None:
    """In tld, its workers, its training and its Prefect server at once."""
    victim.copy_from(undisturbed, "encode")
    now = tmp_path / "now"
    process = victim.begin_until(
        "encode", LD_PRELOAD=str(clock), CLOCK_JUMPS_WHEN=str(now), CLOCK_JUMPS_BY=str(by)
    )
    now.touch()
    seen = ended(process)
    tell(f"clock jumps by a day, {'forward' if by > 0 else 'back'}", seen, "nothing")
    seen.ended_with(0)
    again = victim.run()
    again.ended_with(0)
    assert again.told.count("fresh: ") == 4
    assert victim.digests() == undisturbed.digests()


def test_second_run_in_the_middle_of_the_first(
    tell: Tell, victim: Victim, undisturbed: Victim
) -> None:
    process = victim.begin_until("download")
    second = victim.run()
    first = ended(process)
    tell(
        "a second run in the middle of the first", second, "the wait for the first, stage by stage"
    )
    first.ended_with(0)
    second.ended_with(0)
    victim.run().ended_with(0)
    assert victim.digests() == undisturbed.digests()


def test_two_runs_at_the_same_moment(tell: Tell, victim: Victim, undisturbed: Victim) -> None:
    """Of a workspace that is not there yet: both would make its databases."""
    processes = [victim.begin(), victim.begin()]
    seen = [ended(process) for process in processes]
    tell(
        "two runs at the same moment, on a new workspace",
        seen[1],
        "the wait for the other, stage by stage",
    )
    for one in seen:
        one.ended_with(0)
    victim.run().ended_with(0)
    assert victim.digests() == undisturbed.digests()
