"""`tld doctor`: what is installed, on what machine, which servers answer, and what is broken."""

from __future__ import annotations

import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

from cyclopts import Parameter

from flows.terminal.console import console, print_data
from flows.terminal.errors import UserError
from flows.terminal.text_table import TextTable


class BrokenInstallation(RuntimeError):
    """Something keeps tld from working here; the message says what, and how to mend it."""

    exit_code = 1


def doctor(
    *,
    as_json: Annotated[
        bool, Parameter("--json", negative="", help="Print JSON, for programs.")
    ] = False,
) -> None:
    """Check this installation: versions, Python, devices, memory, disk, the Prefect and MLflow
    servers that the environment names, and the address for notices of failures.

    It prints what a report of a bug needs: of environment variables the names alone, and addresses
    without passwords. If something is broken, it says what to do, and the exit code is 1.
    """
    from pipeline.maintenance.diagnosis import (
        devices,
        installation_facts,
        machine_problems,
        package_problems,
    )

    here = Path.cwd()
    facts, problems = installation_facts(here), [*package_problems(), *machine_problems(here)]
    names, broken = devices()
    facts["devices"] = ", ".join(names) or "none"
    problems += broken
    checks = {"prefect server": _prefect_server, "mlflow store": _mlflow, "notices": _webhook}
    for name, check in checks.items():
        try:
            facts[name] = check()
        except UserError as error:
            facts[name] = "broken"
            problems.append(str(error))
        except ImportError as error:
            facts[name] = f"not checked: {error}"
    _print(facts, problems, as_json=as_json)
    if problems:
        raise BrokenInstallation("\n".join(problems))


def _prefect_server() -> str:
    """Where flows are orchestrated. Raises UserError if that server does not answer."""
    if not (url := os.environ.get("PREFECT_API_URL")):
        return "each command starts one of its own"
    from flows.orchestration.prefect_address import check_address

    return f"{check_address(url)} answers"


def _mlflow() -> str:
    """Where runs are recorded. Raises UserError if that store cannot be used."""
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        return "SQLite in each workspace"
    from data_catalog.redaction import redact_credentials
    from flows.tracking.store import check_given_store, tracking_uri

    with TemporaryDirectory() as workspace:  # MLflow's client locks a file in it
        uri = redact_credentials(tracking_uri(Path(workspace)))
        check_given_store(Path(workspace))
    return f"{uri} answers"


def _webhook() -> str:
    """Where notices of failures go. Raises UserError if they can go nowhere."""
    from flows.orchestration.webhook import check_webhook

    try:
        return check_webhook()
    except ValueError as error:
        raise UserError(str(error)) from error


def _print(facts: dict[str, str], problems: list[str], *, as_json: bool) -> None:
    if as_json:
        print_data(json.dumps({**facts, "problems": problems}, indent=2))
        return
    table = TextTable()
    for name, value in facts.items():
        table.add_row(name, value)
    console.print(table)
    if not problems:
        console.print("\nnothing is broken")
