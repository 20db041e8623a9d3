"""Pausing a worker: its jobs wait, all else goes on."""

from __future__ import annotations

from typing import Any

import pytest

from quelmdb.errors import InvalidJobError
from quelmdb.job import Job
from quelmdb.persistence import JobStore
from quelmdb.status import Status
from quelmdb.testing.clock import ManualClock
from quelmdb.testing.harness import JobStoreHarness
from quelmdb.testing.rules.helpers import claim_one, ids, in_seconds, label, unchanged
from quelmdb.testing.rules.listings import SomeWorker
from quelmdb.testing.rules.refusals import NO_WORKERS
from quelmdb.values import ANY


class PauseRules(JobStoreHarness):
    def test_jobs_of_a_paused_worker_are_not_claimed(self, store: JobStore) -> None:
        store.insert_many([Job("a")] * 2)
        store.pause("a")
        with unchanged(store):
            assert store.claim("a", limit=9) == store.claim(limit=9) == []
        store.insert(Job("a"))
        assert store.claim("a", limit=9) == []
        store.resume("a")
        assert ids(store.claim("a", limit=9)) == [1, 2, 3]

    def test_other_workers_go_on(self, store: JobStore) -> None:
        jobs = store.insert_many(Job(name) for name in ["a", "b", None, "ab", "a", "b"])
        store.pause("a")
        assert ids(store.claim("a", "b", limit=9)) == ids([jobs[1], jobs[5]])
        assert ids(store.claim(limit=9)) == ids([jobs[2], jobs[3]])
        store.resume("a")
        assert ids(store.claim(limit=9)) == ids([jobs[0], jobs[4]])

    def test_none_is_a_worker_to_pause(self, store: JobStore) -> None:
        nobody, somebody = store.insert_many([Job(None), Job("a")])
        store.pause(None)
        assert store.paused() == [None]
        assert ids(store.claim(limit=9)) == [somebody.id]
        assert store.claim(None) == []
        store.resume(None)
        assert ids(store.claim(None)) == [nobody.id]

    def test_a_class_or_function_is_a_worker_to_pause(self, store: JobStore) -> None:
        store.insert_many([Job(SomeWorker), Job(SomeWorker.perform)])
        store.pause(SomeWorker)
        assert store.claim(SomeWorker) == []
        assert len(store.claim(limit=9)) == 1
        assert store.paused() == [f"{SomeWorker.__module__}:SomeWorker"]
        store.resume(SomeWorker)
        assert len(store.claim(SomeWorker)) == 1

    def test_what_is_started_goes_on(self, store: JobStore, clock: ManualClock) -> None:
        store.insert_many([Job("a")] * 4)
        first, second, third, fourth = store.claim("a", limit=4)
        store.pause("a")
        assert not store.cancel_requested(first)
        assert store.progress(first, 1).progress is not None
        assert store.complete(first).status is Status.COMPLETED
        assert store.fail(second, "oh").status is Status.FAILED
        assert store.fail(third, "oh", clock.time).status is Status.SCHEDULED
        assert store.release(fourth).status is Status.QUEUED
        store.retry(second)
        assert store.claim() == []

    def test_a_priority_or_a_time_does_not_help_a_paused_worker(
        self, store: JobStore, clock: ManualClock
    ) -> None:
        store.insert_many([Job("a", priority=9), Job("a", run_at=in_seconds(clock, 5), priority=9)])
        other = store.insert(Job("b"))
        clock.advance(5_000_000)
        store.pause("a")
        assert store.claim("a", limit=9) == []
        assert ids(store.claim(limit=9)) == [other.id]
        assert store.claim(limit=9) == []
        store.resume("a")
        assert ids(store.claim(limit=9)) == [1, 2]

    def test_the_paused_are_told_none_first_then_by_name(self, store: JobStore) -> None:
        assert store.paused() == []
        for worker in ("b", "ä", None, "a", "B", "ab"):
            store.pause(worker)
        assert store.paused() == [None, "B", "a", "ab", "b", "ä"]

    def test_paused_twice_it_is_resumed_once(self, store: JobStore) -> None:
        store.insert(Job("a"))
        store.pause("a")
        store.pause("a")
        assert store.paused() == ["a"]
        store.resume("a")
        assert store.paused() == []
        assert claim_one(store).worker == "a"

    def test_what_is_not_paused_can_be_resumed(self, store: JobStore) -> None:
        store.insert(Job("a"))
        with unchanged(store):
            store.resume("a")
            store.resume("unknown")
        assert store.paused() == []

    def test_a_worker_without_jobs_can_be_paused(self, store: JobStore) -> None:
        store.pause("to come")
        assert store.paused() == ["to come"]
        assert store.workers() == []
        store.insert(Job("to come"))
        assert store.claim() == []
        store.destroy(1)
        assert store.paused() == ["to come"]

    def test_pausing_leaves_every_job_as_it_is(self, store: JobStore) -> None:
        store.insert_many(Job("a", status=status) for status in Status)
        with unchanged(store):
            store.pause("a")
        with unchanged(store):
            store.resume("a")

    @pytest.mark.parametrize("worker", [*NO_WORKERS, ANY], ids=label)
    def test_what_is_no_worker_is_not_paused(self, store: JobStore, worker: Any) -> None:
        for verb in (store.pause, store.resume):
            with pytest.raises(InvalidJobError):
                verb(worker)
        assert store.paused() == []

    def test_a_batch_pauses_and_resumes(self, store: JobStore) -> None:
        store.insert_many([Job("a"), Job("b")])
        store.pause("b")
        with store.batch() as batch:
            batch.pause("a")
            batch.pause("c")
            batch.resume("b")
            batch.resume("c")
        assert batch.results == [None] * 4
        assert store.paused() == ["a"]
        assert [job.worker for job in store.claim(limit=9)] == ["b"]
