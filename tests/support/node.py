"""One of several nodes that train in a workspace: what `tld train` does there, without Prefect and
MLflow.

python -m tests.support.node OVERRIDE …
"""

from __future__ import annotations

import sys
from functools import partial

from data_catalog.storage.manifest import Manifest
from pipeline.config.load import load_config
from pipeline.run.train_nodes import lead_or_join
from pipeline.stages.contract import StageFailed
from pipeline.stages.freshness import stage_statuses
from pipeline.stages.run_inputs import RunInputs
from pipeline.stages.run_stage import run_stage
from pipeline.train.stage import train
from tests.support.small import TINY
from tests.support.tracker import RememberingTracker


def main() -> None:
    config, track = load_config(TINY, sys.argv[1:]), RememberingTracker()
    encodings = stage_statuses(RunInputs(config))["encode"].manifest
    assert encodings

    def lead() -> Manifest:
        work = partial(train, encodings, config.train, config.model, track=track)
        return run_stage(RunInputs(config).stage_run("train", {"encode": encodings}), track, work)

    try:
        lead_or_join(config, lead, print)
    except StageFailed as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
