"""A watch that ends a process when its parent process ends."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable


def end_with_parent(parent: int, grace_s: float, then: Callable[[], None] = lambda: None) -> None:
    """Watch for the end of the parent process, even by kill -9; then call `then`, and end this
    process after `grace_s`."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.2)
        then()
        time.sleep(grace_s)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
