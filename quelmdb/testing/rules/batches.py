"""Batches: recorded writes that happen together at the end of the block, or not at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from quelmdb.errors import (
    BatchError,
    EncodeError,
    InvalidJobError,
    InvalidTransitionError,
    JobError,
    JobExistsError,
    JobNotFoundError,
    StaleClaim,
)
from quelmdb.job import Job
from quelmdb.persistence import JobStore
from quelmdb.status import Status
from quelmdb.testing.clock import ManualClock
from quelmdb.testing.harness import JobStoreHarness
from quelmdb.testing.rules.helpers import found, id_of, ids, in_seconds, label, unchanged
from quelmdb.values import MAX_CHOSEN_ID
from quelmdb.writes import Batch


class _CallersError(Exception):
    """Raised by the caller's own code."""


def _apply(batch: Batch) -> None:
    batch.__exit__(None, None, None)


class BatchRules(JobStoreHarness):
    def test_a_batch_is_applied_when_its_block_ends(self, store: JobStore) -> None:
        with store.batch() as batch:
            batch.insert(Job("a"))
            assert list(store.all()) == []
        assert list(store.all()) == batch.results

    def test_a_batch_tells_what_each_call_would_have_returned(
        self, store: JobStore, clock: ManualClock
    ) -> None:
        store.insert_many([Job("w", n) for n in range(5)])
        first, second, third, fourth, fifth = store.claim("w", limit=5)
        clock.advance(1_000)
        with store.batch() as batch:
            batch.insert(Job("a", id=100))
            batch.insert_many([Job("b"), Job("c")])
            batch.update(Job("d", id=100))
            batch.update_many([Job("e", id=200)])
            batch.complete(first, {"n": 1})
            batch.complete_many([second, third])
            batch.fail(fourth, "oh")
            batch.release(fifth)
            batch.destroy(100)
            batch.destroy_many([200, None])
        inserted, many, updated, updates, completed, completions, failed, released, *nothing = (
            batch.results
        )
        assert inserted == Job("a", id=100, created_at=clock.time, updated_at=clock.time)
        assert [job.worker for job in many] == ["b", "c"]
        assert updated == inserted.replace(worker="d")
        assert ids(updates) == [200]
        assert (completed.status, completed.result) == (Status.COMPLETED, {"n": 1})
        assert ids(completions) == [second.id, third.id]
        assert (failed.status, failed.error) == (Status.FAILED, "oh")
        assert (released.status, released.attempt) == (Status.QUEUED, 0)
        assert nothing == [None, None]
        assert list(store.all()) == [completed, *completions, failed, released, *many]

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
            _apply(batch)
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

    def test_a_batch_without_writes_changes_nothing(self, store: JobStore) -> None:
        store.insert(Job("a"))
        with unchanged(store):
            with store.batch() as batch:
                pass
            assert batch.results == []

    def test_done_and_its_follow_ups_happen_together(self, store: JobStore) -> None:
        store.insert(Job("a"))
        (claimed,) = store.claim("a")
        with store.batch() as batch:
            batch.complete(claimed, "done")
            batch.insert_many([Job("next", 1), Job("next", 2)])
        assert found(store, claimed).result == "done"
        assert [job.arguments for job in store.claim("next", limit=5)] == [1, 2]

    def test_a_stale_claim_takes_its_follow_ups_with_it(self, store: JobStore) -> None:
        store.insert(Job("a"))
        (claimed,) = store.claim("a")
        store.release(claimed)
        batch = store.batch().__enter__()
        batch.insert(Job("next"))
        batch.complete(claimed)
        batch.insert(Job("next"))
        with unchanged(store), pytest.raises(StaleClaim):
            _apply(batch)
        assert batch.results == []

    def test_a_taken_id_takes_all_else_with_it(self, store: JobStore) -> None:
        stored = store.insert(Job("a"))
        other = store.insert(Job("a"))
        batch = store.batch().__enter__()
        batch.insert(Job("new"))
        batch.destroy(other)
        batch.update(stored.replace(worker="b"))
        batch.insert(Job("c", id=stored.id))
        with unchanged(store), pytest.raises(JobExistsError):
            _apply(batch)
        assert store.workers() == ["a"]

    def test_a_missing_job_takes_all_else_with_it(self, store: JobStore) -> None:
        store.insert(Job("a"))
        (claimed,) = store.claim("a")
        store.destroy(claimed)
        batch = store.batch().__enter__()
        batch.insert(Job("new"))
        batch.fail(claimed, "oh")
        with unchanged(store), pytest.raises(JobNotFoundError):
            _apply(batch)

    def test_a_block_that_raises_applies_nothing(self, store: JobStore) -> None:
        job = store.insert(Job("a"))
        batch = store.batch()

        def block() -> None:
            with batch:
                batch.destroy(job)
                raise _CallersError

        with unchanged(store), pytest.raises(_CallersError):
            block()
        assert batch.results == []

    @pytest.mark.parametrize(
        ("bad", "error"),
        [
            (None, InvalidJobError),
            (Job("a", [object()]), EncodeError),
            (Job("a", result=[object()]), EncodeError),
            (Job("a", id=MAX_CHOSEN_ID + 1), InvalidJobError),
        ],
        ids=label,
    )
    def test_a_bad_job_raises_at_the_call(
        self, store: JobStore, bad: Any, error: type[Exception]
    ) -> None:
        with store.batch() as batch:
            with pytest.raises(error):
                batch.insert(bad)
            with pytest.raises(error):
                batch.insert_many([Job("b"), bad])
            batch.insert(Job("a"))
        assert [job.worker for job in store.all()] == ["a"]

    def test_bad_updates_destroys_and_endings_raise_at_the_call(self, store: JobStore) -> None:
        store.insert(Job("a"))
        (claimed,) = store.claim("a")
        bad: Any = "bad"
        with unchanged(store), store.batch() as batch:
            with pytest.raises(EncodeError):
                batch.update(Job("a", {1, 2}, id=claimed.id))
            with pytest.raises(InvalidJobError):
                batch.update_many([Job("b"), bad])
            with pytest.raises(InvalidJobError):
                batch.destroy(0)
            with pytest.raises(InvalidJobError):
                batch.destroy_many([claimed, bad])
            with pytest.raises(EncodeError):
                batch.complete(claimed, object())
            with pytest.raises(InvalidJobError):
                batch.complete_many([claimed, bad])
            with pytest.raises(InvalidJobError):
                batch.fail(claimed, bad.encode())
            with pytest.raises(InvalidTransitionError):
                batch.release(Job("a", id=claimed.id))

    def test_a_batch_outside_of_its_block_takes_no_writes(self, store: JobStore) -> None:
        batch = store.batch()
        with unchanged(store), pytest.raises(BatchError):
            batch.insert(Job("a"))
        with batch:
            batch.insert(Job("a"))
            with pytest.raises(BatchError):
                batch.__enter__()
        assert len(store.all()) == 1
        with unchanged(store), pytest.raises(BatchError):
            batch.destroy(batch.results[0])

    def test_a_batch_sees_its_own_writes(self, store: JobStore) -> None:
        store.insert(Job("a"))
        (claimed,) = store.claim("a")
        with store.batch() as batch:
            batch.insert(Job("b", 1, id=50))
            batch.destroy(50)
            batch.insert(Job("b", 2, id=50))
            batch.update(Job("c", 3, id=50))
            batch.insert(Job("d"))
            batch.complete(claimed)
            batch.update(Job("e", id=claimed.id))
        assert (found(store, claimed).worker, found(store, claimed).status) == ("e", "queued")
        assert store.find(50) == batch.results[3]
        assert id_of(batch.results[4]) > 50

    def test_a_claim_ends_once_in_a_batch(self, store: JobStore) -> None:
        store.insert(Job("a"))
        (claimed,) = store.claim("a")
        batch = store.batch().__enter__()
        batch.complete(claimed)
        batch.release(claimed)
        with unchanged(store), pytest.raises(StaleClaim):
            _apply(batch)

    def test_an_id_is_taken_by_an_earlier_write_of_the_batch(self, store: JobStore) -> None:
        batch = store.batch().__enter__()
        batch.insert(Job("a", id=5))
        batch.insert(Job("a", id=5))
        with unchanged(store), pytest.raises(JobExistsError):
            _apply(batch)

    def test_arguments_are_taken_as_they_are_at_the_call(self, store: JobStore) -> None:
        arguments = [1]
        with store.batch() as batch:
            batch.insert(Job("a", arguments))
            arguments.append(2)
        assert next(iter(store.all())).arguments == [1]

    def test_an_iterable_is_read_at_the_call(self, store: JobStore) -> None:
        jobs = [Job("a")]
        with store.batch() as batch:
            batch.insert_many(jobs)
            jobs.append(Job("b"))
        assert [job.worker for job in store.all()] == ["a"]

    def test_writes_beside_a_batch_go_before_it(self, store: JobStore) -> None:
        with store.batch() as batch:
            batch.insert(Job("recorded"))
            beside = store.insert(Job("beside"))
        assert id_of(beside) < id_of(batch.results[0])

    def test_the_times_of_a_batch_are_those_of_its_end(
        self, store: JobStore, clock: ManualClock
    ) -> None:
        with store.batch() as batch:
            batch.insert(Job("a"))
            clock.advance(5_000)
        assert batch.results[0].created_at == clock.time

    def test_batches_do_not_mix(self, store: JobStore) -> None:
        with store.batch() as outer:
            outer.insert(Job("outer"))
            with store.batch() as inner:
                inner.insert(Job("inner"))
            assert [job.worker for job in store.all()] == ["inner"]
        assert [job.worker for job in store.all()] == ["inner", "outer"]
