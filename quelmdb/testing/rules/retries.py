"""Retrying: a job that is failed, cancelled or scheduled gets another attempt at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest

from quelmdb.errors import (
    InvalidJobError,
    InvalidTransitionError,
    JobNotFoundError,
    StaleClaim,
)
from quelmdb.job import Job
from quelmdb.options import Failure
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

_SECOND: Final = 1_000_000

RETRIED: Final = (Status.SCHEDULED, Status.FAILED, Status.CANCELLED)


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
        first, second = store.insert_many(
            [Job("a", 1, status="failed"), Job("a", 2, status="failed")]
        )
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
