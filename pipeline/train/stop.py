"""Stop requests for a training process: SIGTERM, or the end of its parent."""

from __future__ import annotations

import signal
from dataclasses import dataclass

from pipeline.compute.parent_watch import end_with_parent


class Interrupted(Exception):
    """Raised during validation, sampling or scoring when this process has been asked to stop."""


@dataclass(slots=True)
class Stop:
    """The stop request of this process."""

    requested: bool = False

    def listen(self, parent: int) -> None:
        """Stop on SIGTERM, and when the parent ends."""
        signal.signal(signal.SIGTERM, self._request)
        # A terminal's Ctrl-C also reaches the parent, which decides.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        end_with_parent(parent, grace_s=15, then=self._request)

    def _request(self, *_: object) -> None:
        self.requested = True

    def interrupt(self) -> None:
        """Raise Interrupted after a stop request, because sampling may take minutes."""
        if self.requested:
            raise Interrupted
