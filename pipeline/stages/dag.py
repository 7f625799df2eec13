"""The stage graph (DAG): the stages, their versions and their parents."""

from __future__ import annotations

from dataclasses import dataclass, replace

from data_catalog.storage.workspace import StageName
from pipeline.config.run import RunConfig


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


def stages_of(config: RunConfig) -> dict[str, StageSpec]:
    """The stages of a run, in the order in which they run. The optional stage distill is the last,
    unless the evaluation is that of its model."""
    first, evaluate = [STAGES[name] for name in ("download", "encode", "train")], STAGES["evaluate"]
    if config.distill is None:
        specs = [*first, evaluate]
    elif config.evaluate.model == "trained":
        specs = [*first, evaluate, STAGES["distill"]]
    else:
        specs = [*first, STAGES["distill"], replace(evaluate, parents=("encode", "distill"))]
    return {spec.name: spec for spec in specs}
