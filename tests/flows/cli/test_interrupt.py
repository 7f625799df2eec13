"""Ctrl-C and SIGTERM in the middle of a stage: the whole tree ends soon, and the same command goes
on."""

from __future__ import annotations

import http.server
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipeline.compute.polling import wait_until
from tests.support.command import descendants, start, tld
from tests.support.images import encoded, photo
from tests.support.small import TINY, small
from tests.support.waiting import wait_while_running

pytestmark = pytest.mark.slow

IMAGES = 12


@pytest.fixture
def slow_server() -> Iterator[tuple[str, threading.Event]]:
    """A server that answers with pictures, slowly until the event is set."""
    hurry = threading.Event()
    body = encoded(photo(0), "JPEG")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            hurry.wait(60)
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        ).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", hurry
        hurry.set()
        server.shutdown()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_whole_tree_and_the_same_command_goes_on(
    tmp_path: Path, slow_server: tuple[str, threading.Event], how: signal.Signals
) -> None:
    address, hurry = slow_server
    root, table = tmp_path / "data", tmp_path / "urls.csv"
    table.write_text(
        "url,caption\n" + "".join(f"{address}/{i}.jpg,picture {i}\n" for i in range(IMAGES))
    )
    web = {"download__allowed_networks": ["127.0.0.0/8"], "download__min_image_size": 14}
    arguments: list[str | Path] = [
        "download",
        TINY,
        *small(root, download__urls=table, download__shard_size=4, **web),
    ]
    process = start(*arguments)
    wait_while_running(lambda: list(root.glob("01_images/*/.0*")), process)
    time.sleep(2)  # into the requests
    tree = descendants(process.pid)
    assert tree, "workers and the Prefect server"

    if how is signal.SIGINT:
        os.killpg(process.pid, how)  # as a terminal does: to all of the foreground group
    else:
        os.kill(process.pid, how)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + how, output
    assert "stopped; run the same command to resume" in output
    assert "Traceback" not in output
    assert wait_until(lambda: not any(map(is_running, tree)), 10, every_s=0.1), tree

    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    (experiment,) = client.search_experiments(filter_string="name = 'tiny'")
    assert {run.info.status for run in client.search_runs([experiment.experiment_id])} == {"KILLED"}
    hurry.set()
    done = tld(*arguments)
    assert done.returncode == 0, done.stderr
    assert len(list(root.glob("01_images/*/0*.tar"))) == 3


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
