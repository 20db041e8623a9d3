"""Jobs that are not to run before a time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from quelmdb.job import Job
from quelmdb.persistence import JobStore, Persistence
from quelmdb.status import Status
from quelmdb.testing.clock import ManualClock
from quelmdb.testing.harness import JobStoreHarness, PersistenceHarness
from quelmdb.testing.rules.helpers import claim_one, found, id_of, ids, in_seconds, unchanged

_SECOND = 1_000_000
_FIRST = datetime.min.replace(tzinfo=UTC)
_LAST = datetime.max.replace(tzinfo=UTC)


class RunAtRules(PersistenceHarness):
    def test_what_is_to_run_later_is_scheduled(
        self, store: Persistence, clock: ManualClock
    ) -> None:
        run_at = clock.time + timedelta(microseconds=1)
        job = store.insert(Job("a", run_at=run_at))
        assert (job.status, job.run_at) == (Status.SCHEDULED, run_at)
        assert found(store, job) == job
        assert list(store.incomplete("a")) == [job]

    @pytest.mark.parametrize("before", [0, 1, 3_600 * _SECOND])
    def test_what_may_run_by_now_is_queued(
        self, store: Persistence, clock: ManualClock, before: int
    ) -> None:
        run_at = clock.time - timedelta(microseconds=before)
        job = store.insert(Job("a", run_at=run_at))
        assert (job.status, job.run_at) == (Status.QUEUED, run_at)
        assert found(store, job) == job

    @pytest.mark.parametrize("status", [status for status in Status if status != "queued"])
    def test_only_what_is_queued_becomes_scheduled(
        self, store: Persistence, clock: ManualClock, status: Status
    ) -> None:
        for run_at in (None, in_seconds(clock, -9), in_seconds(clock, 9)):
            job = store.insert(Job("a", status=status, run_at=run_at))
            assert (job.status, job.run_at) == (status, run_at)
            assert store.update(job) == found(store, job) == job

    def test_an_update_schedules_what_is_to_run_later(
        self, store: Persistence, clock: ManualClock
    ) -> None:
        run_at = in_seconds(clock, 60)
        job = store.insert(Job("a"))
        updated = store.update(job.replace(run_at=run_at))
        assert updated == job.replace(status="scheduled", run_at=run_at)
        assert store.update(updated.replace(status="queued")) == updated
        clock.advance(60 * _SECOND)
        assert store.update(updated.replace(status="queued")).status is Status.QUEUED
        later = in_seconds(clock, 1)
        for given in (Job("a", id=99, run_at=later), Job("a", run_at=later)):
            assert store.update(given).status is Status.SCHEDULED

    def test_an_update_with_a_bare_job_erases_what_was_asked_for(
        self, store: Persistence, clock: ManualClock
    ) -> None:
        job = store.insert(
            Job("a", run_at=in_seconds(clock, 9), priority=5, unique_key="k", max_attempts=3)
        )
        bare = store.update(Job("a", id=job.id))
        asked = (bare.run_at, bare.priority, bare.unique_key, bare.max_attempts)
        assert asked == (None, 0, None, None)
        assert bare.status is Status.QUEUED
        assert found(store, job) == bare

    def test_a_time_to_run_keeps_its_microseconds_and_is_told_in_utc(
        self, store: Persistence
    ) -> None:
        time = datetime(2998, 2, 28, 12, 0, 0, 1, tzinfo=timezone(timedelta(hours=5)))
        job = found(store, store.insert(Job("a", run_at=time)))
        assert job.run_at is not None
        assert (job.run_at, job.run_at.utcoffset()) == (time, timedelta(0))

    @pytest.mark.parametrize(("time", "status"), [(_FIRST, "queued"), (_LAST, "scheduled")])
    def test_the_first_and_the_last_time_are_times_to_run(
        self, store: Persistence, time: datetime, status: str
    ) -> None:
        job = store.insert(Job("a", run_at=time))
        assert (job.run_at, job.status) == (time, status)
        assert found(store, job) == job

    def test_all_that_a_job_may_ask_for_is_stored_beside_big_values(
        self, store: Persistence, clock: ManualClock
    ) -> None:
        for size in (0, 10, 1_000, 3_000, 9_000):
            job = store.insert(
                Job(
                    "a",
                    b"x" * size,
                    result=b"y" * size,
                    error="z" * size,
                    run_at=in_seconds(clock, 1),
                    priority=2**31 - 1,
                    unique_key=f"{size}" + "é" * 95,
                    max_attempts=2**32 - 1,
                )
            )
            assert found(store, job) == job
            assert store.update(job) == job


class ScheduleRules(JobStoreHarness):
    def test_a_job_is_claimed_from_its_time_on(self, store: JobStore, clock: ManualClock) -> None:
        job = store.insert(Job("a", {"n": 1}, run_at=in_seconds(clock, 60)))
        clock.advance(60 * _SECOND - 1)
        with unchanged(store):
            assert store.claim("a") == store.claim() == []
        clock.advance(1)
        claimed = claim_one(store)
        assert claimed == job.replace(
            status="started",
            attempt=1,
            claim=claimed.claim,
            owner=claimed.owner,
            updated_at=clock.time,
        )
        assert found(store, job) == claimed

    def test_what_is_scheduled_without_a_time_never_falls_due(
        self, store: JobStore, clock: ManualClock
    ) -> None:
        job = store.insert(Job("a", status="scheduled"))
        assert store.next_due() is None
        clock.advance(10**15)
        with unchanged(store):
            assert store.claim("a") == store.claim() == []
        store.retry(job)
        assert claim_one(store).id == job.id

    def test_due_jobs_are_claimed_in_the_order_of_all(
        self, store: JobStore, clock: ManualClock
    ) -> None:
        later = store.insert(Job("a", run_at=in_seconds(clock, 9)))
        queued = store.insert(Job("a"))
        sooner = store.insert(Job("a", run_at=in_seconds(clock, 3)))
        urgent = store.insert(Job("a", run_at=in_seconds(clock, 6), priority=1))
        clock.advance(10 * _SECOND)
        assert ids(store.claim("a", limit=9)) == ids([urgent, later, queued, sooner])

    def test_a_claim_takes_due_jobs_of_its_own_workers(
        self, store: JobStore, clock: ManualClock
    ) -> None:
        first, second, other = store.insert_many(
            Job(name, run_at=in_seconds(clock, 1)) for name in ["a", None, "b"]
        )
        clock.advance(2 * _SECOND)
        assert ids(store.claim("a", None, limit=9)) == ids([first, second])
        assert ids(store.claim(limit=9)) == ids([other])

    def test_a_job_that_fell_due_stays_queued_though_the_clock_goes_back(
        self, store: JobStore, clock: ManualClock
    ) -> None:
        job = store.insert(Job("a", run_at=in_seconds(clock, 60)))
        clock.advance(60 * _SECOND)
        claimed = claim_one(store)
        clock.advance(-60 * _SECOND)
        released = store.release(claimed)
        assert (released.status, released.run_at) == (Status.QUEUED, job.run_at)
        assert claim_one(store).id == job.id

    def test_many_that_are_due_are_all_claimed_once(
        self, store: JobStore, clock: ManualClock
    ) -> None:
        jobs = store.insert_many(Job("a", run_at=in_seconds(clock, 1 + n % 7)) for n in range(700))
        not_yet = store.insert(Job("a", run_at=in_seconds(clock, 60)))
        clock.advance(8 * _SECOND)
        claimed: list[Job] = []
        while taken := store.claim("a", limit=500):
            claimed += taken
        assert sorted(map(id_of, claimed)) == ids(jobs)
        assert ids(store.jobs("scheduled")) == [not_yet.id]

    def test_the_next_due_is_the_earliest_of_what_is_scheduled(
        self, store: JobStore, clock: ManualClock
    ) -> None:
        assert store.next_due() is None
        times = [in_seconds(clock, seconds) for seconds in (50, 20, 40, 20, 30)]
        jobs = store.insert_many(Job("ab"[n % 2], run_at=time) for n, time in enumerate(times))
        store.insert(Job("a", run_at=in_seconds(clock, -5)))
        store.insert(Job("a", status="failed", run_at=in_seconds(clock, 5)))
        assert store.next_due() == times[1]
        store.cancel(jobs[1])
        assert store.next_due() == times[1]
        store.retry(jobs[3])
        assert store.next_due() == times[4]
        store.destroy(jobs[4])
        assert store.next_due() == times[2]
        store.update(jobs[2].replace(run_at=times[0] + timedelta(seconds=9)))
        assert store.next_due() == times[0]
        clock.advance(200 * _SECOND)
        assert store.next_due() == times[0]  # it is due, and was not made so
        assert len(store.claim(limit=9)) == 4
        assert store.next_due() is None

    def test_what_fails_for_now_is_the_next_due(self, store: JobStore, clock: ManualClock) -> None:
        store.insert(Job("a"))
        retry_at = in_seconds(clock, 5)
        store.fail(claim_one(store), "oh", retry_at)
        assert store.next_due() == retry_at

    def test_times_before_1970_and_far_ahead_are_in_order(
        self, store: JobStore, clock: ManualClock
    ) -> None:
        years = [1970, 9999, 1, 1969, 2500, 1960]
        times = [datetime(year, 1, 1, tzinfo=UTC) for year in years]
        store.restore(
            Job("a", id=n, status="scheduled", run_at=time) for n, time in enumerate(times, 1)
        )
        assert store.next_due() == datetime(1, 1, 1, tzinfo=UTC)
        assert ids(store.claim(limit=9)) == [1, 3, 4, 6]
        assert store.next_due() == datetime(2500, 1, 1, tzinfo=UTC)
        store.destroy(5)
        assert store.next_due() == datetime(9999, 1, 1, tzinfo=UTC)

    def test_restore_leaves_statuses_and_times_as_they_are(
        self, store: JobStore, clock: ManualClock
    ) -> None:
        given = [
            Job(
                "a",
                id=number,
                status=status,
                run_at=in_seconds(clock, seconds),
                created_at=clock.time,
                updated_at=clock.time,
            )
            for number, (status, seconds) in enumerate(
                [("queued", 60), ("scheduled", -60), ("failed", 60), ("scheduled", 60)], 1
            )
        ]
        assert store.restore(given) == given
        assert list(store.all()) == given
        assert ids(store.claim(limit=9)) == [1, 2]

    def test_scheduled_jobs_are_counted_as_such(self, store: JobStore, clock: ManualClock) -> None:
        store.insert_many([Job("a"), *[Job("a", run_at=in_seconds(clock, 5))] * 2])
        counts = store.counts("a")
        assert (counts[Status.QUEUED], counts[Status.SCHEDULED]) == (1, 2)
        with store.snapshot() as snapshot:
            clock.advance(5 * _SECOND)
            assert len(store.claim("a", limit=9)) == 3
            assert [job.run_at for job in snapshot.jobs("scheduled")] == [clock.time] * 2
        assert store.counts("a")[Status.SCHEDULED] == 0

    def test_a_destroyed_or_completed_job_does_not_fall_due(
        self, store: JobStore, clock: ManualClock
    ) -> None:
        first, second, third = store.insert_many([Job("a", run_at=in_seconds(clock, 5))] * 3)
        store.destroy(first)
        store.update(second.replace(status="completed"))
        clock.advance(5 * _SECOND)
        assert ids(store.claim("a", limit=9)) == [third.id]
