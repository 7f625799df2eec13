"""What the faults share: a run to which nothing happens, and the table at the end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.orchestration.prefect_server import prefect_server
from tests.support.command import ENVIRONMENT
from tests.support.faults import Seen, Tell, Victim

_WIDTHS = {"fault": 55, "exit": 4, "what you see": 74, "what it costs": 44}


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Victim:
    """A finished run of which the digests are the right ones."""
    victim = Victim(tmp_path_factory.mktemp("undisturbed") / "data")
    victim.run().ended_with(0)
    assert list(victim.digests()) == ["download", "encode", "train", "evaluate"]
    return victim


@pytest.fixture
def victim(tmp_path: Path) -> Victim:
    return Victim(tmp_path / "data")


@pytest.fixture(scope="session")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of commands that share one Prefect server: saves time where the fault is none
    of its own."""
    with prefect_server(tmp_path_factory.mktemp("prefect")) as api:
        secret = os.environ["PREFECT_API_AUTH_STRING"]
        yield {**ENVIRONMENT, "PREFECT_API_URL": api, "PREFECT_API_AUTH_STRING": secret}


@pytest.fixture
def tell(record_property: object) -> Tell:
    """Enter a fault into the table."""
    assert callable(record_property)

    def row(fault: str, seen: Seen, costs: str) -> None:
        cells = (fault, str(seen.code), seen.message or "nothing", costs)
        for name, value in zip(_WIDTHS, cells, strict=True):
            record_property(name, value)

    return row


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A line a fault."""
    reports = [
        report
        for kind in ("passed", "failed", "xfailed")
        for report in terminalreporter.stats.get(kind, [])
    ]
    rows = [(report, dict(report.user_properties)) for report in reports if report.when == "call"]
    terminalreporter.section("faults")
    terminalreporter.line(
        "  ".join(name.ljust(width) for name, width in _WIDTHS.items()) + "  seconds"
    )
    for report, row in sorted(
        rows, key=lambda one: (one[0].nodeid.partition("[")[0], one[1].get("fault", ""))
    ):
        cells = [
            _cut(row.get(name, "" if row else report.nodeid), width)
            for name, width in _WIDTHS.items()
        ]
        outcome = "" if report.outcome == "passed" else f"  {report.outcome.upper()}"
        terminalreporter.line("  ".join(cells) + f"  {report.duration:7.0f}{outcome}")


def _cut(text: str, width: int) -> str:
    return (text if len(text) <= width else text[: width - 1] + "…").ljust(width)
