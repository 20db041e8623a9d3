"""restore: jobs as they were, and what happens where their ids are taken."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from quelmdb.errors import (
    EncodeError,
    InvalidJobError,
    JobExistsError,
    StaleClaim,
    StoreFullError,
)
from quelmdb.job import Job
from quelmdb.persistence import JobStore
from quelmdb.status import Status
from quelmdb.testing.clock import ManualClock
from quelmdb.testing.harness import JobStoreHarness, new_directory
from quelmdb.testing.rules.helpers import found, id_of, ids, label, unchanged
from quelmdb.values import MAX_CHOSEN_ID, MAX_ID
from quelmdb.writes import OnConflict

_CREATED = datetime(2001, 2, 3, 4, 5, 6, 7, tzinfo=UTC)
_UPDATED = datetime(2002, 3, 4, 5, 6, 7, 8, tzinfo=UTC)

_WHOLE = Job(
    "a",
    {"n": [1]},
    id=70,
    status="failed",
    created_at=_CREATED,
    updated_at=_UPDATED,
    attempt=3,
    claim=40,
    result={"half": True},
    error="it broke",
)


class RestoreRules(JobStoreHarness):
    def test_a_restored_job_is_what_it_was(self, store: JobStore) -> None:
        assert store.restore([_WHOLE]) == [_WHOLE]
        assert store.find(70) == _WHOLE
        assert list(store.failed("a")) == [_WHOLE]

    @pytest.mark.parametrize("status", Status)
    def test_nobody_holds_a_restored_job(self, store: JobStore, status: Status) -> None:
        (restored,) = store.restore([_WHOLE.replace(status=status, owner=9)])
        claim = 0 if status is Status.STARTED else _WHOLE.claim
        assert restored == _WHOLE.replace(status=status, claim=claim)
        assert store.rescue() == []
        assert found(store, restored) == restored

    def test_a_claim_of_before_a_restore_ends_nothing(self, store: JobStore) -> None:
        store.insert(Job("a"))
        (claimed,) = store.claim("a")
        store.restore([claimed], on_conflict="replace")
        with unchanged(store), pytest.raises(StaleClaim):
            store.complete(claimed)

    def test_times_that_are_absent_become_now(self, store: JobStore, clock: ManualClock) -> None:
        (restored,) = store.restore([Job("a", id=1)])
        assert (restored.created_at, restored.updated_at) == (clock.time, clock.time)
        (restored,) = store.restore([Job("a", id=2, created_at=_CREATED)])
        assert (restored.created_at, restored.updated_at) == (_CREATED, clock.time)

    def test_restored_jobs_are_returned_in_the_order_given(self, store: JobStore) -> None:
        assert ids(store.restore(Job("a", id=n) for n in (9, 3, 6))) == [9, 3, 6]
        assert ids(store.all()) == [3, 6, 9]

    def test_ids_given_later_are_above_all_restored(self, store: JobStore) -> None:
        store.restore([Job("a", id=500), Job("a", id=30)])
        store.destroy(500)
        assert id_of(store.insert(Job("a"))) > 500

    def test_claims_given_later_are_above_all_restored(self, store: JobStore) -> None:
        store.restore([Job("a", id=1, claim=900), Job("a", id=2, claim=30)])
        claimed = store.claim("a", limit=2)
        assert [job.id for job in claimed] == [1, 2]
        assert min(job.claim for job in claimed) > 900

    def test_a_restored_claim_does_not_lower_the_next(self, store: JobStore) -> None:
        store.insert(Job("a"))
        (before,) = store.claim("a")
        store.restore([Job("b", id=1000, claim=0)])
        (after,) = store.claim("b")
        assert after.claim > before.claim

    def test_a_restored_job_goes_on_with_its_attempts(self, store: JobStore) -> None:
        store.restore([_WHOLE.replace(status="queued")])
        (claimed,) = store.claim("a")
        assert (claimed.attempt, claimed.created_at) == (4, _CREATED)

    def test_the_largest_ids_can_be_restored(self, store: JobStore) -> None:
        store.restore([Job("a", id=MAX_ID), Job("a", id=MAX_CHOSEN_ID + 1)])
        assert ids(store.all()) == [MAX_CHOSEN_ID + 1, MAX_ID]
        assert store.update(Job("b", id=MAX_ID)).worker == "b"

    def test_a_store_whose_ids_are_used_up_says_so(self, store: JobStore) -> None:
        store.restore([Job("a", id=MAX_ID - 1)])
        last = store.insert(Job("a"))
        assert last.id == MAX_ID
        for insert in (store.insert, store.update):
            with unchanged(store), pytest.raises(StoreFullError):
                insert(Job("a"))
        with unchanged(store), pytest.raises(StoreFullError):
            store.insert_many([Job("a"), Job("a")])
        assert store.insert(Job("a", id=7)).id == 7

    def test_the_largest_claim_that_is_restored_leaves_room_for_others(
        self, store: JobStore
    ) -> None:
        store.restore([Job("a", id=1, claim=MAX_CHOSEN_ID)])
        assert [job.claim for job in store.claim("a")] == [MAX_CHOSEN_ID + 1]
        with unchanged(store), pytest.raises(InvalidJobError):
            store.restore([Job("a", id=2, claim=MAX_CHOSEN_ID + 1)])

    def test_a_taken_id_is_an_error_and_nothing_is_stored(self, store: JobStore) -> None:
        stored = store.insert(Job("b"))
        jobs = [_WHOLE, _WHOLE.replace(id=stored.id), _WHOLE.replace(id=71)]
        for restore in (store.restore, lambda jobs: store.restore(jobs, on_conflict="error")):
            with unchanged(store), pytest.raises(JobExistsError) as caught:
                restore(jobs)
            assert caught.value.job_id == stored.id

    def test_a_taken_id_can_be_skipped(self, store: JobStore) -> None:
        stored = store.insert(Job("b", {"kept": True}))
        other = _WHOLE.replace(id=71)
        restored = store.restore([_WHOLE, Job("c", id=stored.id), other], on_conflict="skip")
        assert restored == [_WHOLE, other]
        assert list(store.all()) == [stored, _WHOLE, other]

    def test_a_taken_id_can_be_replaced(self, store: JobStore) -> None:
        stored = store.insert(Job("b", b"x" * 9000, result=b"y" * 9000, error="z" * 9000))
        replacing = _WHOLE.replace(id=stored.id)
        assert store.restore([_WHOLE, replacing], on_conflict="replace") == [_WHOLE, replacing]
        assert list(store.all("a")) == list(store.failed()) == [replacing, _WHOLE]
        assert store.workers() == ["a"]

    def test_replacing_a_held_job_ends_its_claim(self, store: JobStore) -> None:
        store.insert(Job("a", id=70))
        (claimed,) = store.claim("a")
        (restored,) = store.restore([claimed.replace(status="queued")], on_conflict="replace")
        assert restored == claimed.replace(status="queued", owner=0)
        (again,) = store.claim("a")
        assert again.claim > claimed.claim

    @pytest.mark.parametrize(("on_conflict", "kept"), [("skip", 1), ("replace", 2)])
    def test_an_id_twice_in_one_call_is_taken_the_second_time(
        self, store: JobStore, on_conflict: OnConflict, kept: int
    ) -> None:
        twice = [Job("a", 1, id=5), Job("a", 2, id=5)]
        with unchanged(store), pytest.raises(JobExistsError):
            store.restore(twice)
        store.restore(twice, on_conflict=on_conflict)
        assert [job.arguments for job in store.all()] == [kept]

    @pytest.mark.parametrize(
        ("bad", "error"),
        [
            (Job("a"), InvalidJobError),
            (None, InvalidJobError),
            (7, InvalidJobError),
            (Job("a", {1, 2}, id=9), EncodeError),
            (Job("a", id=9, result=object()), EncodeError),
            (Job("a", id=9, result="\ud800"), EncodeError),
        ],
        ids=label,
    )
    def test_restore_restores_none_where_one_is_refused(
        self, store: JobStore, bad: Any, error: type[Exception]
    ) -> None:
        store.insert(Job("b"))
        with unchanged(store), pytest.raises(error):
            store.restore([_WHOLE, bad], on_conflict="replace")

    @pytest.mark.parametrize("on_conflict", ["", "ignore", None, True], ids=repr)
    def test_an_unknown_way_with_conflicts_is_refused(
        self, store: JobStore, on_conflict: Any
    ) -> None:
        with unchanged(store), pytest.raises(ValueError, match="on_conflict"):
            store.restore([_WHOLE], on_conflict=on_conflict)

    def test_a_store_can_be_carried_into_another(
        self, store: JobStore, clock: ManualClock, tmp_path: Path
    ) -> None:
        store.insert_many(Job("ab"[n % 2], {"n": n}, status=list(Status)[n % 6]) for n in range(60))
        for job in store.claim("a", limit=5):
            store.fail(job, "oh" * 1000)
        other = self.open_store(new_directory(tmp_path, "other"), clock)
        clock.advance(1_000_000)
        other.restore(store.all())
        assert list(other.all()) == list(store.all())
        assert other.counts() == store.counts()
        self.close_store(other)
