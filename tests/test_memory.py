"""MemoryStore keeps the contract, and the kit asks no more than it of a lesser adapter."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from quelmdb.errors import StoreClosedError, TooLargeError
from quelmdb.job import Job
from quelmdb.memory import MemoryStore
from quelmdb.persistence import Clock, JobStore, Persistence
from quelmdb.testing import JobStoreContract, PersistenceContract
from quelmdb.values import ANY, WorkerFilter


class TestMemoryStore(JobStoreContract):
    def open_store(self, directory: Path, clock: Clock) -> MemoryStore:
        return MemoryStore(clock=clock)

    def reopen(self, store: JobStore, directory: Path, clock: Clock) -> JobStore:
        assert isinstance(store, MemoryStore)
        return store.reopened()


class _Least(Persistence):
    """An adapter that offers what Que does and nothing else: its listings are lists."""

    def __init__(self, clock: Clock) -> None:
        self._store = MemoryStore(clock=clock)

    def initialize(self) -> None:
        self._store.initialize()

    def insert(self, job: Job) -> Job:
        return self._store.insert(job)

    def update(self, job: Job) -> Job:
        return self._store.update(job)

    def destroy(self, job_or_id: Job | int | None) -> None:
        self._store.destroy(job_or_id)

    def find(self, job_or_id: Job | int | None) -> Job | None:
        return self._store.find(job_or_id)

    def all(self, worker: WorkerFilter = ANY) -> list[Job]:
        return list(self._store.all(worker))

    def completed(self, worker: WorkerFilter = ANY) -> list[Job]:
        return list(self._store.completed(worker))

    def failed(self, worker: WorkerFilter = ANY) -> list[Job]:
        return list(self._store.failed(worker))

    def incomplete(self, worker: WorkerFilter = ANY) -> list[Job]:
        return list(self._store.incomplete(worker))


class TestLeastPersistence(PersistenceContract):
    def open_store(self, directory: Path, clock: Clock) -> Persistence:
        return _Least(clock)


def test_without_a_clock_it_is_now() -> None:
    job = MemoryStore().insert(Job("a"))
    assert job.created_at is not None
    assert abs((job.created_at - datetime.now(UTC)).total_seconds()) < 60


def test_the_limit_of_arguments_can_be_set() -> None:
    store = MemoryStore(argument_limit=100)
    assert store.insert(Job("a", b"x" * 98)).arguments == b"x" * 98
    for job in (Job("a", b"x" * 99), Job("a", result=b"x" * 99)):
        with pytest.raises(TooLargeError):
            store.insert(job)


def test_a_limit_that_is_none_is_refused() -> None:
    limit: Any = 0
    with pytest.raises(ValueError, match="limit"):
        MemoryStore(argument_limit=limit)


def test_an_iteration_goes_on_to_jobs_inserted_ahead_of_it() -> None:
    store = MemoryStore()
    store.insert_many([Job("a")] * 3)
    told = []
    for job in store.all():
        told.append(job.id)
        if len(told) < 1000:
            store.insert(Job("a"))
    assert told == list(range(1, 1003))


def test_check_reports_what_is_broken() -> None:
    store = MemoryStore()
    jobs = store.insert_many([Job("a")] * 3)
    table = store._table
    table.ids.pop()
    table.next_id = 3
    table.jobs[1] = table.jobs[1].replace(id=9, claim=5)
    table.jobs[2] = table.jobs[2].replace(owner=1, created_at=None)
    found = {(problem.rule, problem.job_id) for problem in store.check()}
    assert found == {
        ("ids", None),
        ("id", 1),
        ("next-claim", 1),
        ("owner", 2),
        ("times", 2),
        ("next-id", jobs[2].id),
    }


def test_check_reports_keys_and_holds_that_are_wrong() -> None:
    store = MemoryStore()
    store.insert_many(
        [Job("a", unique_key="k"), Job("a"), Job("a", unique_key="k", status="failed")]
    )
    (claimed,) = store.claim("a")
    store.cancel(claimed)
    table = store._table
    table.jobs[2] = table.jobs[2].replace(unique_key="k")
    table.holds[3] = table.holds[1]
    assert {(problem.rule, problem.job_id) for problem in store.check()} == {
        ("unique-key", 2),
        ("hold", 3),
    }


def test_a_reopened_store_is_another_owner_of_the_same_jobs() -> None:
    store = MemoryStore()
    first, second = store.insert_many([Job("a"), Job("b")])
    (lost,) = store.claim("a")
    other = store.reopened()
    with pytest.raises(StoreClosedError):
        store.find(first)
    (own,) = other.claim("b")
    assert (lost.owner, own.owner, own.id) == (1, 2, second.id)
    assert other.find(first) != lost  # the claim took it back
    assert other.reopened().find(own) == own
