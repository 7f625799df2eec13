"""The stage graph (DAG): the stages, their versions and their parents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from data_catalog.storage.workspace import StageName
from pipeline.config.mix import mixed_phases
from pipeline.config.run import RunConfig

Made = TypeVar("Made")


@dataclass(frozen=True, slots=True)
class StageSpec:
    """One stage of the DAG."""

    name: StageName
    version: int  # raised by hand when a change of the code changes the meaning of the output
    parents: tuple[str, ...]
    """Stages of its phase, or of the phase before if it is its own name. With the name of a phase,
    as in "encode first", of that one."""
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
    the phase before. The encodings of other phases in its mix are parents too."""
    specs = [STAGES["download"], STAGES["encode"], STAGES["train"]]
    if config.before:
        parents = dict.fromkeys(("encode", *mixed_parents(config).values(), "train"))
        specs[-1] = replace(specs[-1], parents=tuple(parents))
    return {spec.name: spec for spec in specs}


def mixed_parents(config: RunConfig) -> dict[str, str]:
    """The phases of train.mix, first to last, and the parent of train that is the encodings of
    each."""
    own = str(config.phase)
    return {name: "encode" if name == own else f"encode {name}" for name in mixed_phases(config)}


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
    spec: StageSpec, outputs: Mapping[str, Made], earlier: Mapping[str, Mapping[str, Made]]
) -> dict[str, Made]:
    """The parents of a stage among the outputs of its phase and of the earlier ones, which are
    first to last by their names. Raises KeyError if one is missing."""
    parents = {}
    for name in spec.parents:
        stage, _, phase = name.partition(" ")
        if phase:
            parents[name] = earlier[phase][stage]
        elif stage == spec.name:
            parents[name] = [*earlier.values()][-1][stage]
        else:
            parents[name] = outputs[stage]
    return parents
