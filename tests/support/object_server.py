"""SeaweedFS: an S3 server of its own, in one process, on free ports of loopback."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from s3fs import S3FileSystem

from flows.orchestration.prefect_server import free_port
from pipeline.compute.polling import wait_until
from tests.support.waiting import is_answering

WEED = str(Path(sys.executable).with_name("weed"))
_TIMEOUT_S = 60


@contextlib.contextmanager
def object_server(folder: Path, bucket: str, key: str, secret: str) -> Iterator[str]:
    """The address of a server whose objects lie in a folder; who has the keys may use a bucket, and
    no other."""
    identities, data = folder / "identities.json", folder / "objects"
    may = [f"{what}:{bucket}" for what in ("Admin", "Read", "Write", "List", "Tagging")]
    who = {"name": "tld", "actions": may, "credentials": [{"accessKey": key, "secretKey": secret}]}
    identities.write_text(json.dumps({"identities": [who]}))
    data.mkdir()
    parts = [
        f"{part}.port{kind}"
        for part in ("master", "volume", "filer", "s3")
        for kind in ("", ".grpc")
    ]
    ports = {part: free_port() for part in parts}
    command = [WEED, "server", f"-dir={data}", "-ip=127.0.0.1", "-master.telemetry=false"]
    command += ["-s3", f"-s3.config={identities}", "-s3.port.iceberg=0", "-s3.port.lance=0"]
    command += [f"-{part}={port}" for part, port in ports.items()]
    with (folder / "objects.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        address = f"http://127.0.0.1:{ports['s3.port']}"
        _wait_until_healthy(process, f"{address}/status", folder / "objects.log")
        yield address
    finally:
        process.kill()
        process.wait()
        S3FileSystem.clear_instance_cache()  # or the next server's tests would ask this one
        for port in ports.values():  # it talks with itself through files too
            for file in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                file.unlink()


def _wait_until_healthy(process: subprocess.Popen[bytes], status: str, log: Path) -> None:
    wait_until(lambda: is_answering(status) or process.poll() is not None, _TIMEOUT_S, every_s=0.1)
    assert is_answering(status), log.read_text()[-3000:]
