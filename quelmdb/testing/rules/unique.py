"""Unique keys: of all jobs that have not ended, one has it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import pytest

from quelmdb.errors import DuplicateJobError, EncodeError, JobExistsError
from quelmdb.job import Job
from quelmdb.persistence import JobStore
from quelmdb.status import ENDED, INCOMPLETE, Status
from quelmdb.testing.clock import ManualClock
from quelmdb.testing.harness import JobStoreHarness
from quelmdb.testing.rules.helpers import (
    claim_one,
    claimed_new,
    found,
    id_of,
    ids,
    in_seconds,
    unchanged,
)
from quelmdb.testing.rules.threads import in_threads, outcomes_in_threads

KEYS = ["k", "K", "kk", "k\0", "\0", " ", "é", "e\u0301", "x" * 199, "x" * 200, "é" * 100, "🜁" * 50]

ENDINGS: dict[str, Callable[[JobStore, Job], object]] = {
    "complete": lambda store, job: store.complete(job),
    "complete_many": lambda store, job: store.complete_many([job]),
    "fail": lambda store, job: store.fail(job, "oh"),
    "cancel": lambda store, job: (store.release(job), store.cancel(job)),
    "cancel while started": lambda store, job: (store.cancel(job), store.release(job)),
    "destroy": lambda store, job: store.destroy(job),
    "update": lambda store, job: store.update(job.replace(status="completed")),
    "another key": lambda store, job: store.update(job.replace(unique_key="other")),
    "no key": lambda store, job: store.update(job.replace(unique_key=None)),
    "restore": lambda store, job: store.restore([job.replace(status="failed")], "replace"),
}


def _new(**fields: Any) -> Job:
    return Job("a", unique_key="k", **fields)


class UniqueRules(JobStoreHarness):
    @pytest.mark.parametrize("status", INCOMPLETE)
    def test_a_key_is_held_by_what_has_not_ended(self, store: JobStore, status: Status) -> None:
        holder = store.insert(_new(status=status))
        for job in (_new(), Job("b", unique_key="k", status="started"), _new(status="scheduled")):
            with unchanged(store), pytest.raises(DuplicateJobError) as caught:
                store.insert(job)
            assert (caught.value.job_id, caught.value.found) == (holder.id, "k")
            with unchanged(store), pytest.raises(DuplicateJobError):
                store.insert(job, on_duplicate="raise")

    @pytest.mark.parametrize("status", ENDED)
    def test_what_has_ended_neither_holds_a_key_nor_needs_one(
        self, store: JobStore, status: Status
    ) -> None:
        ended = store.insert(_new(status=status))
        holder = store.insert(_new())
        for on_duplicate in ("raise", "skip", "replace"):
            other = store.insert(_new(status=status), on_duplicate=on_duplicate)
            assert (other.status, other.unique_key) == (status, "k")
        assert [found(store, job) for job in (ended, holder)] == [ended, holder]
        assert len(store.all()) == 5

    @pytest.mark.parametrize("end", ENDINGS.values(), ids=ENDINGS.keys())
    def test_a_key_is_free_when_its_job_ends_or_lets_it_go(
        self, store: JobStore, end: Callable[[JobStore, Job], object]
    ) -> None:
        holder = claimed_new(store, unique_key="k")
        end(store, holder)
        other = store.insert(_new())
        assert other.id != holder.id
        with unchanged(store), pytest.raises(DuplicateJobError):
            store.insert(_new())

    def test_a_key_is_held_through_claim_release_and_a_failure_for_now(
        self, store: JobStore, clock: ManualClock
    ) -> None:
        def refuses() -> None:
            with unchanged(store), pytest.raises(DuplicateJobError):
                store.insert(_new())

        claimed = claimed_new(store, unique_key="k")
        refuses()
        store.cancel(claimed)  # which is asked for, and not done
        refuses()
        store.progress(claimed, 1)
        refuses()
        store.update(claimed.replace(status="queued"))
        claimed = claim_one(store)
        store.release(claimed)
        refuses()
        store.fail(claim_one(store), "oh", in_seconds(clock, 5))
        refuses()
        clock.advance(5_000_000)
        store.complete(claim_one(store))
        store.insert(_new())

    def test_keys_are_told_apart_in_every_character(self, store: JobStore) -> None:
        jobs = store.insert_many(Job("a", unique_key=key) for key in KEYS)
        assert [job.unique_key for job in store.all()] == KEYS
        for job in jobs:
            with unchanged(store), pytest.raises(DuplicateJobError) as caught:
                store.insert(Job("b", unique_key=job.unique_key))
            assert caught.value.job_id == job.id
        for job in store.claim(limit=99):
            store.complete(job)
        assert len(store.insert_many(Job("a", unique_key=key) for key in KEYS)) == len(KEYS)

    def test_jobs_without_a_key_are_no_duplicates(self, store: JobStore) -> None:
        assert len(store.insert_many([Job("a")] * 3, on_duplicate="skip")) == 3
        assert len(store.insert_many([Job("a")] * 3, on_duplicate="replace")) == 3
        assert len(store.all()) == 6

    def test_a_duplicate_can_be_skipped(self, store: JobStore, clock: ManualClock) -> None:
        holder = store.insert(_new(arguments=b"x" * 5_000, run_at=in_seconds(clock, 9)))
        clock.advance(1_000)
        with unchanged(store):
            assert store.insert(Job("b", unique_key="k"), on_duplicate="skip") == holder
            assert store.insert(Job("b", unique_key="k", id=500), on_duplicate="skip") == holder
        store.retry(holder)
        claimed = claim_one(store)
        with unchanged(store):
            assert store.insert(_new(), on_duplicate="skip") == claimed

    @pytest.mark.parametrize("seconds", [-9, 9])
    def test_a_duplicate_that_waits_can_be_replaced(
        self, store: JobStore, clock: ManualClock, seconds: int
    ) -> None:
        store.insert(_new(arguments=b"x" * 5_000, result=b"y" * 5_000, error="z", priority=3))
        before = store.fail(claim_one(store), "oh", in_seconds(clock, seconds))
        clock.advance(1_000)
        new = store.insert(Job("b", "new", unique_key="k"), on_duplicate="replace")
        assert new == Job(
            "b",
            "new",
            id=before.id,
            unique_key="k",
            created_at=clock.time,
            updated_at=clock.time,
        )
        assert list(store.all()) == list(store.all("b")) == [new]
        assert store.next_due() is None
        assert store.claim("a") == []
        claimed = claim_one(store, "b")
        assert (claimed.attempt, claimed.failures) == (1, ())
        assert claimed.claim > before.claim

    def test_a_replacing_job_may_be_scheduled(self, store: JobStore, clock: ManualClock) -> None:
        holder = store.insert(_new())
        later = in_seconds(clock, 60)
        new = store.insert(_new(run_at=later), on_duplicate="replace")
        assert (new.id, new.status) == (holder.id, Status.SCHEDULED)
        assert store.claim("a") == []
        sooner = in_seconds(clock, 5)
        assert store.insert(_new(run_at=sooner), on_duplicate="replace").id == holder.id
        assert store.next_due() == sooner

    def test_a_replacing_job_comes_under_the_id_of_the_other(self, store: JobStore) -> None:
        holder = store.insert(_new())
        assert store.insert(_new(id=500), on_duplicate="replace").id == holder.id
        assert store.find(500) is None

    def test_a_started_duplicate_loses_its_key_and_goes_on(
        self, store: JobStore, clock: ManualClock
    ) -> None:
        started = claimed_new(store, unique_key="k", arguments=b"x" * 5_000)
        since = clock.time
        clock.advance(1_000)
        new = store.insert(_new(arguments="new"), on_duplicate="replace")
        assert new.id != started.id
        assert (new.status, new.unique_key) == (Status.QUEUED, "k")
        assert found(store, started) == started.replace(unique_key=None, updated_at=clock.time)
        third = store.insert(_new(arguments="third"), on_duplicate="replace")
        assert third.id == new.id
        claimed = claim_one(store)
        assert (claimed.id, claimed.arguments) == (new.id, "third")
        clock.advance(1_000)
        failed = store.fail(started, "oh", clock.time)
        assert (failed.status, failed.unique_key) == (Status.SCHEDULED, None)
        assert failed.failures[0].started_at == since
        assert store.complete(claimed).unique_key == "k"

    def test_a_started_duplicate_still_hears_that_it_was_cancelled(self, store: JobStore) -> None:
        started = claimed_new(store, unique_key="k")
        store.cancel(started)
        store.insert(_new(), on_duplicate="replace")
        assert store.cancel_requested(started)

    @pytest.mark.parametrize("on_duplicate", ["raise", "skip", "replace"])
    def test_a_taken_id_is_an_error_whatever_the_key(
        self, store: JobStore, on_duplicate: Literal["raise", "skip", "replace"]
    ) -> None:
        other = store.insert(Job("a"))
        holder = claimed_new(store, "b", unique_key="k")
        for taken in (other, holder):
            with unchanged(store), pytest.raises(JobExistsError):
                store.insert(_new(id=taken.id), on_duplicate=on_duplicate)

    def test_of_two_in_one_call_the_second_is_the_duplicate(self, store: JobStore) -> None:
        twice = [_new(arguments=1), Job("b", unique_key="other"), _new(arguments=2)]
        with unchanged(store), pytest.raises(DuplicateJobError):
            store.insert_many(twice)
        first, _, again = store.insert_many(twice, on_duplicate="skip")
        assert first == again
        assert [job.arguments for job in store.all()] == [1, None]
        store.destroy_many(store.all())
        first, _, again = store.insert_many(twice, on_duplicate="replace")
        assert first.id == again.id
        assert [job.arguments for job in store.all()] == [2, None]

    def test_insert_many_mixes_duplicates_and_others(self, store: JobStore) -> None:
        holder = store.insert(Job("a", unique_key="k1"))
        stored = store.insert_many(
            [Job("a", unique_key=f"k{n}") for n in range(3)] + [Job("a")], on_duplicate="skip"
        )
        assert stored[1] == holder
        assert len({job.id for job in stored}) == len(store.all()) == 4

    def test_a_refused_call_leaves_keys_as_they_were(self, store: JobStore) -> None:
        holder = claimed_new(store, unique_key="k")
        with unchanged(store), pytest.raises(JobExistsError):
            store.insert_many([_new(), Job("a", id=holder.id)], on_duplicate="replace")
        with unchanged(store), pytest.raises(EncodeError):
            store.insert_many([Job("a", unique_key="new"), Job("a", object())])
        with unchanged(store), pytest.raises(DuplicateJobError):
            store.insert_many([Job("a", unique_key="new"), _new()])
        assert store.insert(Job("a", unique_key="new")).unique_key == "new"

    @pytest.mark.parametrize("status", INCOMPLETE)
    def test_an_update_cannot_take_a_key(self, store: JobStore, status: Status) -> None:
        holder = store.insert(_new())
        other = store.insert(Job("b"))
        ended = store.insert(_new(status="completed"))
        for job in (
            other.replace(unique_key="k", status=status),
            ended.replace(status=status),
            _new(status=status),
            _new(id=500, status=status),
        ):
            with unchanged(store), pytest.raises(DuplicateJobError) as caught:
                store.update(job)
            assert (caught.value.job_id, caught.value.found) == (holder.id, "k")
            with unchanged(store), pytest.raises(DuplicateJobError):
                store.update_many([other.replace(arguments="new"), job])

    def test_an_update_keeps_its_own_key(self, store: JobStore) -> None:
        job = store.insert(_new())
        for changes in ({"status": "scheduled"}, {"worker": "b"}, {"status": "started"}, {}):
            updated = store.update(job.replace(**changes))
            assert updated.unique_key == "k"
        with unchanged(store), pytest.raises(DuplicateJobError):
            store.insert(_new())

    def test_keys_pass_on_in_the_order_of_an_update_of_many(self, store: JobStore) -> None:
        first, second = store.insert_many([_new(), Job("b")])
        without, having = first.replace(unique_key=None), second.replace(unique_key="k")
        with unchanged(store), pytest.raises(DuplicateJobError):
            store.update_many([having, without])
        assert [job.unique_key for job in store.update_many([without, having])] == [None, "k"]

    def test_restore_cannot_take_a_key(self, store: JobStore) -> None:
        holder = store.insert(_new())
        restored = _new(id=70)
        for job in (restored, restored.replace(status="started")):
            with unchanged(store), pytest.raises(DuplicateJobError) as caught:
                store.restore([Job("a", id=60), job], on_conflict="replace")
            assert caught.value.job_id == holder.id
        with unchanged(store), pytest.raises(DuplicateJobError):
            store.restore([Job("a", id=60, unique_key="new"), Job("a", id=61, unique_key="new")])
        assert len(store.restore([restored.replace(status="failed")])) == 1

    def test_restore_replaces_who_has_the_key_under_the_same_id(self, store: JobStore) -> None:
        holder = store.insert(_new())
        assert store.restore([_new(id=holder.id)], on_conflict="skip") == []
        (restored,) = store.restore([_new(id=holder.id, arguments=1)], on_conflict="replace")
        assert restored.arguments == 1
        with unchanged(store), pytest.raises(DuplicateJobError):
            store.insert(_new())
        store.restore([Job("a", id=holder.id)], on_conflict="replace")
        assert store.insert(_new()).id != holder.id

    def test_a_retry_cannot_take_a_key(self, store: JobStore) -> None:
        failed, cancelled = store.insert_many([_new(status="failed"), _new(status="cancelled")])
        holder = store.insert(_new())
        for job in (failed, cancelled):
            with unchanged(store), pytest.raises(DuplicateJobError) as caught:
                store.retry(job)
            assert caught.value.job_id == holder.id
        other = store.insert(Job("b", status="failed"))
        assert ids(store.retry_many([failed, other, cancelled])) == [other.id]
        store.destroy(holder)
        assert ids(store.retry_many([cancelled, failed])) == [cancelled.id]
        assert found(store, failed) == failed

    def test_a_scheduled_job_that_is_retried_keeps_its_key(
        self, store: JobStore, clock: ManualClock
    ) -> None:
        job = store.insert(_new(run_at=in_seconds(clock, 5)))
        assert store.retry(job).unique_key == "k"
        with unchanged(store), pytest.raises(DuplicateJobError):
            store.insert(_new())

    @pytest.mark.parametrize("on_duplicate", ["", "error", None, True, ["skip"]], ids=repr)
    def test_an_unknown_way_with_duplicates_is_refused(
        self, store: JobStore, on_duplicate: Any
    ) -> None:
        with unchanged(store), pytest.raises(ValueError, match="on_duplicate"):
            store.insert(Job("a"), on_duplicate)
        with unchanged(store), pytest.raises(ValueError, match="on_duplicate"):
            store.insert_many([Job("a")], on_duplicate)
        with unchanged(store), pytest.raises(ValueError, match="on_duplicate"):
            store.submit.insert(Job("a"), on_duplicate)
        with unchanged(store), store.batch() as batch:
            with pytest.raises(ValueError, match="on_duplicate"):
                batch.insert(Job("a"), on_duplicate)
            with pytest.raises(ValueError, match="on_duplicate"):
                batch.insert_many([Job("a")], on_duplicate)

    def test_a_batch_passes_a_key_on(self, store: JobStore) -> None:
        claimed = claimed_new(store, unique_key="k")
        with store.batch() as batch:
            batch.complete(claimed)
            batch.insert(_new())
            batch.insert(Job("b", unique_key="k"), on_duplicate="replace")
            batch.insert_many([_new()] * 2, on_duplicate="skip")
        _, first, second, many = batch.results
        assert first.id == second.id
        assert many == [second, second] == [found(store, second)] * 2
        batch = store.batch().__enter__()
        batch.insert(Job("b"))
        batch.insert(_new())
        with unchanged(store), pytest.raises(DuplicateJobError):
            batch.__exit__(None, None, None)

    def test_of_many_threads_with_one_key_one_inserts(self, store: JobStore) -> None:
        outcomes = outcomes_in_threads([partial(store.insert, _new(arguments=n)) for n in range(8)])
        assert Counter(map(type, outcomes)) == {Job: 1, DuplicateJobError: 7}
        skipped = in_threads([partial(store.insert, _new(), "skip")] * 8)
        assert {job.id for job in skipped} == {id_of(job) for job in store.all()}
        assert len(store.all()) == 1

    def test_of_many_submitted_with_one_key_one_is_stored(self, store: JobStore) -> None:
        futures = [store.submit.insert(_new(arguments=n)) for n in range(20)]
        outcomes = [future.exception(30) for future in futures]
        assert [type(outcome) for outcome in outcomes[1:]] == [DuplicateJobError] * 19
        assert [job.arguments for job in store.all()] == [0]
