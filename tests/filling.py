"""Ephemeral stores that are filled up in tests, and what they go on to do then."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest

import quelmdb
from quelmdb import Job, Store, StoreFullError
from quelmdb.filesystem import MIB
from tests.damage import data_file

CAPACITY = 8 * MIB
SMALL = 4 * MIB


def create_ephemeral(path: Path, capacity: int = CAPACITY) -> None:
    quelmdb.open(path, durability="ephemeral", capacity=capacity).close()


def jobs_of(count: int, size: int = 800) -> list[Job]:
    return [Job("a", b"x" * size)] * count


def fill(store: Store, size: int = 800) -> int:
    """Inserts until not even one job more is let in; returns how many were."""
    inserted = 0
    for at_a_time in (100, 1):
        with suppress(StoreFullError):
            while True:
                inserted += len(store.insert_many(jobs_of(at_a_time, size)))
    return inserted


def work_on(store: Store, jobs: int) -> None:
    """Takes so many jobs through every ending, one by one."""
    for number in range(jobs):
        (job,) = store.claim()
        match number % 4:
            case 0:
                store.complete(job, {"number": number})
            case 1:
                store.fail(job, "it failed " * 10)
            case 2:
                store.release(job)
            case 3:
                store.complete_many([job])


def assert_full(store: Store) -> None:
    """Every way to add something is refused, and changes nothing."""
    before = (store.counts(), store.info().used_bytes)
    for insert in (
        lambda: store.insert_many(jobs_of(200)),
        lambda: store.insert(Job("a", b"x" * 100_000)),
        lambda: store.submit.insert(Job("a", b"x" * 100_000)).result(),
        lambda: store.restore([Job("a", b"x" * 100_000, id=10**9)]),
        lambda: store.update(Job("a", b"x" * 100_000)),
        lambda: _insert_in_a_batch(store),
    ):
        with pytest.raises(StoreFullError, match="is full: it has a capacity of") as caught:
            insert()
        assert caught.value.path == str(data_file(Path(store.path)))
        assert f"{size_of(store):,} bytes" in str(caught.value)
    assert (store.counts(), store.info().used_bytes) == before


def _insert_in_a_batch(store: Store) -> None:
    with store.batch() as batch:
        batch.insert_many(jobs_of(2, 100_000))
        batch.destroy(1)


def size_of(store: Store) -> int:
    return store.info().file_bytes
