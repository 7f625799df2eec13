"""A load test of a running service: many clients at once, compared with one client.

Run it on a machine that is otherwise idle:

tld serve conf/tiny.yaml &
python -m tools.load_serve http://127.0.0.1:8000 --clients 64 --requests 10
"""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Load:
    """Results of a number of clients, each requesting one image after the other."""

    clients: int
    seconds: float
    took: list[float]  # seconds of each answered request
    lost: int

    @property
    def per_second(self) -> float:
        return len(self.took) / self.seconds

    def __str__(self) -> str:
        p50, p95 = (statistics.quantiles(self.took, n=100)[percent - 1] for percent in (50, 95))
        return (
            f"{self.clients:3} clients: {len(self.took)} answered, {self.lost} lost, "
            f"{self.per_second:.1f} images/s, "
            f"median {p50:.3f} s, p95 {p95:.3f} s"
        )


def put_under_load(address: str, clients: int, requests: int) -> Load:
    """Run `clients` at once, each with a number of requests for one image."""
    started = time.perf_counter()
    with ThreadPoolExecutor(clients) as threads:
        answers = list(threads.map(lambda client: _ask(address, client, requests), range(clients)))
    took = [seconds for answer in answers for seconds in answer if seconds is not None]
    return Load(clients, time.perf_counter() - started, took, clients * requests - len(took))


def _ask(address: str, client: int, requests: int) -> list[float | None]:
    """Seconds of each request; None if it was not answered with an image."""
    took: list[float | None] = []
    with closing(http.client.HTTPConnection(urlsplit(address).netloc, timeout=600)) as connection:
        for number in range(requests):
            body = {"prompt": f"a small red star, client {client}", "seed": number}
            started = time.perf_counter()
            try:
                connection.request(
                    "POST", "/pictures", json.dumps(body), {"Content-Type": "application/json"}
                )
                answer = connection.getresponse()
                succeeded = len(json.loads(answer.read())["pictures"]) == 1
            # No connection, or an answer without images.
            except (OSError, http.client.HTTPException, KeyError):
                succeeded = False
                connection.close()
            took.append(time.perf_counter() - started if succeeded else None)
    return took


def main() -> None:
    """Print the results and their ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("address")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--requests", type=int, default=10, help="requests per client")
    options = parser.parse_args()
    put_under_load(options.address, 1, 3)  # warm-up
    alone = put_under_load(options.address, 1, max(20, options.requests))
    together = put_under_load(options.address, options.clients, options.requests)
    # The machine may have become slower meanwhile.
    again = put_under_load(options.address, 1, max(20, options.requests))
    print(f"{alone}\n{together}\n{again}")
    before_and_after = (alone.per_second + again.per_second) / 2
    print(f"{together.per_second / before_and_after:.2f} times the throughput of a single client")


if __name__ == "__main__":
    main()
