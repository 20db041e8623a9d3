"""Every public method of a store and of a snapshot, as a call: for tests that ask all of
them the same question. `test_misuse` holds the tables complete."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, Final

import quelmdb
from quelmdb import Job, Status
from quelmdb.reader import JobView, Reader

_JOB: Final = Job("a", id=1, status="started", claim=1)


def _look(view: JobView) -> None:
    """All that a view can be asked."""
    next(iter(view), None)


READS: Final[dict[str, Callable[[Reader], object]]] = {
    "all": lambda reader: _look(reader.all()),
    "completed": lambda reader: len(reader.completed()),
    "counts": lambda reader: reader.counts(),
    "failed": lambda reader: len(reader.failed("a").ids()),
    "find": lambda reader: reader.find(1),
    "incomplete": lambda reader: next(iter(reader.incomplete().ids()), None),
    "started_at": lambda reader: reader.started_at(1),
    "jobs": lambda reader: _look(reader.jobs(Status.QUEUED, after=1, reverse=True)),
    "workers": lambda reader: reader.workers(),
}

STORE_READS: Final[dict[str, Callable[[quelmdb.Store], Any]]] = {
    **READS,
    "backup": lambda store: store.backup(io.BytesIO()),
    "cancel_requested": lambda store: store.cancel_requested(_JOB),
    "check": lambda store: store.check(),
    "info": lambda store: store.info(),
    "initialize": lambda store: store.initialize(),
    "listen": lambda store: store.listen(print)(),
    "next_due": lambda store: store.next_due(),
    "paused": lambda store: store.paused(),
    "snapshot": lambda store: store.snapshot().close(),
    "wasted": lambda store: store.wasted(),
}

WRITES: Final[dict[str, Callable[[quelmdb.Store], Any]]] = {
    "batch": lambda store: _batch(store),
    "cancel": lambda store: store.cancel(1),
    "cancel_many": lambda store: store.cancel_many([1]),
    "claim": lambda store: store.claim("a"),
    "compact": lambda store: store.compact(),
    "complete": lambda store: store.complete(_JOB),
    "complete_many": lambda store: store.complete_many([_JOB]),
    "destroy": lambda store: store.destroy(1),
    "destroy_many": lambda store: store.destroy_many([1]),
    "fail": lambda store: store.fail(_JOB, "why"),
    "insert": lambda store: store.insert(Job("a")),
    "insert_many": lambda store: store.insert_many([Job("a")]),
    "pause": lambda store: store.pause("a"),
    "progress": lambda store: store.progress(_JOB, 1),
    "prune": lambda store: store.prune(),
    "release": lambda store: store.release(_JOB),
    "requeue": lambda store: store.requeue([_JOB]),
    "rescue": lambda store: store.rescue(),
    "restore": lambda store: store.restore([_JOB], on_conflict="replace"),
    "resume": lambda store: store.resume("a"),
    "retry": lambda store: store.retry(1),
    "retry_many": lambda store: store.retry_many([1]),
    "submit": lambda store: store.submit.insert(Job("a")).result(),
    "update": lambda store: store.update(_JOB),
    "update_many": lambda store: store.update_many([_JOB]),
    "wait": lambda store: store.wait("a", timeout=0),
}

HARMLESS: Final = {"close", "path"}


def _batch(store: quelmdb.Store) -> None:
    with store.batch() as batch:
        batch.insert(Job("a"))
