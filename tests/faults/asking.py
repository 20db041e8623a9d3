"""What is asked of a store of which every answer is known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

import quelmdb
from quelmdb import Job, Status

_WORKERS: Final = ("mail", "first", "later", "big", "worker 5", None, "nobody")


def listings(store: quelmdb.Store) -> Iterator[tuple[str, Callable[[], list[Job | None]]]]:
    """Jobs by every index, each with what it is called."""
    yield "all", partial(list, store.all())
    yield "all, reversed", partial(list, store.all(reverse=True, limit=99))
    for status in Status:
        yield f"{status}", partial(list, store.jobs(status))
    for worker in _WORKERS:
        yield f"{worker}", partial(list, store.all(worker, limit=30))
        incomplete = store.incomplete(worker, limit=30, reverse=True)
        yield f"{worker}, incomplete", partial(list, incomplete)


def questions(store: quelmdb.Store) -> Iterator[tuple[str, Callable[[], Any]]]:
    """All else that a store answers."""
    yield "counts", store.counts
    yield "workers", store.workers
    yield "paused", store.paused
    yield "next due", store.next_due
    yield "ids", lambda: list(store.all().ids())
    yield "info", lambda: _information(store)
    for worker in _WORKERS:
        yield f"counts of {worker}", partial(store.counts, worker)
        yield f"length of {worker}", partial(len, store.completed(worker))


def _information(store: quelmdb.Store) -> object:
    """Not the next numbers: larger ones are as good, and of smaller ones `check` tells."""
    info = store.info()
    return info.counts, info.workers, info.paused, info.next_due
