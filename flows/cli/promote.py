"""`tld promote`: a run's model becomes the champion in MLflow by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from data_catalog.scores import NO_INTERVAL
from flows.cli.groups import Config, Overrides
from flows.terminal.console import console, load, location_of, quote_overrides
from flows.terminal.errors import UserError
from flows.terminal.text_table import TextTable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flows.tracking.registry import Registered


def promote(
    config: Config,
    *overrides: Overrides,
    alias: Annotated[
        str, Parameter(help="Alias to give the model in MLflow's registry.")
    ] = "champion",
) -> None:
    """Register the trained and evaluated model of this run in MLflow and make it the champion,
    whatever the current champion scores.

    NAME being the name of the run, the model is models:/NAME@champion from then on, both for tld
    sample --model and for mlflow.pyfunc.load_model.

    Example: tld promote tiny --alias staging
    """
    from pipeline.stages.freshness import stage_statuses
    from pipeline.stages.run_inputs import RunInputs

    settings = load(config, overrides)
    statuses = stage_statuses(RunInputs(settings))
    encodings, model, report = (
        statuses[stage].manifest for stage in ("encode", settings.model_stage, "evaluate")
    )
    if not encodings or not model or not report:
        raise UserError(
            f"no model has been trained and evaluated with these settings in "
            f"{location_of(settings)}. Run:\n  tld run {quote_overrides(config, overrides)}"
        )
    from flows.tracking.logged_model import registered_name
    from flows.tracking.registry import (
        Candidate,
        champion,
        mark_decided,
        register,
        set_champion,
    )
    from flows.tracking.store import NEEDS_NEWER_SERVER, explained, open_store

    store = open_store(settings)
    if not store.keeps_models:
        raise UserError(f"cannot register a model: {NEEDS_NEWER_SERVER}; upgrade it")
    client = store.client
    with explained(settings.folder):
        before = champion(client, registered_name(settings), alias)
        registered = register(
            client, store.experiment_id, Candidate(settings, encodings, model, report)
        )
        mark_decided(client, registered)
        if before and before.version == registered.version:
            console.print(
                f"models:/{registered.name}@{alias} is version {registered.version} already"
            )
            return
        set_champion(client, registered, alias)
    console.print(_table([*([before] if before else []), registered], alias))
    console.print(f"\nmodels:/{registered.name}@{alias} is version {registered.version} now")


def _table(versions: Sequence[Registered], alias: str) -> TextTable:
    """The scores of the version that had the alias before, if one had it, and of the one that has
    it now."""
    table = TextTable("")
    for index, version in enumerate(versions):
        table.add_column(
            f"version {version.version}{'' if index == len(versions) - 1 else f', {alias} before'}"
        )
    for name in versions[-1].scores:
        table.add_row(name, *(_cell(version.scores.get(name, ())) for version in versions))
    return table


def _cell(score: Sequence[float]) -> str:
    """A value with the ends of its interval, or alone, or nothing."""
    if len(score) == 1:
        return f"{score[0]:.4g}  ({NO_INTERVAL})"
    return "{:.4g}  ({:.3g} to {:.3g})".format(*score) if score else ""
