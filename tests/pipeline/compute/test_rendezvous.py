"""Nodes that meet in one process: who leads, who is refused, and what each hears of the others."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.compute.node_group import Nodes, node_group
from pipeline.compute.polling import wait_until
from pipeline.compute.rendezvous import NodesApart, Rendezvous, rendezvous_of
from pipeline.config.launch import LaunchConfig
from pipeline.config.load import load_config
from pipeline.config.section import ConfigError
from pipeline.preflight.check import check_run
from pipeline.train.job import TrainJob
from pipeline.train.join import join_training
from tests.support.small import TINY, small

WAIT_S = 20


@pytest.fixture
def launch() -> LaunchConfig:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return LaunchConfig(nodes=2, rendezvous=f"127.0.0.1:{listener.getsockname()[1]}")


@pytest.fixture
def meeting(launch: LaunchConfig) -> Iterator[Rendezvous]:
    with rendezvous_of(launch) as meeting:
        yield meeting


def aside(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def heard_by(nodes: Nodes, silence_s: float = 30) -> str:
    """What a node hears of the others, once it is something."""
    assert wait_until(lambda: nodes.lost(silence_s), WAIT_S, every_s=0.05)
    return nodes.lost(silence_s)


def test_the_first_at_the_rendezvous_leads_and_tells_what_to_do(
    launch: LaunchConfig, meeting: Rendezvous
) -> None:
    seen: list[str] = []
    waited: list[int] = []

    def take_part() -> None:
        with rendezvous_of(launch) as again, node_group(launch, again, leads=False) as other:
            seen.append(f"{again.hosted_here} {other.number} {other.job()}")
            other.ready()

    with node_group(launch, meeting, leads=True) as leader:
        assert meeting.hosted_here
        taking_part = aside(take_part)
        leader.share("job.json", waited.append)
        assert leader.end("") == ""
    taking_part.join(WAIT_S)
    assert seen == ["False 1 job.json"]
    assert set(waited) == {1}


def test_who_is_one_too_many_or_would_lead_too_is_refused(
    launch: LaunchConfig, meeting: Rendezvous
) -> None:
    with node_group(launch, meeting, leads=False) as other:
        with pytest.raises(NodesApart, match=r"2 nodes are at 127\.0\.0\.1:\d+ already"):
            node_group(launch, meeting, leads=False).__enter__()
        assert other.store
        other.store.set("leader", "elsewhere/1")
        with pytest.raises(NodesApart, match="another training is led at"):
            node_group(launch, meeting, leads=True).__enter__()


def test_a_failure_is_heard_of(launch: LaunchConfig, meeting: Rendezvous) -> None:
    def fail() -> None:
        with pytest.raises(ValueError, match="no disk"), node_group(launch, meeting, leads=False):
            raise ValueError("no disk\nand more")

    with node_group(launch, meeting, leads=True) as leader:
        failing = aside(fail)
        with pytest.raises(
            NodesApart, match=rf"^node 2 of 2 \({socket.gethostname()}\) failed: no disk$"
        ):
            leader.share("job.json", lambda _: None)
    failing.join(WAIT_S)
    assert not failing.is_alive()


def test_silence_is_noticed(launch: LaunchConfig, meeting: Rendezvous) -> None:
    with (
        node_group(launch, meeting, leads=False) as other,
        node_group(launch, meeting, leads=True) as leader,
    ):
        other.leave()  # without a word
        assert "is gone: its command was killed, or its machine or network is down" in heard_by(
            leader, silence_s=1
        )


def test_the_end_of_the_command_that_would_lead_is_noticed(launch: LaunchConfig) -> None:
    with rendezvous_of(launch) as meeting:
        joining = node_group(launch, meeting, leads=False)
        other = joining.__enter__()
    with pytest.raises(NodesApart, match=f"the command that leads at {meeting} ended"):
        other.job()
    joining.__exit__(None, None, None)


def test_a_node_that_was_told_something_else_ends_the_training(
    launch: LaunchConfig, meeting: Rendezvous, tmp_path: Path
) -> None:
    config = load_config(
        TINY, [*small(tmp_path), f"train.launch.rendezvous={meeting}", "train.launch.nodes=2"]
    )
    theirs = config.train.model_copy(update={"lr": 0.5})
    job = TrainJob(
        encodings=tmp_path, out=tmp_path, config=theirs, model=config.model, device="cpu"
    )
    (tmp_path / "job.json").write_text(job.model_dump_json())
    lines: list[str] = []

    def train_with_another_rate() -> None:
        with pytest.raises(
            ConfigError,
            match=r"other settings:\n  train.lr is 0.001 here, 0.5 on the leading node$",
        ):
            join_training(config, meeting, lines.append)

    with node_group(launch, meeting, leads=True) as leader:
        training = aside(train_with_another_rate)
        with pytest.raises(NodesApart, match="failed: the leading node has other settings"):
            leader.share(str(tmp_path / "job.json"), lambda _: None)
    training.join(WAIT_S)
    assert lines == [f"node 2 of 2; the node at {meeting} leads and reports"]


def test_a_rendezvous_that_cannot_work_is_refused_before_any_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ConfigError, match="2 nodes need a rendezvous: the host:port of one"):
        load_config(TINY, ["train.launch.nodes=2"])
    for wrong in ("host0", "host0:0", "host0:70000", "http://host0:1", "29400"):
        with pytest.raises(ConfigError, match=r"train\.launch\.rendezvous: "):
            load_config(TINY, ["train.launch.nodes=2", f"train.launch.rendezvous={wrong}"])
    config = load_config(TINY, ["train.launch.nodes=2", "train.launch.rendezvous=host0:29400"])
    monkeypatch.setattr(socket, "gethostbyname", lambda _: "127.0.1.1")
    with pytest.raises(ConfigError, match=r"'host0' is 127\.0\.1\.1, which other machines cannot"):
        check_run(config)


def test_a_setting_that_lies_deeper_is_found() -> None:
    with pytest.raises(
        ConfigError, match=r"train\.processes: no such setting; did you mean 'launch\.processes'\?"
    ):
        load_config(TINY, ["train.processes=2"])


def test_a_node_alone_loses_nobody_however_long_it_takes() -> None:
    launch = LaunchConfig()
    with rendezvous_of(launch) as meeting, node_group(launch, meeting, leads=True) as nodes:
        nodes._answered_at -= 3600
        assert nodes.lost() == ""
