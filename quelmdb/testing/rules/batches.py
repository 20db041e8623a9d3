"""Batches: recorded writes that happen together at the end of the block, or not at all."""

from __future__ import annotations

from typing import Any

import pytest

from quelmdb.errors import (
    BatchError,
    EncodeError,
    InvalidJobError,
    InvalidTransitionError,
    JobExistsError,
    JobNotFoundError,
    StaleClaim,
)
from quelmdb.job import Job
from quelmdb.persistence import JobStore
from quelmdb.status import Status
from quelmdb.testing.clock import ManualClock
from quelmdb.testing.harness import JobStoreHarness
from quelmdb.testing.rules.helpers import found, id_of, ids, label, unchanged
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
