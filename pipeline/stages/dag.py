"""The stage graph (DAG): the stages, their versions and their parents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from data_catalog.storage.workspace import StageName
from pipeline.config.run import RunConfig

Made = TypeVar("Made")


@dataclass(frozen=True, slots=True)
class StageSpec:
    """One stage of the DAG."""

    name: StageName
    version: int  # raised by hand when a change of the code changes the meaning of the output
    parents: tuple[StageName, ...]
    makes: str


# In an order in which parents come first.
STAGES: dict[str, StageSpec] = {
    spec.name: spec
    for spec in (
        StageSpec("download", 1, (), "images"),
        StageSpec("encode", 1, ("download",), "encodings"),
        StageSpec("train", 1, ("encode",), "model"),
        StageSpec("distill", 1, ("encode", "train"), "model"),
        StageSpec("evaluate", 5, ("encode", "train"), "report"),
    )
}


def stages_of_phase(config: RunConfig) -> dict[str, StageSpec]:
    """The stages of every phase of a run. In a later one train has the parent train: the model of
    the phase before."""
    specs = [STAGES["download"], STAGES["encode"], STAGES["train"]]
    if config.before:
        specs[-1] = replace(specs[-1], parents=("encode", "train"))
    return {spec.name: spec for spec in specs}


def stages_of(config: RunConfig) -> dict[str, StageSpec]:
    """The stages of a run without phases, or of its last phase, in the order in which they run. The
    optional stage distill is the last, unless the evaluation is that of its model."""
    first, evaluate = stages_of_phase(config).values(), STAGES["evaluate"]
    if config.distill is None:
        specs = [*first, evaluate]
    elif config.evaluate.model == "trained":
        specs = [*first, evaluate, STAGES["distill"]]
    else:
        specs = [*first, STAGES["distill"], replace(evaluate, parents=("encode", "distill"))]
    return {spec.name: spec for spec in specs}


def parents_among(
    spec: StageSpec, outputs: Mapping[str, Made], before: Mapping[str, Made]
) -> dict[str, Made]:
    """The parents of a stage among the outputs of its phase and of the phase before. A stage has a
    parent of its own name only from there."""
    return {name: (before if name == spec.name else outputs)[name] for name in spec.parents}
