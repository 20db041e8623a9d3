"""Attempts that fail: what is kept of them, and how a job gets another one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from quelmdb.errors import (
    InvalidJobError,
    InvalidTransitionError,
    JobNotFoundError,
    StaleClaim,
)
from quelmdb.job import Job
from quelmdb.options import MAX_FAILURE, MAX_FAILURES, Failure
from quelmdb.persistence import JobStore
from quelmdb.status import Status
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
from quelmdb.values import MAX_ATTEMPT, MAX_ERROR

_SECOND = 1_000_000

RETRIED = (Status.SCHEDULED, Status.FAILED, Status.CANCELLED)


class _Unspeakable(Exception):
    """Raises where its text is asked for."""

    def __str__(self) -> str:
        raise ZeroDivisionError


def _raised(cause: BaseException | None = None) -> BaseException:
    """An exception with a traceback."""
    try:
        raise LookupError("nothing there") from cause
    except LookupError as error:
        return error


class FailureRules(JobStoreHarness):
    def test_what_fails_for_now_is_scheduled_again(
        self, store: JobStore, clock: ManualClock
    ) -> None:
        claimed = claimed_new(store, arguments={"n": 1}, result="old", priority=3)
        started = clock.time
        clock.advance(_SECOND)
        failed = store.fail(claimed, "oh", retry_at=in_seconds(clock, 60))
        assert failed == claimed.replace(
            status="scheduled",
            run_at=in_seconds(clock, 60),
            error="oh",
            result=None,
            owner=0,
            updated_at=clock.time,
            failures=[Failure(1, started, clock.time, "oh")],
        )
        assert found(store, claimed) == failed
        assert list(store.jobs("scheduled", worker="a")) == list(store.incomplete()) == [failed]

    def test_what_is_scheduled_again_is_claimed_when_its_time_has_come(
        self, store: JobStore, clock: ManualClock
    ) -> None:
        retry_at = in_seconds(clock, 60)
        failed = store.fail(claimed_new(store), "oh", retry_at)
        clock.advance(60 * _SECOND - 1)
        with unchanged(store):
            assert store.claim("a") == []
        clock.advance(1)
        claimed = claim_one(store)
        assert (claimed.attempt, claimed.run_at) == (2, retry_at)
        assert (claimed.error, claimed.failures) == ("oh", failed.failures)

    def test_a_time_to_retry_that_has_passed_still_schedules(
        self, store: JobStore, clock: ManualClock
    ) -> None:
        for retry_at in (clock.time, in_seconds(clock, -3600)):
            failed = store.fail(claimed_new(store), "oh", retry_at)
            assert (failed.status, failed.run_at) == (Status.SCHEDULED, retry_at)
            assert claim_one(store).id == failed.id

    def test_without_a_time_to_retry_it_is_failed_whatever_is_left(self, store: JobStore) -> None:
        failed = store.fail(claimed_new(store, max_attempts=5), "oh")
        assert (failed.status, failed.run_at) == (Status.FAILED, None)

    def test_a_failed_job_keeps_the_time_that_it_had(
        self, store: JobStore, clock: ManualClock
    ) -> None:
        run_at = in_seconds(clock, -5)
        failed = store.fail(claimed_new(store, run_at=run_at), "oh")
        assert failed.run_at == run_at

    @pytest.mark.parametrize("most", [1, 2, 3])
    def test_who_has_used_up_its_attempts_is_failed(
        self, store: JobStore, clock: ManualClock, most: int
    ) -> None:
        job = store.insert(Job("a", max_attempts=most))
        for attempt in range(1, most + 1):
            failed = store.fail(claim_one(store), f"no {attempt}", clock.time)
            assert failed.status == ("scheduled" if attempt < most else "failed")
        assert store.claim("a") == []
        assert (failed.attempt, failed.error, failed.max_attempts) == (most, f"no {most}", most)
        assert [failure.error for failure in failed.failures] == [
            f"no {attempt}" for attempt in range(1, most + 1)
        ]
        assert found(store, job) == failed

    def test_without_a_limit_attempts_go_on(self, store: JobStore, clock: ManualClock) -> None:
        store.restore([Job("a", id=1, attempt=MAX_ATTEMPT - 1)])
        for _ in range(3):
            assert store.fail(claim_one(store), "oh", clock.time).status is Status.SCHEDULED

    def test_the_largest_limit_is_one(self, store: JobStore, clock: ManualClock) -> None:
        store.restore([Job("a", id=1, attempt=MAX_ATTEMPT - 2, max_attempts=MAX_ATTEMPT)])
        assert store.fail(claim_one(store), "oh", clock.time).status is Status.SCHEDULED
        assert store.fail(claim_one(store), "oh", clock.time).status is Status.FAILED

    def test_an_attempt_that_was_released_is_not_used_up(
        self, store: JobStore, clock: ManualClock
    ) -> None:
        store.insert(Job("a", max_attempts=1))
        store.release(claim_one(store))
        released = store.release(claim_one(store))
        assert (released.attempt, released.failures) == (0, ())
        assert store.fail(claim_one(store), "oh", clock.time).status is Status.FAILED

    def test_a_limit_that_an_update_lowers_counts(
        self, store: JobStore, clock: ManualClock
    ) -> None:
        claimed = claimed_new(store, max_attempts=9)
        store.update(claimed.replace(max_attempts=1))
        assert store.fail(claimed, "oh", clock.time).status is Status.FAILED

    def test_each_failure_has_its_attempt_and_its_times(
        self, store: JobStore, clock: ManualClock
    ) -> None:
        store.insert(Job("a"))
        wanted = []
        for attempt in range(1, 5):
            clock.advance(7 * _SECOND)
            claimed, started = claim_one(store), clock.time
            clock.advance(attempt * _SECOND)
            failed = store.fail(claimed, f"no {attempt}", clock.time)
            wanted.append(Failure(attempt, started, clock.time, f"no {attempt}", died=False))
            assert failed.failures == found(store, failed).failures == tuple(wanted)

    def test_the_latest_failures_are_kept(self, store: JobStore, clock: ManualClock) -> None:
        store.insert(Job("a", b"x" * 5_000))
        for attempt in range(1, MAX_FAILURES + 4):
            failed = store.fail(claim_one(store), f"{attempt}" * 500, clock.time)
            assert failed.arguments == b"x" * 5_000
        assert [failure.attempt for failure in failed.failures] == list(range(4, 14))
        assert found(store, failed) == failed

    def test_a_failure_has_the_ends_of_a_long_error(self, store: JobStore) -> None:
        error = "begin " + "x" * 3_000 + " end"
        failed = store.fail(claimed_new(store), error)
        (failure,) = failed.failures
        assert failed.error == error
        assert len(failure.error) <= MAX_FAILURE
        assert failure.error.startswith("begin xxx")
        assert failure.error.endswith("xxx end")

    def test_failures_stay_through_what_comes_after(
        self, store: JobStore, clock: ManualClock
    ) -> None:
        failed = store.fail(claimed_new(store), "oh", clock.time)
        claimed = claim_one(store)
        released = store.release(claimed)
        assert claimed.failures == released.failures == failed.failures
        completed = store.complete(claim_one(store), "done")
        assert (completed.error, completed.result) == (None, "done")
        assert completed.failures == failed.failures

    def test_an_update_takes_failures_from_the_given_job(
        self, store: JobStore, clock: ManualClock
    ) -> None:
        failed = store.fail(claimed_new(store), "oh", clock.time)
        assert store.update(failed.replace(error="other")).failures == failed.failures
        bare = store.update(Job("a", id=failed.id))
        assert (bare.failures, bare.run_at, bare.error) == ((), None, None)
        assert found(store, failed) == bare

    def test_an_update_leaves_the_time_of_the_claim(
        self, store: JobStore, clock: ManualClock
    ) -> None:
        claimed, started = claimed_new(store), clock.time
        clock.advance(_SECOND)
        store.update(claimed.replace(arguments="new", result=b"x" * 5_000))
        clock.advance(_SECOND)
        (failure,) = store.fail(claimed, "oh").failures
        assert (failure.started_at, failure.ended_at) == (started, clock.time)

    def test_what_was_claimed_before_has_another_time(
        self, store: JobStore, clock: ManualClock
    ) -> None:
        claimed = claimed_new(store)
        store.update(claimed.replace(arguments="new"))
        store.release(claimed)
        clock.advance(_SECOND)
        (failure,) = store.fail(claim_one(store), "oh").failures
        assert failure.started_at == failure.ended_at == clock.time

    def test_insert_takes_failures_and_limits(self, store: JobStore, clock: ManualClock) -> None:
        failures = [Failure(n, clock.time, clock.time, "é" * 1_000, n == 2) for n in range(10)]
        job = store.insert(Job("a", max_attempts=3, failures=failures))
        assert (job.failures, job.max_attempts) == (tuple(failures), 3)
        assert found(store, job) == job

    def test_an_exception_is_kept_as_its_traceback(self, store: JobStore) -> None:
        failed = store.fail(claimed_new(store), _raised())
        assert failed.error is not None
        assert "LookupError: nothing there" in failed.error
        assert "in _raised" in failed.error
        assert failed.error.startswith("Traceback")
        assert failed.failures[0].error.strip().endswith("LookupError: nothing there")
        assert found(store, failed) == failed

    def test_the_cause_of_an_exception_is_kept(self, store: JobStore) -> None:
        failed = store.fail(claimed_new(store), _raised(KeyError("the cause")))
        assert failed.error is not None
        assert failed.error.index("KeyError: 'the cause'") < failed.error.index("LookupError")

    @pytest.mark.parametrize(
        "error",
        [
            KeyboardInterrupt(),
            SystemExit(3),
            ExceptionGroup("several", [ValueError("one"), _Unspeakable()]),
            _Unspeakable(),
            ValueError("a surrogate \ud800"),
            ValueError("x" * (2 * MAX_ERROR)),
        ],
        ids=lambda error: type(error).__name__,
    )
    def test_no_exception_is_refused(self, store: JobStore, error: BaseException) -> None:
        failed = store.fail(claimed_new(store), error)
        assert failed.error is not None
        assert 0 < len(failed.error) <= MAX_ERROR
        assert found(store, failed) == failed

    @pytest.mark.parametrize(
        "retry_at", [datetime(2030, 1, 1), 0, 1.5, "2030-01-01", timedelta(1)], ids=repr
    )
    def test_a_time_to_retry_is_an_aware_one(self, store: JobStore, retry_at: Any) -> None:
        claimed = claimed_new(store)
        with unchanged(store), pytest.raises(InvalidJobError):
            store.fail(claimed, "oh", retry_at)
        assert store.complete(claimed).status is Status.COMPLETED

    def test_a_time_to_retry_may_be_of_any_zone(self, store: JobStore) -> None:
        retry_at = datetime(2031, 2, 3, 4, 5, 6, 789, timezone(timedelta(hours=-7)))
        failed = store.fail(claimed_new(store), "oh", retry_at)
        assert failed.run_at is not None
        assert (failed.run_at, failed.run_at.utcoffset()) == (retry_at, timedelta(0))


class RetryRules(JobStoreHarness):
    @pytest.mark.parametrize("status", RETRIED)
    def test_a_retried_job_is_queued_and_keeps_what_it_had(
        self, store: JobStore, clock: ManualClock, status: Status
    ) -> None:
        job = Job(
            "a",
            b"x" * 5_000,
            id=7,
            status=status,
            created_at=clock.time,
            updated_at=clock.time,
            attempt=3,
            claim=4,
            result="half",
            error="oh",
            run_at=in_seconds(clock, 60),
            priority=5,
            unique_key="k",
            max_attempts=3,
            failures=[Failure(3, clock.time, clock.time, "oh")],
        )
        store.restore([job])
        clock.advance(_SECOND)
        retried = store.retry(job)
        assert retried == job.replace(status="queued", run_at=None, updated_at=clock.time)
        assert found(store, job) == retried
        claimed = claim_one(store)
        assert (claimed.id, claimed.attempt) == (7, 4)
        assert store.next_due() is None

    def test_a_retried_job_that_has_no_attempt_left_has_one_more(
        self, store: JobStore, clock: ManualClock
    ) -> None:
        failed = store.fail(claimed_new(store, max_attempts=1), "oh", clock.time)
        store.retry(failed)
        again = store.fail(claim_one(store), "again", clock.time)
        assert (again.status, again.attempt) == (Status.FAILED, 2)

    @pytest.mark.parametrize("status", [status for status in Status if status not in RETRIED])
    def test_what_is_queued_started_or_completed_is_not_retried(
        self, store: JobStore, status: Status
    ) -> None:
        job = store.insert(Job("a", status=status))
        with unchanged(store), pytest.raises(InvalidTransitionError) as caught:
            store.retry(job)
        assert caught.value.job_id == job.id

    def test_retry_takes_an_id_or_a_job_of_which_only_the_id_counts(self, store: JobStore) -> None:
        first, second = store.insert_many([Job("a", 1, status="failed"), Job("a", 2, status="failed")])
        assert first.id is not None
        assert store.retry(first.id).status is Status.QUEUED
        retried = store.retry(Job("b", "other", id=second.id, status="completed"))
        assert (retried.worker, retried.arguments, retried.status) == ("a", 2, Status.QUEUED)

    def test_a_missing_job_is_not_retried(self, store: JobStore) -> None:
        job = store.insert(Job("a", status="failed"))
        store.destroy(job)
        with pytest.raises(JobNotFoundError) as caught:
            store.retry(job)
        assert caught.value.job_id == job.id

    @pytest.mark.parametrize("bad", NO_ID_OF_A_JOB, ids=label)
    def test_retry_refuses_what_is_no_id(self, store: JobStore, bad: Any) -> None:
        job = store.insert(Job("a", id=1, status="failed"))
        retries: list[Callable[[], object]] = [
            lambda: store.retry(bad),
            lambda: store.retry_many([job, bad]),
        ]
        for retry in retries:
            with unchanged(store), pytest.raises(InvalidJobError):
                retry()

    def test_a_retry_does_not_bring_an_old_claim_back(
        self, store: JobStore, clock: ManualClock
    ) -> None:
        claimed = claimed_new(store)
        store.retry(store.fail(claimed, "oh", in_seconds(clock, 9)))
        with unchanged(store), pytest.raises(StaleClaim):
            store.complete(claimed)
        again = claim_one(store)
        with unchanged(store), pytest.raises(StaleClaim):
            store.complete(claimed)
        assert store.complete(again).status is Status.COMPLETED

    def test_retry_many_retries_those_that_can_be(
        self, store: JobStore, clock: ManualClock
    ) -> None:
        jobs = store.insert_many(Job("a", n, status=status) for n, status in enumerate(Status))
        clock.advance(_SECOND)
        retried = store.retry_many([999, *jobs[::-1], jobs[0].id or 0])
        assert retried == [
            job.replace(status="queued", updated_at=clock.time)
            for job in jobs[::-1]
            if job.status in RETRIED
        ]
        assert [found(store, job) for job in retried] == retried
        assert store.counts("a")[Status.QUEUED] == 4

    def test_retry_many_of_nothing_is_nothing(self, store: JobStore) -> None:
        store.insert(Job("a"))
        with unchanged(store):
            assert store.retry_many([]) == store.retry_many(iter([1, 2])) == []

    def test_a_listing_can_be_retried_as_it_is(self, store: JobStore) -> None:
        store.insert_many(Job("ab"[n % 2], status="failed") for n in range(600))
        assert len(store.retry_many(store.failed("a"))) == 300
        assert len(store.retry_many(store.failed().ids())) == 300
        assert store.counts()[Status.QUEUED] == 600
