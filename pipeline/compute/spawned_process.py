"""The start of a spawned process that does not run the user's script again."""

from __future__ import annotations

import sys
import threading
from importlib.machinery import ModuleSpec
from multiprocessing.context import SpawnProcess

_lock = threading.Lock()
_NOT_IMPORTED = ModuleSpec("tld.__main__", None)


def start_without_script(process: SpawnProcess) -> None:
    """Start a spawned process. Its function is one of a module that it can import.

    By itself multiprocessing imports the script of the parent there too, so a script without `if
    __name__ == "__main__":` would begin anew in each worker. It leaves out what is named
    `….__main__`.
    """
    script = sys.modules["__main__"]
    with _lock:
        spec = script.__spec__
        script.__spec__ = _NOT_IMPORTED
        try:
            process.start()
        finally:
            script.__spec__ = spec
