"""The stage graph (DAG): the four stages, their versions and their parents."""

from __future__ import annotations

from dataclasses import dataclass

from data_catalog.storage.workspace import StageName


@dataclass(frozen=True, slots=True)
class StageSpec:
    """One stage of the DAG."""

    name: StageName
    version: int  # raised by hand when a change of the code changes the meaning of the output
    parents: tuple[str, ...]
    makes: str


STAGES: dict[str, StageSpec] = {
    spec.name: spec
    for spec in (
        StageSpec("download", 1, (), "images"),
        StageSpec("encode", 1, ("download",), "encodings"),
        StageSpec("train", 1, ("encode",), "model"),
        StageSpec("evaluate", 5, ("encode", "train"), "report"),
    )
}
