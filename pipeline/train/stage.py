"""Stage 3 as processes of its own: `train` starts them and follows what they tell; worker.py is one
of them.

Where several machines train together, one of them does so, and `join_training` starts the processes
of another: these write nothing but their logs. Knows the job and the files, nothing of steps.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from data_catalog.model_files import EVENTS_FILE, average_file
from data_catalog.storage.digests import digest_of, file_digest, file_records
from data_catalog.storage.file_lock import LockTimeout, file_lock
from data_catalog.storage.files import write_atomically
from data_catalog.storage.manifest import Manifest
from data_catalog.storage.receipts import MANIFEST_NAME, Shard
from pipeline.compute.child_processes import ChildFailed, Event, run_processes, tail_events
from pipeline.compute.devices import DETERMINISTIC_ENVIRONMENT, choose_device
from pipeline.compute.ranks import rank_environments
from pipeline.compute.rendezvous import (
    Nodes,
    NodesApart,
    Rendezvous,
    how_it_failed,
    node_group,
    rendezvous_of,
)
from pipeline.config.run import RunConfig
from pipeline.config.section import ConfigError
from pipeline.config.train import TrainConfig
from pipeline.dataset.split import split_pairs
from pipeline.stages.contract import Output, StageFailed, Tracker
from pipeline.stages.freshness import stage_statuses
from pipeline.stages.integrity import refuse_damaged_shards
from pipeline.train.checkpoints import checkpoints
from pipeline.train.events import set_events_aside
from pipeline.train.job import JOB_FILE, TrainJob
from tld_model.config import DenoiserConfig

_LEAST_FREE_BYTES = 1 << 20
_TIMEOUT_S = 60.0  # with processes that an earlier, killed parent left: they watch for its end
_DISK_TIMEOUT_S = 60.0  # until a shared disk shows what another machine wrote


class ModelMismatch(ValueError):
    """Encodings whose shape does not fit the model."""

    exit_code = 2


def train(
    encodings: Manifest, config: TrainConfig, model: DenoiserConfig, out: Path, track: Tracker
) -> Output:
    """Train a denoiser in child processes, or resume where one was stopped. With several nodes this
    is the one that leads; the others train along (join_training)."""
    check_fit(encodings, model)
    refuse_damaged_shards(encodings, track)
    split_pairs(
        encodings, config.held_out_fraction
    )  # says here, not in a traceback, what cannot be split
    job = TrainJob(
        encodings=encodings.folder.absolute(),
        out=out.absolute(),
        config=config,
        model=model,
        device=choose_device(config.device),
    )
    outcome: dict[str, Any] = {}

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
                outcome[event["kind"]] = event["values"]

    try:
        with (
            file_lock(out / "train.lock", _TIMEOUT_S) as lock,
            rendezvous_of(config.launch) as meeting,
            node_group(config.launch, meeting, leads=True) as nodes,
        ):
            _lead(job, nodes, on_event, track, lock)
    except LockTimeout as error:
        raise StageFailed(f"train: {error}") from None
    except (ChildFailed, NodesApart) as error:
        why = outcome.get("failed") or _how_to_go_on(error, out)
        raise StageFailed(f"train: the training process failed; {why}") from error
    paths = [out / average_file(number) for number in range(len(config.ema_decay))]
    digests = [file_digest(path) for path in paths]
    digest = digests[0] if len(digests) == 1 else digest_of(digests)
    figures = outcome["result"]
    shard = Shard(
        name="denoiser", rows=figures["train_pairs"], digest=digest, files=file_records(paths)
    )
    return Output((shard,), figures)


def _lead(
    job: TrainJob, nodes: Nodes, on_event: Callable[[Event], None], track: Tracker, lock: int
) -> None:
    job_file = job.out / JOB_FILE
    write_atomically(job_file, job.model_dump_json(indent=2))
    set_events_aside(job.out)

    def waiting(missing: int) -> None:
        track.progress(
            0, job.config.steps, f"waits for {missing} more of {nodes.launch.nodes} nodes"
        )

    nodes.share(str(job_file), waiting)
    with tail_events(job.out / EVENTS_FILE, on_event) as forward:

        def on_poll() -> str:
            forward()
            return nodes.lost()

        _run_ranks(job, nodes, on_poll, [lock])


def _run_ranks(
    job: TrainJob, nodes: Nodes, on_poll: Callable[[], str], locks: Sequence[int] = ()
) -> None:
    """This node's processes, to their end. Raises ChildFailed, which also tells what became of
    other nodes."""
    common = DETERMINISTIC_ENVIRONMENT if job.config.deterministic else {}
    environments = {
        rank: {**common, **names}
        for rank, names in rank_environments(job.config.launch, nodes.number, nodes.meeting).items()
    }
    arguments, log = [str(job.out / JOB_FILE), str(os.getpid())], job.out / "train.log"
    try:
        run_processes(
            "pipeline.train.worker",
            arguments,
            log,
            environments,
            job.config.launch.ranks,
            on_poll,
            locks,
        )
    except ChildFailed as error:
        others = nodes.end(how_it_failed(error))
        if not others or others == str(error):
            raise
        raise ChildFailed(f"{others}\nHere {error}") from error


def join_training(config: RunConfig, meeting: Rendezvous, say: Callable[[str], None]) -> None:
    """Take part in the training of the node that leads, from another one, until its manifest is
    there. Returns too where the model became fresh without a training. Raises StageFailed,
    ConfigError, DeviceError."""
    launch = config.train.launch
    try:
        with node_group(launch, meeting, leads=False) as nodes:
            say(
                f"node {nodes.number + 1} of {launch.nodes}; the one at {meeting} leads and reports"
            )
            try:
                job_file = Path(nodes.job())
            except NodesApart:
                if stage_statuses(config)["train"].state == "fresh":
                    return
                raise
            job = _job_of_the_leader(job_file, config)
            say(f"trains along: {job.out}")
            nodes.ready()
            _run_ranks(job, nodes, nodes.lost)
    except ChildFailed as error:
        raise StageFailed(f"train: the training failed; {_how_to_go_on(error, job.out)}") from error
    except NodesApart as error:
        raise StageFailed(f"train: {error}") from error
    if not _appears(job.out / MANIFEST_NAME):
        raise StageFailed(
            f"train: the training ended, but the node at {meeting} wrote no manifest; see what it "
            "says"
        )


def _job_of_the_leader(job_file: Path, config: RunConfig) -> TrainJob:
    """What the leading node wants done, which must be what this one was told. Raises
    ConfigError."""
    if not _appears(job_file):
        raise ConfigError(
            f"this node sees no {job_file}, which the leading one wrote: the workspace must lie on "
            "a disk that all see "
            "under the same path"
        )
    job = TrainJob.model_validate_json(job_file.read_text(encoding="utf-8"))
    place = {"launch": {"rendezvous"}}  # two names of one place, since both are there
    ours, theirs = config.train.model_dump(exclude=place), job.config.model_dump(exclude=place)
    differ = [
        f"  train.{name} is {ours[name]} here, {theirs[name]} there"
        for name in ours
        if ours[name] != theirs[name]
    ]
    folder = stage_statuses(config)["train"].folder
    if not differ and (folder is None or folder.name != job.out.name):
        differ = [f"  it trains {job.out}, and these settings are those of {folder}"]
    if differ:
        raise ConfigError("the leading node was given other settings:\n" + "\n".join(differ))
    choose_device(job.device)
    return job


def _appears(path: Path) -> bool:
    """Whether a file of another machine is there, or will be soon."""
    deadline = time.monotonic() + _DISK_TIMEOUT_S
    while not path.exists():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def _how_to_go_on(error: Exception, out: Path) -> str:
    saved = checkpoints(out / "checkpoints")
    full = shutil.disk_usage(out).free < _LEAST_FREE_BYTES
    return (
        f"{error}\n"
        + (f"The disk of {out} is full: make room there. " if full else "")
        + (
            f"The checkpoint {saved[-1].name} is kept: the same command resumes from it."
            if saved
            else "No checkpoint was written yet: the same command starts again."
        )
    )


def check_fit(encodings: Manifest, model: DenoiserConfig) -> None:
    """Raise ModelMismatch where the encodings are not what the model takes."""
    channels, height, width = encodings.figures["latent_shape"]
    by_token = model.text == "tokens"
    if by_token and "token_dim" not in encodings.figures:
        raise ModelMismatch(
            "model.text is tokens, and the encodings hold pooled text alone: set encode.text=tokens"
        )
    expected = {
        "latent_channels": (model.latent_channels, channels),
        "latent_size": (model.latent_size, height),
        "text_dim": (model.text_dim, encodings.figures["token_dim" if by_token else "text_dim"]),
    }
    problems = [
        f"  model.{name} is {have}, the encodings have {actual}: set model.{name}={actual}"
        for name, (have, actual) in expected.items()
        if have != actual
    ]
    if height != width:
        problems.append(f"  latents are {height}x{width}; the model takes square ones")
    if problems:
        raise ModelMismatch("the model does not fit the encodings:\n" + "\n".join(problems))
