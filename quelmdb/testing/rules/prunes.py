"""Pruning: what has ended is deleted, by its age and its number."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from quelmdb.errors import InvalidJobError
from quelmdb.job import Job
from quelmdb.persistence import JobStore
from quelmdb.status import ENDED, INCOMPLETE, Status
from quelmdb.testing.clock import ManualClock
from quelmdb.testing.harness import JobStoreHarness
from quelmdb.testing.rules.helpers import claimed_new, ids, label, unchanged
from quelmdb.testing.rules.refusals import NO_WORKERS

_SECOND = 1_000_000


def _ended(count: int, worker: str | None = "a", status: str = "completed") -> list[Job]:
    return [Job(worker, n, status=status) for n in range(count)]


class PruneRules(JobStoreHarness):
    def test_what_has_ended_is_pruned_and_all_else_stays(self, store: JobStore) -> None:
        jobs = store.insert_many(Job("ab"[n % 2], n, status=list(Status)[n % 6]) for n in range(24))
        assert store.prune() == 12
        assert list(store.all()) == [job for job in jobs if job.status in INCOMPLETE]
        assert store.prune() == 0

    @pytest.mark.parametrize("status", ENDED)
    def test_the_named_statuses_alone_are_pruned(self, store: JobStore, status: Status) -> None:
        jobs = store.insert_many(Job("a", status=each) for each in (*Status, *Status))
        assert store.prune(status) == 2
        assert list(store.all()) == [job for job in jobs if job.status != status]
        assert store.prune(str(status), "completed", "completed") == 2 * (status != "completed")

    def test_several_statuses_are_pruned_together(self, store: JobStore) -> None:
        store.insert_many(Job("a", status=status) for status in Status)
        assert store.prune("failed", Status.CANCELLED) == 2
        assert [job.status for job in store.all()] == [*INCOMPLETE, Status.COMPLETED]

    def test_a_worker_alone_is_pruned(self, store: JobStore) -> None:
        jobs = store.insert_many(
            Job(worker, status="failed") for worker in ["a", None, "b", "a", None]
        )
        assert store.prune(worker="a") == 2
        assert store.prune("failed", worker=None) == 2
        assert store.prune(worker="unknown") == 0
        assert list(store.all()) == [jobs[2]]
        assert store.workers() == ["b"]

    def test_what_is_old_enough_is_pruned(self, store: JobStore, clock: ManualClock) -> None:
        for job in _ended(5):
            store.insert(job)
            clock.advance(10 * _SECOND)
        # Written 50, 40, 30, 20 and 10 seconds ago.
        assert store.prune(older_than=timedelta(seconds=50, microseconds=1)) == 0
        assert store.prune(older_than=timedelta(seconds=50)) == 1
        assert store.prune(older_than=timedelta(seconds=25)) == 2
        assert store.prune(older_than=timedelta(0)) == 2

    def test_an_age_counts_from_the_last_write(self, store: JobStore, clock: ManualClock) -> None:
        claimed = claimed_new(store)
        clock.advance(3_600 * _SECOND)
        store.complete(claimed)
        clock.advance(60 * _SECOND)
        assert store.prune(older_than=timedelta(minutes=2)) == 0
        assert store.prune(older_than=timedelta(minutes=1)) == 1

    def test_what_was_written_later_than_now_has_no_age(
        self, store: JobStore, clock: ManualClock
    ) -> None:
        store.insert_many(_ended(2))
        clock.advance(-_SECOND)
        assert store.prune(older_than=timedelta(0)) == 0
        assert store.prune() == 2

    @pytest.mark.parametrize("age", [timedelta.max, timedelta(days=800_000)], ids=str)
    def test_nothing_is_as_old_as_that(self, store: JobStore, age: timedelta) -> None:
        store.insert_many(_ended(2))
        with unchanged(store):
            assert store.prune(older_than=age) == 0

    def test_the_latest_are_kept(self, store: JobStore) -> None:
        jobs = store.insert_many(_ended(10))
        assert store.prune(keep=10) == store.prune(keep=99) == 0
        assert store.prune(keep=7) == 3
        assert list(store.all()) == jobs[3:]
        assert store.prune(keep=0) == 7

    def test_those_that_are_kept_are_of_the_named_statuses_and_worker(
        self, store: JobStore
    ) -> None:
        jobs = store.insert_many(
            [Job("ab"[n % 2], n, status=("completed", "failed")[n // 2 % 2]) for n in range(16)]
        )
        mine = [job for job in jobs if job.worker == "a" and job.status == "completed"]
        assert store.prune("completed", worker="a", keep=1) == len(mine) - 1 == 3
        assert list(store.completed("a")) == mine[-1:]
        assert store.prune("completed", "failed", worker="a", keep=2) == 3
        assert ids(store.all("a")) == [13, 15]
        assert store.prune(keep=3) == 7
        assert ids(store.all()) == [14, 15, 16]

    def test_those_that_are_kept_are_counted_whatever_their_age(
        self, store: JobStore, clock: ManualClock
    ) -> None:
        store.insert_many(_ended(4))
        clock.advance(60 * _SECOND)
        store.insert_many(_ended(2))
        minute = timedelta(minutes=1)
        assert store.prune(older_than=minute, keep=5) == 1
        assert store.prune(older_than=minute, keep=2) == 3
        assert store.prune(older_than=minute, keep=0) == 0
        assert ids(store.all()) == [5, 6]

    def test_the_latest_are_those_with_the_largest_ids(
        self, store: JobStore, clock: ManualClock
    ) -> None:
        jobs = store.insert_many(_ended(3))
        clock.advance(_SECOND)
        store.update(jobs[0])
        assert store.prune(keep=1) == 2
        assert ids(store.all()) == [jobs[2].id]

    def test_many_are_pruned(self, store: JobStore) -> None:
        store.insert_many(Job("ab"[n % 2], b"x" * 50, status="completed") for n in range(3_000))
        store.insert_many([Job("a")] * 10)
        assert store.prune(worker="a", keep=100) == 1_400
        assert store.prune() == 1_600
        assert store.counts() == {**dict.fromkeys(Status, 0), Status.QUEUED: 10}

    def test_big_jobs_are_pruned_whole(self, store: JobStore, clock: ManualClock) -> None:
        for n in range(10):
            claimed = claimed_new(store, arguments=b"x" * 9_000, unique_key=f"k{n}", priority=n)
            store.fail(claimed, "z" * 9_000)
        assert store.prune() == 10
        assert list(store.all()) == []
        assert store.workers() == []

    def test_ids_of_pruned_jobs_are_not_given_again(self, store: JobStore) -> None:
        jobs = store.insert_many(_ended(3))
        store.prune()
        assert store.insert(Job("a")).id not in ids(jobs)

    @pytest.mark.parametrize("status", [*INCOMPLETE, "unknown", None, 5], ids=label)
    def test_what_has_not_ended_is_never_pruned(self, store: JobStore, status: Any) -> None:
        store.insert_many(Job("a", status=each) for each in Status)
        with unchanged(store), pytest.raises(InvalidJobError):
            store.prune(status)
        with unchanged(store), pytest.raises(InvalidJobError):
            store.prune("completed", status)

    @pytest.mark.parametrize("keep", [-1, 1.0, "1", True, timedelta(1)], ids=repr)
    def test_the_number_to_keep_is_one(self, store: JobStore, keep: Any) -> None:
        store.insert_many(_ended(2))
        with unchanged(store), pytest.raises(InvalidJobError):
            store.prune(keep=keep)

    @pytest.mark.parametrize("age", [timedelta(microseconds=-1), 1, 1.0, "1", True], ids=repr)
    def test_an_age_is_a_timedelta(self, store: JobStore, age: Any) -> None:
        store.insert_many(_ended(2))
        with unchanged(store), pytest.raises(InvalidJobError):
            store.prune(older_than=age)

    @pytest.mark.parametrize("worker", NO_WORKERS, ids=label)
    def test_prune_refuses_what_is_no_worker(self, store: JobStore, worker: Any) -> None:
        store.insert_many(_ended(2))
        with unchanged(store), pytest.raises(InvalidJobError):
            store.prune(worker=worker)
