"""What several rules say in the same words."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

from quelmdb.events import Event, Kind
from quelmdb.job import Job
from quelmdb.persistence import JobStore, Persistence
from quelmdb.testing.clock import ManualClock

T = TypeVar("T")

PATIENCE: Final = 30.0  # seconds, after which something is taken for lost

NO_ID_OF_A_JOB: Final[list[Any]] = [None, 0, -1, True, 1.0, "1", 2**63, Job("a"), Job]
"""What cannot stand for a job that is to be stored already."""


def label(value: object) -> str:
    """A short name for a value in the name of a test: without addresses, which differ from
    process to process."""
    if isinstance(value, type):
        return value.__name__
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))[:24]


def ids(jobs: Iterable[Job]) -> list[int | None]:
    """The ids of jobs, in their order."""
    return [job.id for job in jobs]


def id_of(job: Job) -> int:
    """The id of a job that has one."""
    assert job.id is not None
    return job.id


def found(store: Persistence, job: Job) -> Job:
    """The job as it is stored now."""
    stored = store.find(job)
    assert stored is not None
    return stored


@contextmanager
def unchanged(store: Persistence) -> Iterator[None]:
    """Asserts that the block leaves every job as it was."""
    before = list(store.all())
    yield
    assert list(store.all()) == before


def result_of(future: Future[T]) -> T:
    """The result of what was submitted."""
    result: T = future.result(PATIENCE)
    return result


def in_seconds(clock: ManualClock, seconds: float) -> datetime:
    """A time so far from the clock's, before it where negative."""
    return clock.time + timedelta(seconds=seconds)


def claimed_new(store: JobStore, worker: str = "a", **fields: Any) -> Job:
    """A job that was just inserted, and claimed: the only one of its worker that can be."""
    inserted = store.insert(Job(worker, **fields))
    claimed = claim_one(store, worker)
    assert claimed.id == inserted.id
    return claimed


def claim_one(store: JobStore, worker: str = "a") -> Job:
    """The next job of a worker, claimed."""
    (claimed,) = store.claim(worker)
    return claimed


class Heard:
    """A hook that keeps what it is told."""

    def __init__(self, store: JobStore) -> None:
        self._events: list[Event] = []
        self._told = threading.Condition()
        self.end = store.listen(self)

    def __call__(self, event: Event) -> None:
        with self._told:
            self._events.append(event)
            self._told.notify_all()

    def take(self, count: int) -> list[Event]:
        """The next events, for which it waits, since another thread may tell them."""
        with self._told:
            assert self._told.wait_for(lambda: len(self._events) >= count, PATIENCE)
            taken, self._events = self._events[:count], self._events[count:]
        return taken

    def left(self) -> int:
        """How many events it was told and nobody has taken."""
        with self._told:
            return len(self._events)

    def kinds(self, count: int) -> list[Kind]:
        """Those of the next events."""
        return [event.kind for event in self.take(count)]

    def one(self) -> Event:
        """The next event."""
        (event,) = self.take(1)
        return event
