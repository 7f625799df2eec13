"""Stage 3 as processes of its own: `train` starts them and follows what they tell; train_rank.py is one of them.

Knows the job and the files, nothing of steps.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from data_catalog.manifest import Manifest, Shard, digest_of, file_digest, file_records, write_atomically
from pipeline.checkpoints import checkpoints
from pipeline.child import ChildFailed, Event, run_child
from pipeline.config import TrainConfig
from pipeline.devices import DETERMINISTIC_ENVIRONMENT
from pipeline.locks import held
from pipeline.ranks import rank_environment
from pipeline.stage import Output, StageFailed, Tracker
from pipeline.train_events import EVENTS_FILE, average_file, set_events_aside
from tld_model.config import DenoiserConfig

_LEAST_FREE_BYTES = 1 << 20
_PATIENCE_S = 60.0  # with processes that an earlier, killed parent left: they watch for its end


class ModelMismatch(ValueError):
    """Encodings whose shape does not fit the model."""


class TrainJob(BaseModel):
    """What the processes are asked to do."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    encodings: Path
    out: Path
    config: TrainConfig
    model: DenoiserConfig
    parent: int

    @property
    def rendezvous(self) -> Path:
        """Through which the processes meet."""
        return self.out / ".rendezvous"


def train(encodings: Manifest, config: TrainConfig, model: DenoiserConfig, out: Path, track: Tracker) -> Output:
    """Train a denoiser in child processes, or resume where one was stopped."""
    check_fit(encodings, model)
    job = TrainJob(encodings=encodings.folder, out=out, config=config, model=model, parent=os.getpid())
    told: dict[str, Any] = {}

    def on_event(event: Event) -> None:
        match event["kind"]:
            case "metrics":
                track.metrics(event["values"], event["step"])
            case "artifact":
                track.artifact(out / event["path"], event["folder"])
            case "progress":
                track.progress(event["done"], event["total"], event["note"])
            case "warning":
                track.warning(event["text"])
            case "failed" | "result":
                told[event["kind"]] = event["values"]

    try:
        with held(out / "train.lock", _PATIENCE_S) as lock:
            _run(job, on_event, lock)
    except ChildFailed as error:
        why = told.get("failed") or _how_to_go_on(error, out)
        raise StageFailed(f"train: the training process failed; {why}") from error
    paths = [out / average_file(number) for number in range(len(config.ema_decay))]
    digests = [file_digest(path) for path in paths]
    digest = digests[0] if len(digests) == 1 else digest_of(digests)
    figures = told["result"]
    shard = Shard(name="denoiser", rows=figures["train_pairs"], digest=digest, files=file_records(paths))
    return Output((shard,), figures)


def _run(job: TrainJob, on_event: Callable[[Event], None], lock: int) -> None:
    job_file = job.out / "job.json"
    write_atomically(job_file, job.model_dump_json(indent=2))
    set_events_aside(job.out)
    job.rendezvous.unlink(missing_ok=True)
    common = DETERMINISTIC_ENVIRONMENT if job.config.deterministic else {}
    ranks = [{**common, **rank_environment(rank, job.config.processes)} for rank in range(job.config.processes)]
    events, log = job.out / EVENTS_FILE, job.out / "train.log"
    run_child("pipeline.train_rank", [str(job_file)], events, log, on_event, lock, ranks)


def _how_to_go_on(error: ChildFailed, out: Path) -> str:
    kept = checkpoints(out / "checkpoints")
    full = shutil.disk_usage(out).free < _LEAST_FREE_BYTES
    return (
        f"{error}\n"
        + (f"The disk of {out} is full: make room there. " if full else "")
        + (
            f"The checkpoint {kept[-1].name} is kept: the same command goes on from it."
            if kept
            else "No checkpoint was written yet: the same command starts again."
        )
    )


def check_fit(encodings: Manifest, model: DenoiserConfig) -> None:
    """Raise ModelMismatch where the encodings are not what the model takes."""
    channels, height, width = encodings.figures["latent_shape"]
    by_token = model.text == "tokens"
    if by_token and "token_dim" not in encodings.figures:
        raise ModelMismatch("model.text is tokens, and the encodings hold pooled text alone: set encode.text=tokens")
    wanted = {
        "latent_channels": (model.latent_channels, channels),
        "latent_size": (model.latent_size, height),
        "text_dim": (model.text_dim, encodings.figures["token_dim" if by_token else "text_dim"]),
    }
    problems = [
        f"  model.{name} is {have}, the encodings have {found}: set model.{name}={found}"
        for name, (have, found) in wanted.items()
        if have != found
    ]
    if height != width:
        problems.append(f"  latents are {height}x{width}; the model takes square ones")
    if problems:
        raise ModelMismatch("the model does not fit the encodings:\n" + "\n".join(problems))
