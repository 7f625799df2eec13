"""What the tests of openers share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pipeline.download.http import connections
from pipeline.download.http.idle_connections import IdleConnections


@pytest.fixture(autouse=True)
def _end_shards(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Close what the openers of a test leave idle, as the end of a shard does."""
    opened = list[IdleConnections]()

    class Recorded(IdleConnections):
        def __init__(self, most_per_server: int) -> None:
            super().__init__(most_per_server)
            opened.append(self)

    monkeypatch.setattr(connections, "IdleConnections", Recorded)
    yield
    for idle in opened:
        idle.close_all(for_good=True)
