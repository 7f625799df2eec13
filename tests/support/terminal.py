"""Commands on a terminal of their own."""

from __future__ import annotations

import os
import pty
import subprocess
from contextlib import suppress


def on_a_terminal(*command: str) -> str:
    """What a command shows on a terminal of its own."""
    shown, terminal = pty.openpty()
    with subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal):
        os.close(terminal)
        parts = []
        with suppress(OSError):  # a terminal that nobody holds any more
            while part := os.read(shown, 65536):
                parts.append(part)
    os.close(shown)
    return b"".join(parts).decode()
