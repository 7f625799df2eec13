"""Training on several machines: one leads the run, and the others join its training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TypeVar

from data_catalog.storage.manifest import Manifest
from pipeline.config.run import RunConfig
from pipeline.config.section import ConfigError
from pipeline.stages.contract import Output, StageFailed, Tracker
from pipeline.stages.dag import mixed_parents
from pipeline.stages.freshness import stage_statuses
from pipeline.stages.run_inputs import RunInputs

Made = TypeVar("Made")


def lead_or_join(
    config: RunConfig, lead: Callable[[], Made], say: Callable[[str], None]
) -> Made | None:
    """Call `lead` if this machine leads the run, which the rendezvous decides, and return what it
    made; otherwise join its training, which `say` tells of, and return None.

    Raises:
        StageFailed: the nodes lose each other.
        ConfigError: several phases are to be trained, of which some need several machines.
    """
    if any(phase.train.launch.nodes > 1 for phase in config.chain):
        _refuse_several_trainings(config)
    if config.train.launch.nodes == 1:
        return lead()
    from pipeline.compute.rendezvous import NodesApart, rendezvous_of
    from pipeline.train.join import join_training

    try:
        with rendezvous_of(config.train.launch) as meeting:
            if meeting.hosted_here:
                return lead()
            join_training(config, meeting, say)
            return None
    except NodesApart as error:
        raise StageFailed(f"train: {error}") from error


def _refuse_several_trainings(config: RunConfig) -> None:
    """Raise ConfigError if a phase before the last is not trained: nodes meet for one training."""
    for phase in RunInputs(config).chain[:-1]:
        if stage_statuses(phase)["train"].state != "fresh":
            raise ConfigError(
                "train.launch.nodes: several machines train one phase at a time; first type this "
                f"command with phase={phase.config.phase} --until train on each of them"
            )


def train_on_nodes(
    parents: Mapping[str, Manifest], inputs: RunInputs, track: Tracker, out: Path, *, force: bool
) -> Output:
    """Train as the leading node. If the engine is a Ray cluster, the other nodes are machines of
    the cluster. A forced training repeats the steps that it shares with others.

    Raises:
        ConfigError: evaluate.require demands what cannot be given, or train.score.best_by.
        ManifestError: the encodings, or the model of the phase before, are damaged.
    """
    from pipeline.preflight.gate_checks import check_gate
    from pipeline.preflight.score_checks import check_best
    from pipeline.train.continuation import begin_training, with_weights_of
    from pipeline.train.job import Mix
    from pipeline.train.stage import train

    config, encodings = inputs.config, parents["encode"]
    run = inputs.stage_run("train", parents)
    begin = partial(begin_training, run, from_others=not force)
    for variant in config.variants:
        check_gate(variant, encodings)
    check_best(config, encodings)
    with ExitStack() as stack:
        if config.engine.kind == "ray" and config.train.launch.nodes > 1:
            from pipeline.train.ray_nodes import nodes_of_the_cluster

            stack.enter_context(nodes_of_the_cluster(config))
        training = config.train
        if "train" in parents:
            training = with_weights_of(parents["train"], training, track)
        mix = Mix(encodings, {name: parents[key] for name, key in mixed_parents(config).items()})
        return train(mix, training, config.model, out, track, begin)
