"""The verbs of runners and operators in batches, and submitted."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

from quelmdb.errors import (
    DuplicateJobError,
    EncodeError,
    InvalidJobError,
    InvalidTransitionError,
    JobError,
    JobNotFoundError,
    StaleClaim,
)
from quelmdb.job import Job
from quelmdb.persistence import JobStore
from quelmdb.status import Status
from quelmdb.testing.clock import ManualClock
from quelmdb.testing.harness import JobStoreHarness
from quelmdb.testing.rules.helpers import PATIENCE, found, ids, in_seconds, result_of, unchanged
from quelmdb.writes import Batch


class VerbRules(JobStoreHarness):
    def test_a_batch_has_all_that_runners_and_operators_write(
        self, store: JobStore, clock: ManualClock
    ) -> None:
        store.insert_many([Job("w", n) for n in range(6)])
        first, second, third, fourth, fifth, sixth = store.claim("w", limit=6)
        clock.advance(1_000)
        later = in_seconds(clock, 60)
        with store.batch() as batch:
            batch.insert(Job("a", 1, unique_key="k", run_at=later))
            batch.insert(Job("a", 2, unique_key="k"), "skip")
            batch.insert_many([Job("a", 3, unique_key="k", priority=2)], "replace")
            batch.complete_many([first, second], [1, 2])
            batch.fail(third, ValueError("oh"), later)
            batch.progress(fourth, 1, 2, "half")
            batch.cancel(third)
            batch.cancel_many([fifth, sixth, 999])
            batch.release(fifth)
            batch.retry(fifth)
            batch.retry_many([first, third, fourth])
            batch.pause("a")
            batch.pause("b")
            batch.resume("a")
        inserted, skipped, replaced, ended, failed, told, cancelled, *others = batch.results
        asked, released, retried, retried_many, *nothing = others
        assert skipped == inserted
        assert (inserted.status, inserted.run_at) == (Status.SCHEDULED, later)
        assert replaced == [found(store, inserted)]
        assert (replaced[0].arguments, replaced[0].priority) == (3, 2)
        assert [job.result for job in ended] == [1, 2]
        assert (failed.status, failed.run_at) == (Status.SCHEDULED, later)
        assert "ValueError: oh" in failed.error
        assert told == found(store, fourth)
        assert told.progress == (1, 2, "half")
        assert (cancelled.id, cancelled.status) == (third.id, Status.CANCELLED)
        assert ids(asked) == [fifth.id, sixth.id]
        assert store.cancel_requested(sixth)
        assert (released.status, retried.status) == (Status.CANCELLED, Status.QUEUED)
        assert retried == found(store, fifth)
        assert retried_many == [found(store, third)]
        assert nothing == [None] * 3
        assert store.paused() == ["b"]

    @pytest.mark.parametrize(
        "write",
        [
            lambda batch, jobs: batch.cancel(jobs["completed"]),
            lambda batch, jobs: batch.cancel(999),
            lambda batch, jobs: batch.retry(jobs["queued"]),
            lambda batch, jobs: batch.retry(999),
            lambda batch, jobs: batch.retry(jobs["failed"]),
            lambda batch, jobs: batch.insert(Job("b", unique_key="k")),
            lambda batch, jobs: batch.update(jobs["failed"].replace(status="started")),
            lambda batch, jobs: batch.progress(jobs["completed"].replace(claim=7), 1),
        ],
        ids=[
            "cancel of what has ended",
            "cancel of what is missing",
            "retry of what is queued",
            "retry of what is missing",
            "retry of a duplicate",
            "insert of a duplicate",
            "update to a duplicate",
            "progress of what is not held",
        ],
    )
    def test_a_write_that_raises_takes_all_else_with_it(
        self, store: JobStore, write: Callable[[Batch, dict[Status, Job]], None]
    ) -> None:
        stored = store.insert_many(
            [Job("a", status=status) for status in Status if status != "failed"]
            + [Job("a", status="failed", unique_key="k"), Job("a", unique_key="k")]
        )
        jobs = {job.status: job for job in stored[:-1]}
        batch = store.batch().__enter__()
        batch.insert(Job("new"))
        batch.cancel(jobs[Status.QUEUED])
        batch.retry(jobs[Status.CANCELLED])
        batch.pause("a")
        write(batch, {**jobs, Status.QUEUED: stored[-1]})
        with unchanged(store), pytest.raises(JobError):
            batch.__exit__(None, None, None)
        assert store.paused() == []
        assert batch.results == []

    def test_bad_words_of_runners_raise_at_the_call(self, store: JobStore) -> None:
        store.insert(Job("a"))
        (claimed,) = store.claim("a")
        bad: Any = "bad"
        with unchanged(store), store.batch() as batch:
            with pytest.raises(InvalidJobError):
                batch.fail(claimed, "oh", bad)
            with pytest.raises(InvalidJobError):
                batch.progress(claimed, bad)
            with pytest.raises(InvalidTransitionError):
                batch.progress(Job("a", id=claimed.id), 1)
            for verb in (batch.cancel, batch.retry):
                with pytest.raises(InvalidJobError):
                    verb(bad)
            for many in (batch.cancel_many, batch.retry_many):
                with pytest.raises(InvalidJobError):
                    many([claimed, bad])
            for of_worker in (batch.pause, batch.resume):
                with pytest.raises(InvalidJobError):
                    of_worker(bad.encode())
            with pytest.raises(EncodeError):
                batch.complete_many([claimed], [object()])
            with pytest.raises(ValueError):  # noqa: PT011 - its words are free
                batch.complete_many([claimed], [1, 2])

    def test_all_that_runners_and_operators_write_can_be_submitted(
        self, store: JobStore, clock: ManualClock
    ) -> None:
        store.insert_many([Job("w", n) for n in range(5)])
        first, second, third, fourth, fifth = store.claim("w", limit=5)
        clock.advance(1_000)
        later = in_seconds(clock, 60)
        submit = store.submit
        inserted = result_of(submit.insert(Job("a", 1, unique_key="k", run_at=later)))
        assert (inserted.status, inserted.run_at) == (Status.SCHEDULED, later)
        assert result_of(submit.insert(Job("a", 2, unique_key="k"), "skip")) == inserted
        (replaced,) = result_of(submit.insert_many([Job("a", 3, unique_key="k")], "replace"))
        assert replaced == found(store, inserted)
        assert replaced.arguments == 3
        ended = result_of(submit.complete_many([first, second], [1, 2]))
        assert [found(store, job) for job in (first, second)] == ended
        assert [job.result for job in ended] == [1, 2]
        failed = result_of(submit.fail(third, ValueError("oh"), later))
        assert failed == found(store, third)
        assert (failed.status, failed.run_at) == (Status.SCHEDULED, later)
        told = result_of(submit.progress(fourth, 1, 2, "half"))
        assert told == found(store, fourth)
        assert told.progress == (1, 2, "half")
        cancelled = result_of(submit.cancel(third))
        assert cancelled == found(store, third)
        assert cancelled.status is Status.CANCELLED
        asked = result_of(submit.cancel_many([fifth, 999]))
        assert ids(asked) == [fifth.id]
        assert store.cancel_requested(fifth)
        retried = result_of(submit.retry(third))
        assert retried == found(store, third)
        assert retried.status is Status.QUEUED
        released = result_of(submit.release(fifth))
        assert released.status is Status.CANCELLED
        assert result_of(submit.retry_many([fifth, first])) == [found(store, fifth)]
        assert result_of(submit.pause("w")) is None
        assert store.paused() == ["w"]
        assert result_of(submit.resume("w")) is None
        assert store.paused() == []

    def test_bad_words_of_runners_that_are_submitted_raise_at_the_call(
        self, store: JobStore
    ) -> None:
        store.insert(Job("a"))
        (claimed,) = store.claim("a")
        bad: Any = "bad"
        submit = store.submit
        with unchanged(store):
            with pytest.raises(InvalidJobError):
                submit.fail(claimed, "oh", bad)
            with pytest.raises(InvalidJobError):
                submit.progress(claimed, bad)
            with pytest.raises(InvalidTransitionError):
                submit.progress(Job("a", id=claimed.id), 1)
            for verb in (submit.cancel, submit.retry):
                with pytest.raises(InvalidJobError):
                    verb(bad)
            for many in (submit.cancel_many, submit.retry_many):
                with pytest.raises(InvalidJobError):
                    many([claimed, bad])
            for of_worker in (submit.pause, submit.resume):
                with pytest.raises(InvalidJobError):
                    of_worker(bad.encode())
            with pytest.raises(EncodeError):
                submit.complete_many([claimed], [object()])
            with pytest.raises(ValueError):  # noqa: PT011 - its words are free
                submit.complete_many([claimed], [1, 2])

    def test_what_cannot_be_cancelled_or_retried_is_the_exception_of_its_future(
        self, store: JobStore
    ) -> None:
        ended, queued, failed = store.insert_many(
            [
                Job("a", status="completed"),
                Job("a", unique_key="k"),
                Job("a", status="failed", unique_key="k"),
            ]
        )
        submit = store.submit
        with unchanged(store):
            futures: list[Future[Any]] = [
                submit.cancel(ended),
                submit.cancel(999),
                submit.retry(queued),
                submit.retry(999),
                submit.retry(failed),
                submit.insert(Job("b", unique_key="k")),
                submit.progress(queued.replace(claim=7), 1),
            ]
            errors = [type(future.exception(PATIENCE)) for future in futures]
        assert errors == [
            InvalidTransitionError,
            JobNotFoundError,
            InvalidTransitionError,
            JobNotFoundError,
            DuplicateJobError,
            DuplicateJobError,
            StaleClaim,
        ]
