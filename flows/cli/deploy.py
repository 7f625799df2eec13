"""`tld deploy`: the run as deployments of a Prefect server, for its workers, schedules and
forms."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from data_catalog.redaction import holds_secret
from flows.cli.groups import Config, Overrides
from flows.terminal.console import console, errors, load, say
from flows.terminal.errors import UserError

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.deployments.runner import RunnerDeployment

    from pipeline.config.run import RunConfig


_MOST_GPUS = 10_000
_CLOSED = (
    "  export PREFECT_SERVER_API_AUTH_STRING=tld:PASSWORD "
    "PREFECT_SERVER_CSRF_PROTECTION_ENABLED=true\n"
    "  export PREFECT_SERVER_CORS_ALLOWED_ORIGINS=http://127.0.0.1:4200"
)


def deploy(
    config: Config,
    *overrides: Overrides,
    pool: Annotated[
        str, Parameter(help="Work pool whose workers do it; made where there is none.")
    ] = "tld",
    pool_type: Annotated[
        Literal["process", "docker"],
        Parameter(help="Of a new pool: processes of the worker's machine, or containers."),
    ] = "process",
    cron: Annotated[
        str | None, Parameter(help="When the whole run starts by itself, in UTC: '0 1 * * *'.")
    ] = None,
    nightly: Annotated[
        str, Parameter(help="When the trained model is evaluated again, in UTC.")
    ] = "0 3 * * *",
    gpus: Annotated[
        int,
        Parameter(
            help="How many of the stages encode, train and evaluate may run at once, over all runs."
        ),
    ] = 1,
) -> None:
    """Register this run with the Prefect server of PREFECT_API_URL: all of it, each stage, an
    evaluation every night.

    Then start workers where the work shall be done, and runs from Prefect's page, with other
    settings where you like: prefect worker start --pool tld prefect deployment run
    text-to-image/tiny
    """
    settings = load(config, overrides)
    server = _server()
    problems = (
        [f"--gpus must be from 1 to {_MOST_GPUS}, got {gpus}"]
        if not 1 <= gpus <= _MOST_GPUS
        else []
    )
    for option, given in (("--cron", cron), ("--nightly", nightly)):
        problems += [f"{option}: {problem}" for problem in _bad(given)]
    if holds_secret(settings.download.urls):
        problems.append(
            "download.urls: the URL holds a user, a password or a query, which a deployment would "
            "show to others; put "
            "secrets where fsspec looks for them on the workers (environment variables, or files "
            "in ~/.config/fsspec)"
        )
    if problems:
        raise UserError("\n".join(problems))

    from prefect.client.orchestration import get_client

    from flows.text_to_image import GPU

    with errors.status("talking to Prefect …"):
        with get_client(sync_client=True) as client:
            _make_pool(client, pool, pool_type)
            client.create_concurrency_limit(tag=GPU, concurrency_limit=gpus)
        names = [
            _apply(deployment)
            for deployment in _deployments(_rooted(settings), pool, cron, nightly)
        ]
    console.print(
        "\n".join(f"  {name}" for name in names)
        + f"\nregistered with {server}\n\nStart a worker, then a run:\n"
        f"  prefect worker start --pool {pool}\n  prefect deployment run {names[0]}",
    )


def _server() -> str:
    """The address of the server, which answers, without a password. Raises UserError."""
    from flows.orchestration.prefect_address import check_address, is_open_to_all

    url = os.environ.get("PREFECT_API_URL")
    if not url:
        raise UserError(
            "deployments need a Prefect server that stays, and that asks for a password:\n"
            f"{_CLOSED}\nstart one with\n  prefect server start\nand say where it is with\n"
            "  export PREFECT_API_URL=http://127.0.0.1:4200/api "
            "PREFECT_API_AUTH_STRING=tld:PASSWORD"
        )
    shown = check_address(url)
    if is_open_to_all(url):
        say(
            f"warning: {shown} asks for no password: a web page in a browser that reaches it can "
            "have its workers "
            f"run any command. Before you start the server:\n{_CLOSED}"
        )
    return shown


def _bad(cron: str | None) -> list[str]:
    from prefect.client.schemas.schedules import CronSchedule

    try:
        if cron is not None:
            CronSchedule(cron=cron)
    except ValueError:
        return [
            f"{cron!r} is no schedule in cron's format: minute hour day month weekday, as '0 3 * * "
            "*'"
        ]
    return []


def _make_pool(client: SyncPrefectClient, name: str, kind: str) -> None:
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectNotFound

    try:
        client.read_work_pool(name)
    except ObjectNotFound:
        client.create_work_pool(WorkPoolCreate(name=name, type=kind))


def _rooted(settings: RunConfig) -> dict[str, Any]:
    """The settings with paths that mean the same in whatever folder a worker starts."""
    from data_catalog.shapes import dataset as shapes
    from data_catalog.storage.object_store import is_url
    from tld_model.encoders.names import SHIPPED_ENCODERS

    told, built_in = settings.model_dump(mode="json"), (shapes.NAME, *SHIPPED_ENCODERS)
    if not is_url(settings.root):
        told["root"] = str(settings.folder.resolve())
    if not told["cache"]["folder"].startswith("~"):  # the worker's own home
        told["cache"]["folder"] = str(settings.cache.folder.resolve())
    for section, name in (
        ("download", "urls"),
        ("encode", "vae"),
        ("encode", "clip"),
        ("train", "init_from"),
    ):
        value = told[section][name]
        if (
            value
            and "://" not in value
            and value not in built_in
            and Path(value).expanduser().exists()
        ):
            told[section][name] = str(Path(value).expanduser().resolve())
    return told


def _deployments(
    config: dict[str, Any], pool: str, cron: str | None, nightly: str
) -> Sequence[RunnerDeployment]:
    from prefect.types.entrypoint import EntrypointType

    from flows.text_to_image import one_stage, text_to_image
    from pipeline.stages.dag import STAGES

    name = config["name"]
    # A module of the worker's environment: the project is installed there, no code is sent.
    where: dict[str, Any] = {
        "work_pool_name": pool,
        "entrypoint_type": EntrypointType.MODULE_PATH,
        "tags": [name],
    }
    made: list[Any] = [
        text_to_image.to_deployment(name, parameters={"config": config}, cron=cron, **where)
    ]
    for stage in STAGES:
        parameters = {"config": config, "stage": stage}
        made.append(one_stage.to_deployment(f"{name}-{stage}", parameters=parameters, **where))
    again = {"config": config, "stage": "evaluate", "force": True}
    return [
        *made,
        one_stage.to_deployment(f"{name}-nightly", parameters=again, cron=nightly, **where),
    ]


def _apply(deployment: RunnerDeployment) -> str:
    deployment.apply()
    return f"{deployment.flow_name}/{deployment.name}"
