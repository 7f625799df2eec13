"""`tld deploy`: a run as deployments on a Prefect server, with workers and schedules."""

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
_PATHS = (
    ("download", "urls"),
    ("encode", "vae"),
    ("encode", "clip"),
    ("encode", "text_encoder"),
    ("train", "init_from"),
    ("train", "continue_from"),
)
_CLOSED = (
    "  export PREFECT_SERVER_API_AUTH_STRING=tld:PASSWORD "
    "PREFECT_SERVER_CSRF_PROTECTION_ENABLED=true\n"
    "  export PREFECT_SERVER_CORS_ALLOWED_ORIGINS=http://127.0.0.1:4200"
)
_Pool = Annotated[
    str, Parameter(help="Work pool whose workers execute the runs; created if there is none.")
]
_PoolType = Annotated[
    Literal["process", "docker"],
    Parameter(help="Type of a new pool: processes on the worker's machine, or Docker containers."),
]
_Cron = Annotated[
    str | None,
    Parameter(
        help="Schedule of the whole run, as a cron expression in UTC, such as '0 1 * * *'. "
        "[default: no schedule]"
    ),
]
_Nightly = Annotated[
    str,
    Parameter(
        help="Schedule of the repeated evaluation of the trained model, as a cron expression in "
        "UTC."
    ),
]
_Gpus = Annotated[
    int,
    Parameter(help="How many encode, train and evaluate stages may run at once, over all runs."),
]


def deploy(
    config: Config,
    *overrides: Overrides,
    pool: _Pool = "tld",
    pool_type: _PoolType = "process",
    cron: _Cron = None,
    nightly: _Nightly = "0 3 * * *",
    gpus: _Gpus = 1,
) -> None:
    """Register this run with the Prefect server of PREFECT_API_URL: the whole run, each stage, and
    a nightly evaluation.

    Then start workers on the machines that do the work, and start runs here or on Prefect's page,
    with other settings if you like:

    prefect worker start --pool tld

    prefect deployment run text-to-image/tiny
    """
    settings = load(config, overrides)
    server = _server()
    problems = _problems(settings, gpus, {"--cron": cron, "--nightly": nightly})
    if problems:
        raise UserError("\n".join(problems))

    from prefect.client.orchestration import get_client

    from flows.orchestration.stage_task import GPU

    with errors.status("registering with Prefect …"):
        with get_client(sync_client=True) as client:
            _create_pool(client, pool, pool_type)
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


def _problems(settings: RunConfig, gpus: int, crons: dict[str, str | None]) -> list[str]:
    """All that keeps a run from being deployed."""
    problems = []
    if not 1 <= gpus <= _MOST_GPUS:
        problems.append(f"--gpus must be from 1 to {_MOST_GPUS}, got {gpus}")
    for option, cron in crons.items():
        problems += [f"{option}: {problem}" for problem in _cron_problems(cron)]
    names = [
        phase.setting(f"download.{name}")
        for phase in settings.chain
        for name in ("urls", "images", "captions")
        if (place := getattr(phase.download, name)) and holds_secret(place)
    ]
    return problems + [
        f"{name}: the URL contains a user, a password or a query, which a deployment would show to "
        "others; put secrets where fsspec looks for them on the workers (environment variables, or "
        "files in ~/.config/fsspec)"
        for name in names
    ]


def _server() -> str:
    """The address of the server, without a password. Raises UserError if it does not answer."""
    from flows.orchestration.prefect_address import check_address, is_open_to_all

    url = os.environ.get("PREFECT_API_URL")
    if not url:
        raise UserError(
            "deployments need a Prefect server that keeps running and asks for a password:\n"
            f"{_CLOSED}\nstart one with\n  prefect server start\nand set its address with\n"
            "  export PREFECT_API_URL=http://127.0.0.1:4200/api "
            "PREFECT_API_AUTH_STRING=tld:PASSWORD"
        )
    shown = check_address(url)
    if is_open_to_all(url):
        say(
            f"warning: {shown} asks for no password: a web page in a browser that reaches it can "
            f"make its workers run any command. Before you start the server:\n{_CLOSED}"
        )
    return shown


def _cron_problems(cron: str | None) -> list[str]:
    from prefect.client.schemas.schedules import CronSchedule

    try:
        if cron is not None:
            CronSchedule(cron=cron)
    except ValueError:
        return [
            f"{cron!r} is no schedule in cron's format: minute hour day month weekday, such as "
            "'0 3 * * *'"
        ]
    return []


def _create_pool(client: SyncPrefectClient, name: str, kind: str) -> None:
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectNotFound

    try:
        client.read_work_pool(name)
    except ObjectNotFound:
        client.create_work_pool(WorkPoolCreate(name=name, type=kind))


def _rooted(settings: RunConfig) -> dict[str, Any]:
    """The settings, with absolute paths, because a worker may start in any folder."""
    from data_catalog.shapes import dataset as shapes
    from data_catalog.storage.object_store import is_url
    from tld_model.encoders.names import SHIPPED_ENCODERS

    config, built_in = settings.model_dump(mode="json"), (shapes.NAME, *SHIPPED_ENCODERS)
    if not is_url(settings.root):
        config["root"] = str(settings.folder.resolve())
    if not config["cache"]["folder"].startswith("~"):  # ~ is the worker's own home
        config["cache"]["folder"] = str(settings.cache.folder.resolve())
    for settings_of_phase in (config, *config["phases"].values()):
        for section, name in _PATHS:
            value = settings_of_phase.get(section, {}).get(name)
            if (
                value
                and "://" not in value
                and value not in built_in
                and Path(value).expanduser().exists()
            ):
                settings_of_phase[section][name] = str(Path(value).expanduser().resolve())
    return config


def _deployments(
    config: dict[str, Any], pool: str, cron: str | None, nightly: str
) -> Sequence[RunnerDeployment]:
    from prefect.types.entrypoint import EntrypointType

    from flows.text_to_image import one_stage, text_to_image
    from pipeline.config.run import RunConfig
    from pipeline.stages.dag import stages_of

    name = config["name"]
    # The entry point is a module: tld is installed on the workers, so no code is sent.
    where: dict[str, Any] = {
        "work_pool_name": pool,
        "entrypoint_type": EntrypointType.MODULE_PATH,
        "tags": [name],
    }
    deployments: list[Any] = [
        text_to_image.to_deployment(name, parameters={"config": config}, cron=cron, **where)
    ]
    for stage in stages_of(RunConfig.model_validate(config)):
        parameters = {"config": config, "stage": stage}
        deployments.append(
            one_stage.to_deployment(f"{name}-{stage}", parameters=parameters, **where)
        )
    again = {"config": config, "stage": "evaluate", "force": True}
    return [
        *deployments,
        one_stage.to_deployment(f"{name}-nightly", parameters=again, cron=nightly, **where),
    ]


def _apply(deployment: RunnerDeployment) -> str:
    deployment.apply()
    return f"{deployment.flow_name}/{deployment.name}"
