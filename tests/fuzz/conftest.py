"""How long to fuzz: TLD_FUZZ_EXAMPLES inputs a test, few in the suite and thousands in `make fuzz`."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

_EXAMPLES = int(os.environ.get("TLD_FUZZ_EXAMPLES", "0"))

settings.register_profile(
    "fuzz",
    max_examples=_EXAMPLES or 25,
    derandomize=not _EXAMPLES,  # the suite tries the same inputs each time
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("fuzz")
