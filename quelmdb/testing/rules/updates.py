"""What insert and update take from the given job, and what they set themselves."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from quelmdb.job import Job
from quelmdb.persistence import Persistence
from quelmdb.status import Status
from quelmdb.testing.clock import ManualClock
from quelmdb.testing.harness import PersistenceHarness
from quelmdb.testing.rules.helpers import found, ids

_LONG_AGO = datetime(2001, 2, 3, 4, 5, 6, 789, tzinfo=UTC)
_HOUR = 3_600_000_000


class UpdateRules(PersistenceHarness):
    def test_insert_returns_the_job_as_stored(self, store: Persistence) -> None:
        job = store.insert(Job("a", {"n": 1}, status="failed", result=[2], error="oh"))
        assert found(store, job) == job
        assert list(store.all()) == [job]

    def test_insert_takes_what_the_caller_says(self, store: Persistence) -> None:
        job = store.insert(Job("a", {"n": 1}, status="completed", result=[2], error="oh"))
        assert (job.worker, job.arguments, job.status) == ("a", {"n": 1}, Status.COMPLETED)
        assert (job.result, job.error) == ([2], "oh")

    @pytest.mark.parametrize("status", Status)
    def test_insert_takes_every_status(self, store: Persistence, status: Status) -> None:
        job = store.insert(Job("a", status=status))
        assert found(store, job).status is status

    def test_a_bare_job_is_queued(self, store: Persistence) -> None:
        job = found(store, store.insert(Job()))
        assert (job.worker, job.arguments, job.status) == (None, None, Status.QUEUED)
        assert (job.result, job.error) == (None, None)

    def test_insert_sets_both_times_whatever_is_handed_in(
        self, store: Persistence, clock: ManualClock
    ) -> None:
        job = store.insert(Job("a", created_at=_LONG_AGO, updated_at=_LONG_AGO))
        assert (job.created_at, job.updated_at) == (clock.time, clock.time)

    def test_times_are_aware_and_in_utc(self, store: Persistence) -> None:
        job = found(store, store.insert(Job("a")))
        for time in (job.created_at, job.updated_at):
            assert time is not None
            assert time.utcoffset() == timedelta(0)

    def test_insert_starts_without_attempt_claim_and_owner(self, store: Persistence) -> None:
        job = store.insert(Job("a", status="started", attempt=3, claim=4, owner=5))
        assert (job.attempt, job.claim, job.owner) == (0, 0, 0)

    def test_update_returns_the_job_as_stored(self, store: Persistence) -> None:
        job = store.insert(Job("a"))
        updated = store.update(job.replace(status="failed", arguments=[1]))
        assert found(store, job) == updated

    def test_update_replaces_the_whole_record(self, store: Persistence) -> None:
        job = store.insert(Job("a", {"n": 1}, result=1, error="old"))
        updated = store.update(Job("b", [2], id=job.id, status="failed", result=3, error="new"))
        assert (updated.worker, updated.arguments, updated.status) == ("b", [2], Status.FAILED)
        assert (updated.result, updated.error) == (3, "new")

    def test_update_with_a_bare_job_erases(self, store: Persistence) -> None:
        job = store.insert(Job("a", {"n": 1}, status="failed", result=1, error="old"))
        updated = store.update(Job(id=job.id))
        assert (updated.worker, updated.arguments, updated.status) == (None, None, Status.QUEUED)
        assert (updated.result, updated.error) == (None, None)
        assert list(store.all()) == [updated]

    def test_update_with_an_old_copy_brings_the_old_values_back(self, store: Persistence) -> None:
        old = store.insert(Job("a", {"n": 1}))
        store.update(old.replace(worker="b", arguments={"n": 2}, status="failed"))
        again = store.update(old)
        assert (again.worker, again.arguments, again.status) == ("a", {"n": 1}, Status.QUEUED)
        assert list(store.all("a")) == [again]
        assert list(store.all("b")) == []

    def test_update_sets_updated_at_also_where_nothing_changes(
        self, store: Persistence, clock: ManualClock
    ) -> None:
        job = store.insert(Job("a"))
        clock.advance(_HOUR)
        updated = store.update(job)
        assert updated == job.replace(updated_at=clock.time)

    def test_update_sets_updated_at_whatever_is_handed_in(
        self, store: Persistence, clock: ManualClock
    ) -> None:
        job = store.insert(Job("a"))
        clock.advance(_HOUR)
        assert store.update(job.replace(updated_at=_LONG_AGO)).updated_at == clock.time

    def test_update_takes_created_at_from_the_given_job(self, store: Persistence) -> None:
        job = store.insert(Job("a"))
        assert store.update(job.replace(created_at=_LONG_AGO)).created_at == _LONG_AGO

    def test_update_keeps_the_stored_created_at_where_none_is_given(
        self, store: Persistence, clock: ManualClock
    ) -> None:
        job = store.insert(Job("a"))
        clock.advance(_HOUR)
        assert store.update(Job("b", id=job.id)).created_at == job.created_at

    def test_update_of_a_missing_id_inserts_the_job_as_it_is(
        self, store: Persistence, clock: ManualClock
    ) -> None:
        job = store.update(Job("a", {"n": 1}, id=50, status="failed", created_at=_LONG_AGO))
        assert job == Job(
            "a",
            {"n": 1},
            id=50,
            status="failed",
            created_at=_LONG_AGO,
            updated_at=clock.time,
        )
        assert found(store, job) == job

    def test_update_of_a_missing_id_was_created_now(
        self, store: Persistence, clock: ManualClock
    ) -> None:
        job = store.update(Job("a", id=50))
        assert (job.created_at, job.updated_at) == (clock.time, clock.time)

    def test_update_without_id_takes_the_given_times_as_update_does(
        self, store: Persistence, clock: ManualClock
    ) -> None:
        job = store.update(Job("a", created_at=_LONG_AGO, updated_at=_LONG_AGO))
        assert (job.created_at, job.updated_at) == (_LONG_AGO, clock.time)
        assert store.update(Job("a")).created_at == clock.time

    def test_update_never_takes_attempt_claim_and_owner(self, store: Persistence) -> None:
        stored = store.insert(Job("a"))
        for given in (Job("a", id=stored.id), Job("a", id=50), Job("a")):
            job = store.update(given.replace(attempt=3, claim=4, owner=5, status="started"))
            assert (job.attempt, job.claim, job.owner) == (0, 0, 0)

    def test_update_of_a_destroyed_job_brings_it_back(self, store: Persistence) -> None:
        job = store.insert(Job("a", {"n": 1}))
        store.destroy(job)
        assert store.update(job).id == job.id
        assert ids(store.all()) == [job.id]

    def test_update_does_not_move_a_job_in_listings(self, store: Persistence) -> None:
        jobs = [store.insert(Job("a")) for _ in range(5)]
        store.update(jobs[1].replace(arguments="changed"))
        store.update(jobs[3].replace(status="started"))
        assert ids(store.incomplete("a")) == ids(jobs)

    def test_update_moves_a_job_to_the_listings_of_its_new_status_and_worker(
        self, store: Persistence
    ) -> None:
        job = store.insert(Job("a"))
        updated = store.update(job.replace(worker="b", status="completed"))
        assert list(store.all("a")) == []
        assert list(store.incomplete()) == []
        assert list(store.all("b")) == list(store.completed("b")) == [updated]

    @pytest.mark.parametrize(
        "time",
        [
            datetime(1, 1, 1, tzinfo=UTC),
            datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
            datetime(2024, 2, 29, 12, 0, 0, 1, tzinfo=timezone(timedelta(hours=-7))),
            datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        ],
        ids=str,
    )
    def test_times_keep_their_microseconds(self, store: Persistence, time: datetime) -> None:
        job = store.update(Job("a", created_at=time))
        assert found(store, job).created_at == time

    def test_a_clock_that_goes_back_is_believed(
        self, store: Persistence, clock: ManualClock
    ) -> None:
        job = store.insert(Job("a"))
        clock.advance(-_HOUR)
        assert store.update(job).updated_at == clock.time
        assert ids(store.all()) == [job.id]
