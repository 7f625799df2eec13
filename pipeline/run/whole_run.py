"""A whole run in this process, without Prefect and MLflow: its checks, its stages, its events."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path

from data_catalog.storage.manifest import Manifest
from data_catalog.storage.workspace import StageName
from pipeline.compute.resource_limits import raise_descriptor_limit
from pipeline.config.run import RunConfig
from pipeline.config.section import ConfigError
from pipeline.preflight.check import check_run
from pipeline.run.stage_events import EventSender, EventTracker, OnEvent, StageEvent
from pipeline.run.stage_order import run_in_order
from pipeline.run.stage_work import RunJob, do_stage
from pipeline.run.train_nodes import lead_or_join
from pipeline.stages.freshness import EVALUATE_DISTILLED, statuses_until
from pipeline.stages.run_inputs import RunInputs


def make_outputs(
    config: RunConfig, until: StageName | None, force: Collection[StageName], on_event: OnEvent
) -> dict[str, Manifest]:
    """Check a run, then make its outputs up to `until`, and return them by the names that
    `run_in_order` gives them. A machine that joins the training of another one returns none.

    Raises:
        ConfigError: the run cannot succeed, or has no such stage; the message lists all problems.
        StageFailed: a stage could not finish.
    """
    inputs, send = RunInputs(config), EventSender(on_event)
    _refuse_unknown(inputs, {"until": [until] if until else [], "force": force})
    check_run(config)
    raise_descriptor_limit()

    def lead() -> dict[str, Manifest]:
        return run_in_order(inputs, until, partial(_make_output, inputs, frozenset(force), send))

    if not force and all(status.state == "fresh" for status in statuses_until(inputs, until)):
        return lead()  # which needs no other machines
    return lead_or_join(config, lead, EventTracker("train", send).note) or {}


def _make_output(
    run: RunInputs,
    force: frozenset[StageName],
    send: OnEvent,
    phase: RunInputs,
    stage: StageName,
    parents: Mapping[str, Manifest],
) -> Manifest:
    if phase is run:
        name: str = stage
    else:  # only the last phase is evaluated, and the distilled model apart from it
        name = EVALUATE_DISTILLED if stage == "evaluate" else f"{stage} {phase.config.phase}"
    folders: list[Path] = []

    def begin(folder: Path) -> None:
        folders.append(folder)
        send(StageEvent(name, "started", path=folder))

    output = do_stage(RunJob(phase, force), stage, parents, EventTracker(name, send), begin)
    if folders:
        text = f"{output.rows} rows in {output.seconds:.0f} s"
        send(StageEvent(name, "finished", text, output.folder))
    else:
        send(StageEvent(name, "fresh", path=output.folder))
    return output


def _refuse_unknown(run: RunInputs, stages: Mapping[str, Collection[str]]) -> None:
    """Raise ConfigError for stages that the run does not have, by the argument that names them."""
    problems = [
        f"{argument}: this run has no stage {stage!r}; it has {', '.join(run.stages)}"
        + ("; distill.sample_steps=4 adds it" if stage == "distill" else "")
        for argument, named in stages.items()
        for stage in named
        if stage not in run.stages
    ]
    if problems:
        raise ConfigError("\n".join(problems))
