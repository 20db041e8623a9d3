"""Attempts that fail: what is kept of them, and when there is another one."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from quelmdb.errors import (
    InvalidJobError,
)
from quelmdb.job import Job
from quelmdb.options import MAX_FAILURE, MAX_FAILURES, Failure
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
from quelmdb.values import MAX_ATTEMPT, MAX_ERROR

_SECOND = 1_000_000


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
