"""The stage graph (DAG): the four stages, their parents, and settings that only change speed."""

from __future__ import annotations

from dataclasses import dataclass

from data_catalog.storage.workspace import StageName


@dataclass(frozen=True, slots=True)
class StageSpec:
    """One stage of the DAG."""

    name: StageName
    version: int  # raised by hand when a change of the code changes the meaning of the output
    parents: tuple[str, ...]
    speed_only: frozenset[str]  # settings of its section that cannot change its output
    makes: str


_SPEED_ONLY_IN_DOWNLOAD = frozenset(
    {
        "source",
        "urls",
        "workers",
        "threads",
        "min_success_rate",
        "requests_per_host",
        "host_requests_per_s",
        "shard_deadline_s",
    }
)
_SPEED_ONLY_IN_TRAINING = frozenset(
    {
        *("device", "compile", "deterministic", "launch", "sharding", "accumulate"),
        *("checkpoint_every", "validate_every", "sample_every", "log_every"),
    }
)
_SPEED_ONLY_IN_ENCODING = frozenset({"device", "batch_size", "workers", "keep_images"})
STAGES: dict[str, StageSpec] = {
    spec.name: spec
    for spec in (
        StageSpec("download", 1, (), _SPEED_ONLY_IN_DOWNLOAD, "images"),
        StageSpec("encode", 1, ("download",), _SPEED_ONLY_IN_ENCODING, "encodings"),
        StageSpec("train", 1, ("encode",), _SPEED_ONLY_IN_TRAINING, "model"),
        StageSpec(
            "evaluate",
            3,
            ("encode", "train"),
            frozenset({"device", "batch_size", "price_per_hour"}),
            "report",
        ),
    )
}
