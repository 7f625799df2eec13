"""A decoder that dies of some pictures. Imports little: each of its processes does so anew."""

from __future__ import annotations

import os
import signal

from pipeline.download.resize import Resized, SquareResizer


class Fragile(SquareResizer):
    """Dies of some pictures, as C code does."""

    def of_body(self, body: bytes) -> tuple[Resized, dict[str, str]]:
        match body:
            case b"crash":
                os.abort()
            case b"killed":
                os.kill(os.getpid(), signal.SIGKILL)
            case b"compute":
                while True:
                    pass
        return super().of_body(body)
