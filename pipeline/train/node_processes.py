"""The training processes of one node: starting them, watching them, and explaining a failure."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from data_catalog.model_files import CHECKPOINTS_FOLDER, checkpoints
from pipeline.compute.child_processes import ChildFailed, run_processes
from pipeline.compute.devices import DETERMINISTIC_ENVIRONMENT
from pipeline.compute.node_group import Nodes, how_it_failed
from pipeline.compute.ranks import rank_environments
from pipeline.train.job import JOB_FILE, TrainJob

_LEAST_FREE_BYTES = 1 << 20


def run_ranks(
    job: TrainJob, nodes: Nodes, on_poll: Callable[[], str], locks: Sequence[int] = ()
) -> None:
    """Run this node's processes until they end. Raises ChildFailed, whose message includes the
    failures of other nodes."""
    common = DETERMINISTIC_ENVIRONMENT if job.config.deterministic else {}
    by_rank = rank_environments(job.config.launch, nodes.number, nodes.rendezvous)
    environments = {rank: {**common, **names} for rank, names in by_rank.items()}
    command = ["pipeline.train.worker", str(job.out / JOB_FILE), str(os.getpid())]
    log, ranks = job.out / "train.log", job.config.launch.ranks
    try:
        run_processes(command, log, environments, ranks, on_poll, locks)
    except ChildFailed as error:
        others = nodes.end(how_it_failed(error))
        if not others or others == str(error):
            raise
        raise ChildFailed(f"{others}\nOn this node {error}") from error


def how_to_resume(error: Exception, out: Path) -> str:
    """The error, and what the user can do next."""
    saved = checkpoints(out / CHECKPOINTS_FOLDER)
    is_full = shutil.disk_usage(out).free < _LEAST_FREE_BYTES
    return (
        f"{error}\n"
        + (f"The disk of {out} is full: free some space there. " if is_full else "")
        + (
            f"The checkpoint {saved[-1].name} is kept: run the same command to resume."
            if saved
            else "No checkpoint was written yet: run the same command to start again."
        )
    )
