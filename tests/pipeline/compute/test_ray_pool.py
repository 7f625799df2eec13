"""Downloads and encodings on a Ray cluster of two nodes: the bytes of the local engine, and nodes
that die."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from data_catalog.storage.manifest import Manifest
from pipeline.compute import ray_cluster
from pipeline.compute.engine import pool_on
from pipeline.compute.polling import wait_until
from pipeline.compute.ray_pool import RayPool
from pipeline.compute.shard_map import map_in_pool, run_with_retries
from pipeline.compute.worker_pool import PoolClosed, ShardFailed
from pipeline.config.load import load_config
from pipeline.config.run import EngineConfig, RunConfig
from pipeline.config.section import ConfigError
from pipeline.download.stage import download
from pipeline.encode.stage import encode
from pipeline.preflight.check import check_run
from pipeline.run.train_nodes import train_on_nodes
from pipeline.stages.contract import MapShards
from pipeline.stages.freshness import stage_statuses
from pipeline.stages.run_inputs import RunInputs
from pipeline.stages.run_stage import run_stage
from tests.pipeline.compute.test_worker_pool import always_dies, dies_once, hangs_once, square
from tests.support.mapping import map_here
from tests.support.small import TINY, small
from tests.support.tracker import RememberingTracker
from tests.support.workspace import make_workspace, overrides

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster
else:
    Cluster = pytest.importorskip("ray.cluster_utils", reason="ray is not installed").Cluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head and a node, a CPU each."""
    small_store = {"num_cpus": 1, "object_store_memory": 100 << 20}
    cluster = Cluster(
        initialize_head=True, head_node_args={**small_store, "include_dashboard": False}
    )
    cluster.add_node(**small_store)
    yield cluster
    cluster.shutdown()


@pytest.fixture(scope="module")
def engine(cluster: Cluster) -> EngineConfig:
    return EngineConfig(kind="ray", address=cluster.address)


def test_items_are_worked_on_at_both_nodes_and_all_is_over_with_the_pool(
    engine: EngineConfig,
) -> None:
    with pool_on(engine)(square, 2) as pool:
        worked = [pool.run(number) for number in range(4)]
        with pytest.raises(ValueError, match="-1 is negative") as raised:
            pool.run(-1)
        assert "in _square" in raised.value.__notes__[0]
    assert [value for value, _ in worked] == [0, 1, 4, 9]
    processes = [Path(f"/proc/{pid}") for _, pid in worked]
    assert wait_until(lambda: not any(path.exists() for path in processes), 10, every_s=0.1)
    assert os.getpid() not in {pid for _, pid in worked}


def test_an_actor_that_dies_or_hangs_costs_a_second_try(
    engine: EngineConfig, tmp_path: Path
) -> None:
    ray = pool_on(engine)
    assert sorted(map_in_pool(partial(dies_once, tmp_path / "died"), range(5), 2, None, ray)) == [
        0,
        1,
        2,
        3,
        4,
    ]
    assert (tmp_path / "died").exists()
    assert list(map_in_pool(partial(hangs_once, tmp_path / "hung"), [7], 1, 2, ray)) == [7]
    with pytest.raises(ShardFailed, match="an actor was lost"):
        list(map_in_pool(always_dies, [1], 1, None, ray))


class NothingStarts(RayPool[int, int]):
    """A cluster whose actors all go away before they are ready."""

    started = 0

    def _start_one(self) -> None:
        from ray.exceptions import ActorDiedError

        self.started += 1
        assert self.started < 100, "for ever"
        self._ready.put((object(), ActorDiedError()))

    def _discard(self, actor: object) -> None:
        """It is gone."""


def test_where_no_actor_starts_a_shard_is_not_tried_for_ever() -> None:
    with pytest.raises(ShardFailed, match="10 actors in a row could not start"):
        run_with_retries(NothingStarts(always_dies, 1), 1)


def test_no_actor_of_a_closed_pool_is_asked() -> None:
    pool = RayPool(square, 2)
    pool._ready.put(("idle", None))
    pool.__exit__(None, None, None)
    for number in range(3):
        with pytest.raises(PoolClosed):
            pool.run(number)


def test_a_training_on_two_nodes_needs_one_command(engine: EngineConfig, tmp_path: Path) -> None:
    make_workspace(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    launch = {"train.launch.nodes": 2, "train.launch.rendezvous": f"127.0.0.1:{port}"}
    on_cluster = {
        "engine.kind": "ray",
        "engine.address": engine.address,
        "train__device": "cpu",
        "train__lr": 2e-3,
    }
    config = load_config(TINY, overrides(tmp_path, **on_cluster, **launch))
    encodings = stage_statuses(RunInputs(config))["encode"].manifest
    assert encodings
    track = RememberingTracker()
    inputs, parents = RunInputs(config), {"encode": encodings}
    work = partial(train_on_nodes, parents, inputs, track, force=False)
    manifest = run_stage(inputs.stage_run("train", parents), track, work)
    assert manifest.figures["steps"] == 12
    assert manifest.file("train.1.log").exists(), "the second rank was another node's"
    with pytest.raises(ConfigError, match=r"train\.launch\.nodes: 4, but the Ray cluster has 2"):
        check_run(
            load_config(
                TINY, overrides(tmp_path, **on_cluster, **launch | {"train.launch.nodes": 4})
            )
        )


def make(
    config: RunConfig, download_shards: MapShards, encode_shards: MapShards
) -> tuple[Manifest, Manifest]:
    """The first two stages, their shards mapped in these ways."""
    track = RememberingTracker()
    images = run_stage(
        RunInputs(config).stage_run("download", {}),
        track,
        lambda out: download(config.download, out, track, download_shards),
    )
    return images, run_stage(
        RunInputs(config).stage_run("encode", {"download": images}),
        track,
        lambda out: encode(images, config.encode, out, track, encode_shards),
    )


@dataclass
class StuckAt:
    """A worker that on one node comes to a stop in its first shard, and says so."""

    make_worker: Callable[[], Callable[[Any], Any]]
    node: str
    mark: Path

    def __call__(self) -> Callable[[Any], Any]:
        import ray

        work = self.make_worker()
        stuck = ray.get_runtime_context().get_node_id() == self.node

        def stop_or_work(item: Any) -> Any:
            if stuck:
                self.mark.touch()
                time.sleep(600)
            # Otherwise all would be done before the doomed node has taken one.
            wait_until(self.mark.exists, 120, every_s=0.1)
            return work(item)

        return stop_or_work


def test_the_bytes_are_those_of_the_local_engine_though_a_node_is_killed_in_mid_encode(
    cluster: Cluster, engine: EngineConfig, tmp_path: Path
) -> None:
    doomed, mark = cluster.list_all_nodes()[-1], tmp_path / "stuck"

    def kill() -> None:
        assert wait_until(mark.exists, 120, every_s=0.1)
        cluster.remove_node(doomed, allow_graceful=False)

    def on_ray(
        make_worker: Any, items: Any, workers: int, deadline_s: float | None = None
    ) -> Iterator[Any]:
        return map_in_pool(make_worker, items, workers, deadline_s, pool_on(engine))

    def with_one_stuck(
        make_worker: Any, items: Any, workers: int, deadline_s: float | None = None
    ) -> Iterator[Any]:
        return on_ray(StuckAt(make_worker, doomed.node_id, mark), items, workers, deadline_s)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    root = Path(os.path.relpath(tmp_path / "there"))  # relative, as in most configs
    on_cluster = make(load_config(TINY, [*small(root), "engine.workers=2"]), on_ray, with_one_stuck)
    assert not killer.is_alive(), "the node is gone"
    here = make(load_config(TINY, small(tmp_path / "here")), map_here, map_here)
    for from_cluster, from_here in zip(on_cluster, here, strict=True):
        assert from_cluster.fingerprint == from_here.fingerprint
        assert from_cluster.digest == from_here.digest


def test_what_the_cluster_has_not_is_said_before_work(engine: EngineConfig, tmp_path: Path) -> None:
    engine_settings = [
        f"engine.address={engine.address}",
        "engine.kind=ray",
        "engine.gpus_per_worker=2",
    ]
    with pytest.raises(
        ConfigError, match="gpus_per_worker: 2, but no node of the cluster has more than 0"
    ):
        check_run(load_config(TINY, [*small(tmp_path), *engine_settings]))


def test_a_missing_token_is_told_though_ray_speaks_of_it_only_on_the_way() -> None:
    output = (
        "gcs_client.cc:210: Failed to get cluster ID from GCS server: Unauthenticated: RPC error: "
        "InvalidAuthToken\n"
        "ConnectionError: Failed to connect to Ray cluster at 192.0.2.2:6399"
    )
    assert "set RAY_AUTH_MODE=token here" in ray_cluster._why(output)
    assert ray_cluster._why("Traceback\nConnectionError: no") == "ConnectionError: no"
    assert ray_cluster._why("") == "no reason given"
