"""The training stage on a node that does not lead: it joins the training of the leading node.

Its processes write nothing but their logs.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from data_catalog.storage.receipts import MANIFEST_NAME
from pipeline.compute.child_processes import ChildFailed
from pipeline.compute.devices import choose_device
from pipeline.compute.node_group import node_group
from pipeline.compute.polling import wait_until
from pipeline.compute.rendezvous import NodesApart, Rendezvous
from pipeline.config.run import RunConfig
from pipeline.config.section import ConfigError
from pipeline.stages.contract import StageFailed
from pipeline.stages.freshness import stage_statuses
from pipeline.stages.run_inputs import RunInputs
from pipeline.train.job import TrainJob
from pipeline.train.node_processes import how_to_resume, run_ranks

_DISK_TIMEOUT_S = 60.0  # until a shared disk shows what another machine wrote


def join_training(config: RunConfig, meeting: Rendezvous, say: Callable[[str], None]) -> None:
    """Take part in the training of the leading node until its manifest exists. Returns at once if
    the model is fresh without a training.

    Raises:
        StageFailed: the training failed, here or on another node.
        ConfigError: the settings or the workspace differ from those of the leading node.
        DeviceError: this node lacks the device of the leading node.
    """
    launch = config.train.launch
    try:
        with node_group(launch, meeting, leads=False) as nodes:
            say(
                f"node {nodes.number + 1} of {launch.nodes}; the node at {meeting} leads "
                "and reports"
            )
            try:
                job_file = Path(nodes.job())
            except NodesApart:
                if stage_statuses(RunInputs(config))["train"].state == "fresh":
                    return
                raise
            job = _job_of_the_leader(job_file, config)
            say(f"joining the training: {job.out}")
            nodes.ready()
            run_ranks(job, nodes, nodes.lost)
    except ChildFailed as error:
        raise StageFailed(f"train: the training failed; {how_to_resume(error, job.out)}") from error
    except NodesApart as error:
        raise StageFailed(f"train: {error}") from error
    if not _appears(job.out / MANIFEST_NAME):
        raise StageFailed(
            f"train: the training ended, but the node at {meeting} wrote no manifest; see "
            "its output"
        )


def _job_of_the_leader(job_file: Path, config: RunConfig) -> TrainJob:
    """The job of the leading node. Raises ConfigError if it differs from the settings here."""
    if not _appears(job_file):
        raise ConfigError(
            f"this node does not see {job_file}, which the leading node wrote: the workspace must "
            "be on a disk that all nodes see under the same path"
        )
    job = TrainJob.model_validate_json(job_file.read_text(encoding="utf-8"))
    # May be two names of the same place, since both nodes met there.
    unequal: dict[str, Any] = {"launch": {"rendezvous"}}
    if config.before:
        unequal["init_from"] = True  # the leading node has set it to the model of the phase before
    ours, theirs = (train.model_dump(exclude=unequal) for train in (config.train, job.config))
    differ = [
        f"  train.{name} is {ours[name]} here, {theirs[name]} on the leading node"
        for name in ours
        if ours[name] != theirs[name]
    ]
    folder = stage_statuses(RunInputs(config))["train"].folder
    if not differ and (folder is None or folder.name != job.out.name):
        differ = [f"  it trains {job.out}, but the settings here belong to {folder}"]
    if differ:
        raise ConfigError("the leading node has other settings:\n" + "\n".join(differ))
    choose_device(job.device)
    return job


def _appears(path: Path) -> bool:
    """Whether a file that another machine wrote exists, now or within a minute."""
    return wait_until(path.exists, _DISK_TIMEOUT_S, every_s=0.2)
