"""Work beside a wait."""

from __future__ import annotations

import threading

import pytest

from flows.orchestration.background import in_background


def test_work_runs_beside_the_caller_who_can_wait_for_its_end() -> None:
    may_go_on, did = threading.Event(), list[bool]()
    work = in_background(lambda: did.append(may_go_on.wait(60)))
    assert not work.done()
    may_go_on.set()
    work.result(60)
    assert did == [True]


def test_an_error_is_raised_where_its_end_is_waited_for() -> None:
    def fail() -> None:
        raise ValueError("no room")

    with pytest.raises(ValueError, match="no room"):
        in_background(fail).result(60)


def test_a_process_ends_without_waiting_for_it() -> None:
    never = threading.Event()

    def wait() -> None:
        never.wait()

    in_background(wait)
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "meanwhile"]
    assert thread.daemon
    never.set()
