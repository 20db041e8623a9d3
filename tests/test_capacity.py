"""An ephemeral store that is full says so, and lets what it has be worked on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import quelmdb
from quelmdb import Job, Store, StoreFullError
from quelmdb.filesystem import MIB
from tests.filling import SMALL, assert_full, fill, jobs_of, work_on

pytest_plugins = ["tests.fixtures"]


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    with quelmdb.open(path, durability="ephemeral", capacity=SMALL) as store:
        yield store


# --- What is refused ----------------------------------------------------------


def test_nothing_is_added_to_a_full_store(store: Store) -> None:
    fill(store)
    assert_full(store)
    work_on(store, 300)
    assert_full(store)


@pytest.mark.parametrize("size", [SMALL, 2 * SMALL])
def test_what_is_larger_than_the_store_is_refused(size: int, store: Store) -> None:
    (kept,) = store.insert_many([Job("a", "kept")])
    (job,) = store.claim()
    for write in (
        lambda: store.insert(Job("a", b"x" * size)),
        lambda: store.update(kept.replace(arguments=b"x" * size)),
        lambda: store.complete(job, b"x" * size),
        lambda: store.insert_many(jobs_of(size // 1000, 1000)),
    ):
        with pytest.raises(StoreFullError, match="is full"):
            write()
    assert [job.arguments for job in store.all()] == ["kept"]
    store.complete(job, "done")


def test_what_is_larger_than_what_is_left_is_refused_and_what_is_smaller_is_not(
    store: Store,
) -> None:
    while store.info().used_bytes < MIB:
        store.insert_many(jobs_of(100))
    before = store.counts()
    with pytest.raises(StoreFullError, match="is full"):
        store.insert(Job("big", b"x" * (3 * MIB // 2)))
    assert store.counts() == before
    assert store.insert(Job("big", b"x" * (MIB // 2))).arguments == b"x" * (MIB // 2)


def test_a_full_store_takes_smaller_arguments_and_refuses_larger_ones(store: Store) -> None:
    inserted = fill(store)
    first = store.find(1)
    assert first is not None
    with pytest.raises(StoreFullError, match="is full"):
        store.update(first.replace(arguments=b"x" * 2000))
    with pytest.raises(StoreFullError, match="is full"):
        store.update(first.replace(arguments=b"x" * 100_000))
    assert store.find(1) == first
    for job in list(store.jobs(limit=500)):
        store.update(job.replace(arguments=b"y" * 400))
    for start in range(500, 2500, 100):
        jobs = list(store.jobs(after=start, limit=100))
        store.update_many(job.replace(arguments=None) for job in jobs)
    assert len(store.all()) == inserted


def test_a_large_result_is_refused_in_a_full_store_and_the_job_stays_held(store: Store) -> None:
    fill(store)
    (job,) = store.claim()
    with pytest.raises(StoreFullError, match="is full"):
        store.complete(job, b"x" * 100_000)
    assert store.find(job) == job
    store.complete(job, b"x" * 200)


# --- What goes on -------------------------------------------------------------


@pytest.mark.parametrize("size", [100, 800, 1900, 20_000])
def test_a_full_store_carries_claims_and_completions_one_by_one(size: int, store: Store) -> None:
    inserted = fill(store, size)
    for _ in range(min(inserted, 800)):
        (job,) = store.claim()
        store.complete(job, {"took": 1.5})
    assert len(store.all()) == inserted


@pytest.mark.parametrize("size", [0, 100, 800])
def test_a_full_store_carries_claims_and_completions_by_the_hundred(
    size: int, store: Store
) -> None:
    inserted = fill(store, size)
    for _ in range(min(inserted // 100, 100)):
        claimed = store.claim(limit=100)
        assert len(claimed) == 100
        store.complete_many(claimed)
    assert len(store.all()) == inserted


def test_destroying_jobs_makes_room_for_others_as_often_as_one_likes(store: Store) -> None:
    fillings = []
    for at_a_time in (10_000, 1000, 100) * 3:
        fillings.append(fill(store))
        work_on(store, 50)
        ids = list(store.all().ids())
        for start in range(0, len(ids), at_a_time):
            store.destroy_many(ids[start : start + at_a_time])
    assert min(fillings) > 0.9 * max(fillings)


def test_a_full_store_can_be_emptied_one_by_one(store: Store) -> None:
    inserted = fill(store, 3000)
    for job_id in list(store.all().ids()):
        store.destroy(job_id)
    assert fill(store, 3000) > 0.9 * inserted


def test_a_snapshot_that_keeps_all_room_is_a_clear_error_and_all_goes_on_when_it_ends(
    store: Store,
) -> None:
    """What is destroyed beside it stays in the file for it."""
    ids = list(range(1, fill(store) + 1))
    with store.snapshot() as snapshot:
        with pytest.raises(StoreFullError, match="is full"):
            work_on(store, 10_000)
        assert list(snapshot.all().ids()) == ids
    work_on(store, 200)
    store.destroy_many(ids[:1000])
    store.insert_many(jobs_of(500))


# --- Address space ------------------------------------------------------------


def test_every_job_of_a_full_store_can_be_worked_off(store: Store) -> None:
    """The smallest jobs, of which most are there: each leaves its mark in both indexes."""
    count = fill(store, size=0)
    done = 0
    while jobs := store.claim(limit=20):
        done += len(store.complete_many(jobs))
    assert done == count
