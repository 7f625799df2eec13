"""What tests of the service share."""

from __future__ import annotations

import pytest


@pytest.fixture
def fast_previews(monkeypatch: pytest.MonkeyPatch) -> None:
    """Previews at each step, however short it is."""
    monkeypatch.setattr("pipeline.serving.previews._EVERY_S", 0)
    monkeypatch.setattr("pipeline.serving.previews._MOST_SHARE", 1e9)
