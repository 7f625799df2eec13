"""Prometheus metrics of the service."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_IMAGES = (1, 2, 4, 8, 16, 32, 64, 128)


class ServiceMetrics:
    """Metrics of one service."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        labels = ("path", "status")
        self._requests = Counter(
            "tld_requests", "Requests, by path and status.", labels, registry=registry
        )
        self._seconds = Histogram(
            "tld_request_seconds", "Seconds from request to answer.", ("path",), registry=registry
        )
        self._batches = Histogram(
            "tld_batch_pictures", "Images per batch.", buckets=_IMAGES, registry=registry
        )
        self._busy = Counter(
            "tld_device_seconds", "Seconds that the device spent on batches.", registry=registry
        )
        self._waiting = Gauge(
            "tld_waiting_pictures",
            "Work in the queue, in images of the model's own size and settings.",
            registry=registry,
        )
        self._dropped = Counter(
            "tld_clients_left",
            "Clients that disconnected before their images were finished.",
            registry=registry,
        )

    def watch(self, waiting: Callable[[], int]) -> None:
        """Read the work in the queue with this function."""
        self._waiting.set_function(waiting)

    def answered(self, path: str, status: int, seconds: float) -> None:
        """Count an answered request."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def batch_finished(self, images: int, seconds: float) -> None:
        """Count a finished batch."""
        self._batches.observe(images)
        self._busy.inc(seconds)

    def left(self) -> None:
        """Count a client that disconnected before its images were finished."""
        self._dropped.inc()

    def text(self) -> bytes:
        """All metrics in the text format of Prometheus."""
        return generate_latest(self._registry)
