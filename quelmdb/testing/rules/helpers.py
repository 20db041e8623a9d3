"""What several rules say in the same words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from quelmdb.job import Job
from quelmdb.persistence import Persistence


def label(value: object) -> str:
    """A short name for a value in the name of a test."""
    return value.__name__ if isinstance(value, type) else repr(value)[:24]


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
