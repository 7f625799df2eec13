"""Training on several machines: one leads, with Prefect and MLflow, and the others join it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from data_catalog.storage.manifest import Manifest
from flows.terminal.console import say
from pipeline.config.run import RunConfig
from pipeline.stages.contract import Output, StageFailed, Tracker
from pipeline.stages.run_inputs import RunInputs


def lead_or_join(config: RunConfig, lead: Callable[[], Manifest]) -> Manifest | None:
    """Call `lead` if this machine leads the run, which the rendezvous decides, and return its
    output; otherwise join its training and return None. Raises StageFailed if the nodes lose each
    other."""
    if config.train.launch.nodes == 1:
        return lead()
    from pipeline.compute.rendezvous import NodesApart, rendezvous_of
    from pipeline.train.join import join_training

    try:
        with rendezvous_of(config.train.launch) as meeting:
            if meeting.hosted_here:
                return lead()
            join_training(config, meeting, lambda line: say(f"train     {line}"))
            return None
    except NodesApart as error:
        raise StageFailed(f"train: {error}") from error


def train_on_nodes(
    encodings: Manifest, inputs: RunInputs, track: Tracker, out: Path, *, force: bool
) -> Output:
    """Train as the leading node. If the engine is a Ray cluster, the other nodes are machines of
    the cluster. A forced training repeats the steps that it shares with others. Raises ConfigError
    if evaluate.require demands what cannot be given, or train.score.best_by."""
    from pipeline.preflight.gate_checks import check_gate
    from pipeline.preflight.score_checks import check_best
    from pipeline.train.continuation import begin_training
    from pipeline.train.stage import train

    config = inputs.config
    run = inputs.stage_run("train", {"encode": encodings})
    begin = partial(begin_training, run, from_others=not force)
    for variant in config.variants:
        check_gate(variant, encodings)
    check_best(config, encodings)
    with ExitStack() as stack:
        if config.engine.kind == "ray" and config.train.launch.nodes > 1:
            from pipeline.train.ray_nodes import nodes_of_the_cluster

            stack.enter_context(nodes_of_the_cluster(config))
        return train(encodings, config.train, config.model, out, track, begin)
