"""Preflight checks of a run: all problems that can be detected before any work, reported at
once."""

from __future__ import annotations

from pipeline.config.run import RunConfig
from pipeline.config.section import ConfigError
from pipeline.preflight.data_checks import DATA_CHECKS, REPORT_CHECKS
from pipeline.preflight.machine_checks import MACHINE_CHECKS


def check_run(config: RunConfig) -> None:
    """Raise ConfigError if a run cannot succeed because of its input, encoders, shapes, devices
    or folders. What only a later phase has says so."""
    problems: dict[str, str] = {}  # as a check tells it -> as it is shown
    for phase in config.chain:
        of_report = REPORT_CHECKS if phase is config else ()
        where = f"phases.{phase.phase}: " if phase.before else ""
        for check in (*DATA_CHECKS, *of_report, *MACHINE_CHECKS):
            problems |= {text: where + text for text in check(phase) if text not in problems}
    if problems:
        raise ConfigError(
            "cannot start this run:\n" + "\n".join(f"  {text}" for text in problems.values())
        )
