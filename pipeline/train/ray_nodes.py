"""Multi-node training on a Ray cluster: one actor per additional node runs the training there.

Ray places the actors and ends them with this process; the nodes find each other through
rendezvous.py.

This does not use Ray Train: its workers would be all of the ranks, with checkpoints and restarts
of their own. Here the leading command trains too, and only it talks to Prefect and MLflow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.compute.ray_cluster import connect
from pipeline.compute.ray_pool import Actor
from pipeline.compute.rendezvous import Rendezvous
from pipeline.config.run import RunConfig
from pipeline.config.section import ConfigError
from pipeline.train.join import join_training

_START_S = 60.0


@contextmanager
def nodes_of_the_cluster(config: RunConfig) -> Iterator[None]:
    """While this context is active, train.launch.nodes - 1 other nodes of the cluster take part in
    the training, each of their processes on a GPU if there are any. Raises ConfigError if a node
    is missing or cannot start."""
    connected_here = connect(config.engine.address, workers=1)
    import ray
    from ray.exceptions import GetTimeoutError, RayError

    actors: list[Any] = []
    try:
        actors += [_start(config, node) for node in _others(config.train.launch.nodes - 1)]
        ray.get([actor.begin.remote() for actor in actors], timeout=_START_S)
        for actor in actors:
            actor.answer.remote(None)  # the nodes report the outcome to each other
        yield
    except (GetTimeoutError, RayError) as error:
        why = getattr(error, "cause", None) or error
        raise ConfigError(
            f"train.launch: a node of the Ray cluster cannot join the training: {why}"
        ) from error
    finally:
        for actor in actors:
            ray.kill(actor)
        if connected_here:
            ray.shutdown()


def _others(count: int) -> list[dict[str, Any]]:
    """This many nodes of the cluster besides this one, those with most GPUs first. Raises
    ConfigError if there are fewer."""
    import ray

    here = ray.get_runtime_context().get_node_id()
    others = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] != here]
    if len(others) < count:
        raise ConfigError(
            f"train.launch.nodes is {count + 1}, but the Ray cluster has {len(others) + 1} nodes"
        )
    return sorted(others, key=lambda node: -node["Resources"].get("GPU", 0))[:count]


def _start(config: RunConfig, node: dict[str, Any]) -> Any:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    has_gpus = config.train.device != "cpu" and "GPU" in node["Resources"]
    start = ray.remote(
        num_cpus=1,
        num_gpus=config.train.launch.processes if has_gpus else 0,
        scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
    )(Actor)
    return start.remote(partial(_join_from, config), str(Path.cwd()))


def _join_from(config: RunConfig) -> Callable[[None], None]:
    meeting = Rendezvous(*config.train.launch.meeting_place, hosted_here=False)
    return lambda _: join_training(config, meeting, print)
