"""Work in a thread beside the wait for something else."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future


def in_background(work: Callable[[], None]) -> Future[None]:
    """The end of work that a thread begins now. An interrupted process does not wait for it."""
    done = Future[None]()

    def run() -> None:
        try:
            work()
        except BaseException as error:
            done.set_exception(error)
        else:
            done.set_result(None)

    threading.Thread(target=run, name="meanwhile", daemon=True).start()
    return done
