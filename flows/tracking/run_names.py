"""Names of runs that say in what settings they differ from others of their name."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

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
_LONGEST = 60  # characters of a setting
# In the order of the stages; each stage depends on its own section and those before it.
_SECTIONS = ("phase", "download", "encode", "model", "train", "distill", "evaluate")


def differing_settings(config: RunConfig, store: Store) -> dict[str, str]:
    """The settings that make a run different from the shipped config of its name or, if there is
    none, from the first run in its experiment. Those that it has in common with all earlier runs of
    other settings do not count."""
    defaults = default_settings()
    earlier = [defaults | settings for settings in _earlier_runs(store)]
    if shipped := shipped_configs().get(config.name):
        base = defaults | typed_settings(load_config(shipped))
    elif earlier:
        base = earlier[0]
    else:
        return {}
    others = [settings for settings in earlier if overrides_between(settings, config)]
    return {
        name: value
        for name, value in overrides_between(base, config).items()
        if not others or any(settings.get(name) != value for settings in others)
    }


def settings_until(stage: StageName, settings: Mapping[str, str]) -> dict[str, str]:
    """Those of the settings on which a stage may depend."""
    sections = _SECTIONS[: _SECTIONS.index(stage) + 1]
    return {name: value for name, value in settings.items() if _section(name) in sections}


def run_title(name: str, settings: Mapping[str, str]) -> str:
    """A name followed by the first of the settings that differ."""
    if not settings:
        return name
    typed = [f"{setting}={value}" for setting, value in settings.items()]
    shown = [one if len(one) <= _LONGEST else f"{one[:_LONGEST]}…" for one in typed]
    more = f" and {len(shown) - _MOST_SETTINGS} more" if len(shown) > _MOST_SETTINGS else ""
    return f"{name} · {' '.join(shown[:_MOST_SETTINGS])}{more}"


def newest_run(client: MlflowClient, experiment_id: str, config: RunConfig) -> str | None:
    """The id of the newest run with the settings of this one, if there is one."""
    query, defaults = "tags.`tld.stage` = 'pipeline'", default_settings()
    for run in client.search_runs([experiment_id], query, max_results=_MOST_RUNS):
        if run.data.params and not overrides_between(defaults | run.data.params, config):
            return str(run.info.run_id)
    return None


def _earlier_runs(store: Store) -> list[dict[str, str]]:
    """The settings of the runs in the experiment that recorded them, first to last; [] if MLflow
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
    parts = setting.split(".")
    return parts[2] if parts[0] == "phases" else parts[0]
