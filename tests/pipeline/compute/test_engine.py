"""What can be said of an engine without a cluster."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from pipeline.config.load import load_config
from pipeline.config.run import RunConfig
from pipeline.config.section import ConfigError
from pipeline.preflight.check import check_run
from pipeline.stages.run_inputs import RunInputs
from tests.support.small import TINY, small


def run_with(root: Path, *engine: str) -> RunConfig:
    return load_config(TINY, [*small(root), *(f"engine.{setting}" for setting in engine)])


def test_workers_of_the_engine_are_those_of_stages_that_say_no_number(tmp_path: Path) -> None:
    config = load_config(TINY, [*small(tmp_path, encode__workers=3), "engine.workers=7"])
    assert (config.download.workers, config.encode.workers) == (7, 3)
    unsaid = load_config(TINY, small(tmp_path))
    assert (unsaid.download.workers, unsaid.encode.workers) == (2, 1)


def test_an_engine_makes_nothing_stale(tmp_path: Path) -> None:
    local, ray = (
        run_with(tmp_path),
        run_with(tmp_path, "kind=ray", "workers=7", "gpus_per_worker=1"),
    )
    for stage in ("download", "encode"):
        assert RunInputs(local).settings(stage) == RunInputs(ray).settings(stage)


def test_ray_that_is_not_installed_is_said_before_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(
        ConfigError,
        match=r"ray is not installed; install it with: pip install 'tld-diffusion\[ray\]'",
    ):
        check_run(run_with(tmp_path, "kind=ray"))


def test_an_address_without_a_cluster_is_said_before_work(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
        with pytest.raises(
            ConfigError, match=f"engine.address: cannot reach a Ray cluster at {address}"
        ):
            check_run(run_with(tmp_path, "kind=ray", f"address={address}"))


def test_an_address_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"engine.address: .*got 'ray://head:10001'"):
        run_with(tmp_path, "address=ray://head:10001")
