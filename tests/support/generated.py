"""How many inputs hypothesis makes for a test: a few in the suite, the same each time; in `make
fuzz` TLD_FUZZ_EXAMPLES of them, new ones each time."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

_EXAMPLES = int(os.environ.get("TLD_FUZZ_EXAMPLES", "0"))


def generated(few: int) -> settings:
    """Settings of a test that tries `few` inputs in the suite."""
    return settings(
        max_examples=_EXAMPLES or few,
        derandomize=not _EXAMPLES,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
