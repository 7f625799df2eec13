"""Preflight checks of a run: all problems that can be detected before any work, reported at
once."""

from __future__ import annotations

from pipeline.config.run import RunConfig
from pipeline.config.section import ConfigError
from pipeline.preflight.data_checks import DATA_CHECKS
from pipeline.preflight.machine_checks import MACHINE_CHECKS


def check_run(config: RunConfig) -> None:
    """Raise ConfigError if a run cannot succeed because of its input, encoders, shapes, devices
    or folders."""
    problems = [problem for check in (*DATA_CHECKS, *MACHINE_CHECKS) for problem in check(config)]
    if problems:
        raise ConfigError(
            "cannot start this run:\n" + "\n".join(f"  {problem}" for problem in problems)
        )
