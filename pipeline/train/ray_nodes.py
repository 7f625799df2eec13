"""The other nodes of a training, on those of a Ray cluster: an actor each does what the command
typed there would do.

Ray places the actors and ends them with this process; rendezvous.py is where the nodes meet.

This is not Ray Train: its workers would be all of the ranks, with its own checkpoints and restarts,
and none of them the command that leads, which trains too, and alone knows Prefect and MLflow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.compute.ray_pool import Actor, connect
from pipeline.compute.rendezvous import Rendezvous
from pipeline.config.run import RunConfig
from pipeline.config.section import ConfigError
from pipeline.train.stage import join_training

_START_S = 60.0


@contextmanager
def nodes_of_the_cluster(config: RunConfig) -> Iterator[None]:
    """As long as this is entered, as many other nodes of the cluster as train.launch wants train
    along, each of its processes on a GPU where there are any. Raises ConfigError."""
    connected_here = connect(config.engine.address, workers=1)
    import ray
    from ray.exceptions import GetTimeoutError, RayError

    actors: list[Any] = []
    try:
        actors += [_start(config, node) for node in _others(config.train.launch.nodes - 1)]
        ray.get([actor.begin.remote() for actor in actors], timeout=_START_S)
        for actor in actors:
            actor.answer.remote(None)  # how it ends, the nodes tell each other
        yield
    except (GetTimeoutError, RayError) as error:
        why = getattr(error, "cause", None) or error
        raise ConfigError(
            f"train.launch: a node of the Ray cluster cannot train along: {why}"
        ) from error
    finally:
        for actor in actors:
            ray.kill(actor)
        if connected_here:
            ray.shutdown()


def _others(count: int) -> list[dict[str, Any]]:
    """So many nodes of the cluster beside this one. Raises ConfigError."""
    import ray

    here = ray.get_runtime_context().get_node_id()
    others = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] != here]
    if len(others) < count:
        raise ConfigError(
            f"train.launch.nodes: {count + 1}, but the Ray cluster has {len(others) + 1}"
        )
    return sorted(others, key=lambda node: -node["Resources"].get("GPU", 0))[:count]


def _start(config: RunConfig, node: dict[str, Any]) -> Any:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    has_gpus = config.train.device != "cpu" and "GPU" in node["Resources"]
    make = ray.remote(
        num_cpus=1,
        num_gpus=config.train.launch.processes if has_gpus else 0,
        scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
    )(Actor)
    return make.remote(partial(_training_along, config), str(Path.cwd()))


def _training_along(config: RunConfig) -> Callable[[None], None]:
    meeting = Rendezvous(*config.train.launch.meeting_place, hosted_here=False)
    return lambda _: join_training(config, meeting, print)
