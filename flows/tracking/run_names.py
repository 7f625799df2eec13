"""Names of runs that say in what settings they differ from others of their name."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from requests import RequestException
from sqlalchemy.exc import SQLAlchemyError

from data_catalog.storage.workspace import StageName
from flows.tracking.store import Store
from pipeline.config.config_file import shipped_configs
from pipeline.config.load import load_config
from pipeline.config.run import RunConfig
from pipeline.config.typed_settings import default_settings, overrides_between, typed_settings

_MOST_RUNS = 200  # that are compared
_MOST_SETTINGS = 3
_LONGEST_SETTING = 60
# In the order of the stages; each stage depends on its own section and those before it.
_SECTIONS = ("phase", "download", "encode", "model", "train", "distill", "evaluate")


def differing_settings(config: RunConfig, store: Store) -> list[str]:
    """The settings that make a run different from the shipped config of its name or, if there is
    none, from the first run in its experiment, as they are typed. Those that all earlier runs have
    in common with it do not count."""
    defaults = default_settings()
    earlier = [defaults | settings for settings in _earlier_runs(store)]
    if config.name in shipped_configs():
        base = defaults | typed_settings(load_config(Path(config.name)))
    elif earlier:
        base = earlier[0]
    else:
        return []
    return [
        f"{name}={value}"
        for name, value in overrides_between(base, config).items()
        if not earlier or any(settings.get(name) != value for settings in earlier)
    ]


def run_title(name: str, settings: Iterable[str], stage: StageName | None = None) -> str:
    """A name followed by the first of the settings that differ; for a stage, by those on which it
    may depend."""
    listed = [
        setting if len(setting) <= _LONGEST_SETTING else f"{setting[:_LONGEST_SETTING]}…"
        for setting in settings
        if stage is None or _section(setting) in _sections_until(stage)
    ]
    if not listed:
        return name
    more = len(listed) - _MOST_SETTINGS
    shown = " ".join(listed[:_MOST_SETTINGS])
    return f"{name} · {shown}{f' and {more} more' if more > 0 else ''}"


def newest_run(client: MlflowClient, experiment_id: str, config: RunConfig) -> str | None:
    """The id of the newest run with the settings of this one, if there is one."""
    query, defaults = "tags.`tld.stage` = 'pipeline'", default_settings()
    for run in client.search_runs([experiment_id], query, max_results=_MOST_RUNS):
        if run.data.params and not overrides_between(defaults | run.data.params, config):
            return str(run.info.run_id)
    return None


def _earlier_runs(store: Store) -> list[dict[str, str]]:
    """The settings of the runs in the experiment that recorded them, first to last. None if MLflow
    does not answer."""
    query = "tags.`tld.stage` = 'pipeline' AND params.`train.steps` != ''"
    order = ["attributes.start_time ASC"]
    with contextlib.suppress(MlflowException, SQLAlchemyError, RequestException):
        runs = store.client.search_runs(
            [store.experiment_id], query, max_results=_MOST_RUNS, order_by=order
        )
        return [run.data.params for run in runs]
    return []


def _section(setting: str) -> str:
    parts = setting.partition("=")[0].split(".")
    return parts[2] if parts[0] == "phases" else parts[0]


def _sections_until(stage: StageName) -> tuple[str, ...]:
    return _SECTIONS[: _SECTIONS.index(stage) + 1]
