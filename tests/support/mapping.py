"""MapShards without processes, for speed: the pool has tests of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_here(
    make_worker: Callable[[], Callable[[Item], Result]],
    items: Iterable[Item],
    workers: int,  # noqa: ARG001 (the interface of all engines)
    deadline_s: float | None = None,  # noqa: ARG001
) -> Iterator[Result]:
    """Apply one worker, made at the first item, in this process."""
    work: Callable[[Item], Result] | None = None
    for item in items:
        work = work or make_worker()
        yield work(item)


def do_nothing() -> Callable[[Item], Item]:
    """A worker with nothing to do, which any process can import."""
    return _nothing


def _nothing(item: Item) -> Item:
    return item
