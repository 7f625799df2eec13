"""Fuzz tests try 25 inputs each in the suite, and many in `make fuzz`."""

from __future__ import annotations

from hypothesis import settings

from tests.support.generated import generated

settings.register_profile("fuzz", parent=generated(25))
settings.load_profile("fuzz")
