"""The same command on several machines: one leads, with Prefect and MLflow; the others train along."""

from __future__ import annotations

import sys
from collections.abc import Callable

from pipeline.config import RunConfig
from pipeline.stage import StageFailed


def on_all_nodes(config: RunConfig, lead: Callable[[], None]) -> bool:
    """Call `lead` where this machine leads the run, which the rendezvous says; elsewhere take part in its training.
    Whether this machine leads. Raises StageFailed."""
    if config.train.launch.nodes == 1:
        lead()
        return True
    from pipeline.nodes import NodesApart, meeting_of
    from pipeline.train_process import train_along

    try:
        with meeting_of(config.train.launch) as meeting:
            if meeting.hosted_here:
                lead()
            else:
                train_along(config, meeting, lambda line: print(f"train     {line}", file=sys.stderr, flush=True))
            return meeting.hosted_here
    except NodesApart as error:
        raise StageFailed(f"train: {error}") from error
