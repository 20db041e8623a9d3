"""What a worker tells of a job that it holds: how far it got, and results of several."""

from __future__ import annotations

from typing import Any

import pytest

from quelmdb.errors import (
    EncodeError,
    InvalidJobError,
    InvalidTransitionError,
    JobNotFoundError,
    StaleClaim,
)
from quelmdb.job import Job
from quelmdb.options import MAX_NOTE, Progress
from quelmdb.persistence import JobStore
from quelmdb.status import Status
from quelmdb.testing.clock import ManualClock
from quelmdb.testing.harness import JobStoreHarness
from quelmdb.testing.rules.helpers import (
    claim_one,
    claimed_new,
    found,
    in_seconds,
    unchanged,
)

_SECOND = 1_000_000


class ProgressRules(JobStoreHarness):
    def test_progress_is_stored_and_the_claim_stays(
        self, store: JobStore, clock: ManualClock
    ) -> None:
        claimed = claimed_new(store, arguments={"n": 1}, result="old", error="older", priority=2)
        clock.advance(_SECOND)
        told = store.progress(claimed, 3, 10, "chapter 3")
        assert told == claimed.replace(progress=Progress(3, 10, "chapter 3"), updated_at=clock.time)
        assert found(store, claimed) == told
        assert store.complete(claimed, 1).progress == Progress(3, 10, "chapter 3")

    def test_a_job_is_started_since_its_claim_whatever_is_told_of_it(
        self, store: JobStore, clock: ManualClock
    ) -> None:
        job = store.insert(Job("a"))
        assert store.started_at(job) is None
        clock.advance(_SECOND)
        claimed = claim_one(store, "a")
        since = claimed.updated_at
        with store.snapshot() as before:
            for step in range(3):
                clock.advance(_SECOND)
                assert store.progress(claimed, step).updated_at != since
                assert store.started_at(claimed) == store.started_at(job.id) == since
            store.cancel(claimed)
            assert store.started_at(job) == since
            clock.advance(_SECOND)
            store.release(claimed)
            assert store.started_at(job) is None
            assert before.started_at(job) == since
        again = claim_one(store, "a") if store.jobs(Status.QUEUED) else None
        assert store.started_at(job) == (again and again.updated_at)

    def test_what_an_update_made_started_is_so_since_then(
        self, store: JobStore, clock: ManualClock
    ) -> None:
        job = store.insert(Job("a"))
        clock.advance(_SECOND)
        started = store.update(job.replace(status=Status.STARTED))
        assert store.started_at(job) == started.updated_at
        assert store.started_at(None) is None
        assert store.started_at(99) is None

    def test_each_progress_replaces_the_one_before(self, store: JobStore) -> None:
        claimed = claimed_new(store, arguments=b"x" * 5_000, result=b"y" * 5_000, error="z" * 5_000)
        for told in [
            Progress(1, 2, "note"),
            Progress(2**63 - 1, 2**63 - 1, "é" * MAX_NOTE),
            Progress(0),
            Progress(5, 0),
            Progress(9, 3, ""),
        ]:
            stored = store.progress(claimed, *told)
            assert stored.progress == told
            assert found(store, claimed) == stored
        assert (stored.arguments, stored.result) == (b"x" * 5_000, b"y" * 5_000)

    def test_a_long_note_is_cut(self, store: JobStore) -> None:
        told = store.progress(claimed_new(store), 1, None, "é" * (MAX_NOTE + 1))
        assert told.progress == Progress(1, None, "é" * MAX_NOTE)
        assert found(store, told) == told

    def test_a_note_is_never_refused_for_its_characters(self, store: JobStore) -> None:
        told = store.progress(claimed_new(store), 1, None, "a surrogate \ud800")
        assert told.progress is not None
        assert told.progress.note is not None
        assert told.progress.note.startswith("a surrogate ")
        assert found(store, told) == told

    @pytest.mark.parametrize(
        "told",
        [
            (-1,),
            (1.0,),
            ("1",),
            (None,),
            (True,),
            (1, -1),
            (1, 1.0),
            (1, "2"),
            (1, 2, 3),
            (1, 2, b"x"),
        ],
        ids=repr,
    )
    def test_progress_is_told_in_numbers_and_a_note(self, store: JobStore, told: Any) -> None:
        claimed = claimed_new(store)
        with unchanged(store), pytest.raises(InvalidJobError):
            store.progress(claimed, *told)

    def test_progress_is_told_by_who_holds_the_job(self, store: JobStore) -> None:
        before = claimed_new(store)
        store.release(before)
        with unchanged(store), pytest.raises(StaleClaim):
            store.progress(before, 1)
        now = claim_one(store)
        with unchanged(store), pytest.raises(StaleClaim) as caught:
            store.progress(before, 1)
        assert (caught.value.expected, caught.value.found) == (before.claim, now.claim)
        store.destroy(now)
        with unchanged(store), pytest.raises(JobNotFoundError):
            store.progress(now, 1)

    def test_progress_of_what_was_never_claimed_is_refused(self, store: JobStore) -> None:
        job = store.insert(Job("a"))
        bad: list[Any] = [None, job.id, "job", Job("a"), Job("a", claim=1)]
        for value in bad:
            with unchanged(store), pytest.raises(InvalidJobError):
                store.progress(value, 1)
        with unchanged(store), pytest.raises(InvalidTransitionError):
            store.progress(job, 1)

    def test_progress_stays_through_what_comes_after(
        self, store: JobStore, clock: ManualClock
    ) -> None:
        progress = Progress(1, 2, "half")
        claimed = claimed_new(store)
        store.progress(claimed, *progress)
        assert store.release(claimed).progress == progress
        claimed = claim_one(store)
        assert claimed.progress == progress
        assert store.fail(claimed, "oh", in_seconds(clock, 0)).progress == progress
        failed = store.fail(claim_one(store), "oh")
        assert failed.progress == store.retry(failed).progress == progress
        assert store.cancel(failed).progress == progress

    def test_an_update_takes_progress_from_the_given_job(self, store: JobStore) -> None:
        claimed = claimed_new(store)
        told = store.progress(claimed, 1)
        assert store.update(told.replace(progress=Progress(2))).progress == Progress(2)
        assert store.update(claimed).progress is None
        assert store.progress(claimed, 3).progress == Progress(3)

    def test_insert_takes_a_progress(self, store: JobStore) -> None:
        job = store.insert(Job("a", progress=Progress(1, 2, "half")))
        assert found(store, job) == job
        assert job.progress == Progress(1, 2, "half")

    def test_progress_leaves_the_time_of_the_claim(
        self, store: JobStore, clock: ManualClock
    ) -> None:
        claimed, started = claimed_new(store), clock.time
        for n in range(3):
            clock.advance(_SECOND)
            store.progress(claimed, n)
        (failure,) = store.fail(claimed, "oh").failures
        assert (failure.started_at, failure.ended_at) == (started, clock.time)

    def test_a_job_with_progress_is_counted_and_listed_as_started(self, store: JobStore) -> None:
        claimed = claimed_new(store)
        told = store.progress(claimed, 1)
        assert list(store.jobs("started", worker="a")) == [told]
        assert store.counts("a")[Status.STARTED] == 1
        assert store.claim("a") == store.rescue() == []


class ResultRules(JobStoreHarness):
    def test_complete_many_has_a_result_for_each(self, store: JobStore) -> None:
        store.insert_many(Job("a", n) for n in range(5))
        claimed = store.claim("a", limit=5)[::-1]
        results = [None, 1, {"n": 2}, b"x" * 9_000, [4]]
        completed = store.complete_many(iter(claimed), iter(results))
        assert [job.result for job in completed] == results
        assert [job.id for job in completed] == [job.id for job in claimed]
        assert [found(store, job) for job in claimed] == completed

    def test_complete_many_of_nothing_has_no_results(self, store: JobStore) -> None:
        store.insert(Job("a"))
        with unchanged(store):
            assert store.complete_many([], []) == store.complete_many(iter(()), iter(())) == []

    @pytest.mark.parametrize("results", [[], (), [1], [1, 2, 3], range(100)], ids=repr)
    def test_there_are_as_many_results_as_jobs(self, store: JobStore, results: Any) -> None:
        store.insert_many([Job("a")] * 2)
        claimed = store.claim("a", limit=2)
        with unchanged(store), pytest.raises(ValueError):  # noqa: PT011 - its words are free
            store.complete_many(claimed, results)
        assert len(store.complete_many(claimed, [1, 2])) == 2

    def test_complete_many_completes_none_where_a_result_cannot_be_carried(
        self, store: JobStore
    ) -> None:
        store.insert_many([Job("a")] * 3)
        claimed = store.claim("a", limit=3)
        with unchanged(store), pytest.raises(EncodeError):
            store.complete_many(claimed, [1, object(), 3])
        store.release(claimed[2])
        with unchanged(store), pytest.raises(StaleClaim):
            store.complete_many(claimed, [1, 2, 3])
        with unchanged(store), pytest.raises(StaleClaim):
            store.complete_many([claimed[0], claimed[0]], [1, 2])
        completed = store.complete_many(claimed[:2], (n for n in (1, 2)))
        assert [job.result for job in completed] == [1, 2]
