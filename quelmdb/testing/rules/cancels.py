"""Cancelling: what waits is cancelled, what is started is asked to stop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from quelmdb.errors import InvalidJobError, InvalidTransitionError, JobNotFoundError
from quelmdb.job import Job
from quelmdb.persistence import JobStore
from quelmdb.status import ENDED, Status
from quelmdb.testing.clock import ManualClock
from quelmdb.testing.harness import JobStoreHarness
from quelmdb.testing.rules.helpers import (
    NO_ID_OF_A_JOB,
    claim_one,
    claimed_new,
    found,
    in_seconds,
    label,
    unchanged,
)

_SECOND = 1_000_000

LEAVING: dict[str, Callable[[JobStore, Job], object]] = {
    "update": lambda store, job: store.update(job.replace(status="queued")),
    "started by an update": lambda store, job: (
        store.update(job.replace(status="queued")),
        store.update(job.replace(status="started")),
        store.update(job.replace(status="queued")),
    ),
    "restore": lambda store, job: store.restore([job.replace(status="queued")], "replace"),
    "destroy": lambda store, job: (store.destroy(job), store.insert(Job("a", id=job.id))),
    "release and retry": lambda store, job: (store.release(job), store.retry(job)),
    "fail and retry": lambda store, job: (store.fail(job, "oh"), store.retry(job)),
}


class CancelRules(JobStoreHarness):
    @pytest.mark.parametrize("status", ["scheduled", "queued"])
    def test_what_waits_is_cancelled(
        self, store: JobStore, clock: ManualClock, status: str
    ) -> None:
        job = store.insert(
            Job("a", {"n": 1}, status=status, result=1, error="old", priority=2, unique_key="k")
        )
        clock.advance(_SECOND)
        cancelled = store.cancel(job)
        assert cancelled == job.replace(status="cancelled", updated_at=clock.time)
        assert found(store, job) == cancelled
        assert list(store.jobs("cancelled", worker="a")) == [cancelled]
        assert store.claim("a") == store.claim() == []

    def test_a_cancelled_job_does_not_fall_due(self, store: JobStore, clock: ManualClock) -> None:
        job = store.insert(Job("a", run_at=in_seconds(clock, 5)))
        assert store.cancel(job).run_at == job.run_at
        clock.advance(9 * _SECOND)
        assert store.claim("a") == []

    def test_what_is_started_is_asked_to_stop(self, store: JobStore, clock: ManualClock) -> None:
        claimed = claimed_new(store, arguments=b"x" * 5_000)
        assert not store.cancel_requested(claimed)
        clock.advance(_SECOND)
        asked = store.cancel(claimed)
        assert asked == claimed.replace(updated_at=clock.time)
        assert found(store, claimed) == asked
        assert store.cancel_requested(claimed)
        assert store.cancel(claimed).status is Status.STARTED
        assert store.cancel_requested(claimed)

    def test_one_request_is_not_anothers(self, store: JobStore) -> None:
        store.insert_many([Job("a")] * 3)
        first, second, third = store.claim("a", limit=3)
        store.cancel(second)
        assert [store.cancel_requested(job) for job in (first, second, third)] == [
            False,
            True,
            False,
        ]

    def test_who_was_asked_to_stop_may_complete(self, store: JobStore) -> None:
        claimed = claimed_new(store)
        store.cancel(claimed)
        completed = store.complete(claimed, "done")
        assert (completed.status, completed.result) == (Status.COMPLETED, "done")

    def test_who_was_asked_to_stop_may_fail(self, store: JobStore) -> None:
        claimed = claimed_new(store)
        store.cancel(claimed)
        failed = store.fail(claimed, "oh")
        assert (failed.status, failed.error, len(failed.failures)) == (Status.FAILED, "oh", 1)

    def test_who_was_asked_to_stop_is_not_scheduled_again(
        self, store: JobStore, clock: ManualClock
    ) -> None:
        claimed = claimed_new(store, result="old")
        store.cancel(claimed)
        cancelled = store.fail(claimed, "oh", in_seconds(clock, 5))
        assert (cancelled.status, cancelled.error, cancelled.result) == ("cancelled", "oh", None)
        assert (cancelled.run_at, cancelled.owner, cancelled.attempt) == (None, 0, 1)
        assert [failure.error for failure in cancelled.failures] == ["oh"]
        assert found(store, claimed) == cancelled
        clock.advance(9 * _SECOND)
        assert store.claim() == []

    def test_who_was_asked_to_stop_is_cancelled_though_its_attempts_are_used_up(
        self, store: JobStore, clock: ManualClock
    ) -> None:
        claimed = claimed_new(store, max_attempts=1)
        store.cancel(claimed)
        assert store.fail(claimed, "oh", clock.time).status is Status.CANCELLED

    def test_what_was_started_without_a_claim_is_cancelled_at_once(self, store: JobStore) -> None:
        job = store.insert(Job("a", status="started", unique_key="k"))
        assert store.cancel(job).status is Status.CANCELLED
        assert store.insert(Job("a", unique_key="k")).id != job.id

    def test_what_is_released_when_asked_to_stop_is_cancelled(
        self, store: JobStore, clock: ManualClock
    ) -> None:
        claimed = claimed_new(store, result="old", error="older")
        store.cancel(claimed)
        clock.advance(_SECOND)
        cancelled = store.release(claimed)
        assert cancelled == claimed.replace(
            status="cancelled", attempt=0, owner=0, updated_at=clock.time
        )
        assert found(store, claimed) == cancelled
        assert store.claim() == []

    def test_a_request_stays_while_the_job_is_started(self, store: JobStore) -> None:
        claimed = claimed_new(store)
        store.cancel(claimed)
        store.progress(claimed, 1, 2, "x" * 100)
        assert store.cancel_requested(claimed)
        store.update(claimed.replace(arguments=b"x" * 5_000, priority=3))
        assert store.cancel_requested(claimed)
        store.update(Job("a", id=claimed.id, status="started"))
        assert store.cancel_requested(claimed)
        assert store.release(claimed).status is Status.CANCELLED

    @pytest.mark.parametrize("leave", LEAVING.values(), ids=LEAVING.keys())
    def test_a_request_is_forgotten_when_the_job_is_no_longer_started(
        self, store: JobStore, leave: Callable[[JobStore, Job], object]
    ) -> None:
        claimed = claimed_new(store)
        store.cancel(claimed)
        leave(store, claimed)
        again = claim_one(store)
        assert again.id == claimed.id
        assert not store.cancel_requested(again)
        assert store.cancel_requested(claimed)
        assert store.release(again).status is Status.QUEUED

    def test_who_no_longer_holds_a_job_should_stop(
        self, store: JobStore, clock: ManualClock
    ) -> None:
        endings: list[Callable[[Job], object]] = [
            lambda job: store.complete(job),
            lambda job: store.fail(job, "oh"),
            lambda job: store.fail(job, "oh", in_seconds(clock, 5)),
            lambda job: store.cancel(store.release(job)),
            lambda job: store.destroy(job),
            lambda job: store.update(job.replace(status="completed")),
        ]
        for end in endings:
            claimed = claimed_new(store)
            assert not store.cancel_requested(claimed)
            end(claimed)
            assert store.cancel_requested(claimed)

    def test_who_held_a_job_before_should_stop(self, store: JobStore) -> None:
        before = claimed_new(store)
        store.release(before)
        now = claim_one(store)
        assert store.cancel_requested(before)
        assert not store.cancel_requested(now)
        assert not store.cancel_requested(Job("b", id=now.id, claim=now.claim))

    def test_whether_to_stop_is_asked_of_claimed_jobs(self, store: JobStore) -> None:
        job = store.insert(Job("a"))
        bad: list[Any] = [None, 1, "job", Job("a"), Job("a", claim=1)]
        for value in bad:
            with pytest.raises(InvalidJobError):
                store.cancel_requested(value)
        with pytest.raises(InvalidTransitionError):
            store.cancel_requested(job)

    def test_to_ask_whether_to_stop_changes_nothing(self, store: JobStore) -> None:
        claimed = claimed_new(store)
        store.cancel(claimed)
        with unchanged(store):
            assert store.cancel_requested(claimed)
            assert store.cancel_requested(claimed)

    @pytest.mark.parametrize("status", ENDED)
    def test_what_has_ended_is_not_cancelled(self, store: JobStore, status: Status) -> None:
        job = store.insert(Job("a", status=status))
        with unchanged(store), pytest.raises(InvalidTransitionError) as caught:
            store.cancel(job)
        assert caught.value.job_id == job.id

    def test_cancel_takes_an_id_or_a_job_of_which_only_the_id_counts(self, store: JobStore) -> None:
        first, second = store.insert_many([Job("a", 1), Job("a", 2)])
        assert first.id is not None
        assert store.cancel(first.id).arguments == 1
        cancelled = store.cancel(Job("b", "other", id=second.id, status="completed", claim=9))
        assert cancelled == second.replace(status="cancelled")

    def test_a_missing_job_is_not_cancelled(self, store: JobStore) -> None:
        with pytest.raises(JobNotFoundError) as caught:
            store.cancel(7)
        assert caught.value.job_id == 7

    @pytest.mark.parametrize("bad", NO_ID_OF_A_JOB, ids=label)
    def test_cancel_refuses_what_is_no_id(self, store: JobStore, bad: Any) -> None:
        job = store.insert(Job("a", id=1))
        cancels: list[Callable[[], object]] = [
            lambda: store.cancel(bad),
            lambda: store.cancel_many([job, bad]),
        ]
        for cancel in cancels:
            with unchanged(store), pytest.raises(InvalidJobError):
                cancel()

    def test_cancel_many_cancels_those_that_have_not_ended(
        self, store: JobStore, clock: ManualClock
    ) -> None:
        jobs = store.insert_many(Job("a", status=status) for status in Status)
        claimed = claimed_new(store, "b")
        clock.advance(_SECOND)
        cancelled = store.cancel_many([claimed, 999, *jobs[::-1], jobs[0]])
        by_status = {job.status: job for job in jobs}
        assert cancelled == [
            claimed.replace(updated_at=clock.time),
            by_status[Status.STARTED].replace(status="cancelled", updated_at=clock.time),
            by_status[Status.QUEUED].replace(status="cancelled", updated_at=clock.time),
            by_status[Status.SCHEDULED].replace(status="cancelled", updated_at=clock.time),
        ]
        assert [found(store, job) for job in cancelled] == cancelled
        assert store.cancel_requested(claimed)

    def test_cancel_many_of_nothing_is_nothing(self, store: JobStore) -> None:
        store.insert(Job("a", status="failed"))
        with unchanged(store):
            assert store.cancel_many([]) == store.cancel_many(iter([1, 2])) == []

    def test_a_listing_can_be_cancelled_as_it_is(self, store: JobStore) -> None:
        store.insert_many(Job("ab"[n % 2]) for n in range(600))
        assert len(store.cancel_many(store.incomplete("a"))) == 300
        assert len(store.cancel_many(store.incomplete().ids())) == 300
        assert store.counts()[Status.CANCELLED] == 600
