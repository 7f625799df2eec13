"""What Prometheus reads of a service. Knows the names of figures, nothing of how they come
about."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_IMAGES = (1, 2, 4, 8, 16, 32, 64, 128)


class ServiceMetrics:
    """Counters of one service."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        labels = ("path", "status")
        self._requests = Counter(
            "tld_requests", "Requests, by path and status.", labels, registry=registry
        )
        self._seconds = Histogram(
            "tld_request_seconds", "From request to answer.", ("path",), registry=registry
        )
        self._batches = Histogram(
            "tld_batch_pictures", "Pictures a batch.", buckets=_IMAGES, registry=registry
        )
        self._busy = Counter(
            "tld_device_seconds", "Time the device spent on batches.", registry=registry
        )
        self._waiting = Gauge("tld_waiting_pictures", "Pictures in the queue.", registry=registry)
        self._dropped = Counter(
            "tld_clients_left", "Clients who left before their pictures came.", registry=registry
        )

    def watch(self, waiting: Callable[[], int]) -> None:
        """Read the length of the queue from here."""
        self._waiting.set_function(waiting)

    def answered(self, path: str, status: int, seconds: float) -> None:
        """One request was answered."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def drawn(self, images: int, seconds: float) -> None:
        """One batch was drawn."""
        self._batches.observe(images)
        self._busy.inc(seconds)

    def left(self) -> None:
        """A client left before its pictures came."""
        self._dropped.inc()

    def text(self) -> bytes:
        """All of it in Prometheus' format."""
        return generate_latest(self._registry)
