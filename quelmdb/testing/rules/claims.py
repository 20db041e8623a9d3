"""Claims: who gets which job, in which order, under which number."""

from __future__ import annotations

from typing import Any

import pytest

from quelmdb.errors import InvalidJobError, StaleClaim
from quelmdb.job import Job
from quelmdb.persistence import JobStore
from quelmdb.status import Status
from quelmdb.testing.clock import ManualClock
from quelmdb.testing.harness import JobStoreHarness
from quelmdb.testing.rules.helpers import found, ids, label, unchanged
from quelmdb.testing.rules.listings import SomeWorker
from quelmdb.values import ANY, MAX_ATTEMPT


class ClaimRules(JobStoreHarness):
    def test_a_claim_of_nothing_is_empty(self, store: JobStore) -> None:
        assert store.claim() == []
        assert store.claim("a", limit=5) == []

    def test_a_claimed_job_is_started_by_this_process(
        self, store: JobStore, clock: ManualClock
    ) -> None:
        job = store.insert(Job("a", {"n": 1}, result=1, error="old"))
        clock.advance(1_000)
        (claimed,) = store.claim("a")
        assert claimed == job.replace(
            status="started",
            attempt=1,
            claim=claimed.claim,
            owner=claimed.owner,
            updated_at=clock.time,
        )
        assert claimed.claim > 0
        assert claimed.owner > 0
        assert found(store, job) == claimed

    def test_a_claim_takes_one_job_where_no_limit_is_named(self, store: JobStore) -> None:
        jobs = store.insert_many([Job("a")] * 3)
        assert ids(store.claim("a")) == ids(jobs[:1])

    def test_a_limit_is_the_most_that_a_claim_takes(self, store: JobStore) -> None:
        jobs = store.insert_many([Job("a")] * 5)
        assert ids(store.claim("a", limit=3)) == ids(jobs[:3])
        assert ids(store.claim("a", limit=3)) == ids(jobs[3:])
        assert store.claim("a", limit=3) == []

    def test_a_job_is_claimed_once(self, store: JobStore) -> None:
        job = store.insert(Job("a"))
        (claimed,) = store.claim("a")
        assert claimed.id == job.id
        with unchanged(store):
            assert store.claim("a") == []
            assert store.claim() == []

    def test_claims_are_by_ascending_id_over_all_named_workers(self, store: JobStore) -> None:
        jobs = store.insert_many(Job(name) for name in ["a", "b", "c", "a", "c", "b", None, "a"])
        wanted = [job for job in jobs if job.worker in ("a", "b")]
        assert ids(store.claim("b", "a", limit=3)) == ids(wanted[:3])
        assert ids(store.claim("a", "b", limit=3)) == ids(wanted[3:])

    def test_without_a_worker_all_are_meant(self, store: JobStore) -> None:
        jobs = store.insert_many(Job(name) for name in ["b", None, "a", "b"])
        assert ids(store.claim(limit=3)) == ids(jobs[:3])
        assert ids(store.claim()) == ids(jobs[3:])

    def test_none_is_a_worker_to_claim_for(self, store: JobStore) -> None:
        jobs = store.insert_many(Job(name) for name in ["a", None, "b", None])
        assert ids(store.claim(None, limit=5)) == [jobs[1].id, jobs[3].id]
        assert ids(store.claim(None, "b", limit=5)) == [jobs[2].id]

    def test_a_class_or_function_is_a_worker_to_claim_for(self, store: JobStore) -> None:
        jobs = store.insert_many([Job(SomeWorker), Job("a"), Job(SomeWorker.perform)])
        assert ids(store.claim(SomeWorker.perform, SomeWorker, limit=5)) == [jobs[0].id, jobs[2].id]

    def test_a_worker_named_twice_counts_once(self, store: JobStore) -> None:
        jobs = store.insert_many([Job("a")] * 3)
        assert ids(store.claim("a", "a", limit=2)) == ids(jobs[:2])

    def test_an_unknown_worker_has_nothing_to_claim(self, store: JobStore) -> None:
        job = store.insert(Job("ab"))
        with unchanged(store):
            assert store.claim("a", "abc", limit=5) == []
        assert ids(store.claim("unknown", "ab")) == [job.id]

    @pytest.mark.parametrize("status", [status for status in Status if status != "queued"])
    def test_only_queued_jobs_are_claimed(self, store: JobStore, status: Status) -> None:
        store.insert(Job("a", status=status))
        with unchanged(store):
            assert store.claim("a", limit=5) == store.claim(limit=5) == []

    def test_a_smaller_id_goes_first_though_it_came_later(self, store: JobStore) -> None:
        store.insert(Job("a", id=100))
        store.insert(Job("a", id=50))
        assert ids(store.claim("a", limit=2)) == [50, 100]

    def test_a_released_job_goes_before_younger_ones(self, store: JobStore) -> None:
        first, second = store.insert_many([Job("a"), Job("a")])
        (claimed,) = store.claim("a")
        store.release(claimed)
        assert ids(store.claim("a", limit=2)) == [first.id, second.id]

    def test_a_job_that_becomes_queued_can_be_claimed(self, store: JobStore) -> None:
        job = store.insert(Job("a", status="failed"))
        assert store.claim("a") == []
        store.update(job.replace(status="queued"))
        assert ids(store.claim("a")) == [job.id]

    def test_a_destroyed_job_is_not_claimed(self, store: JobStore) -> None:
        first, second = store.insert_many([Job("a"), Job("a")])
        store.destroy(first)
        assert ids(store.claim("a", limit=2)) == [second.id]

    def test_each_claim_has_a_number_above_all_before(self, store: JobStore) -> None:
        store.insert_many([Job("a")] * 10)
        first = store.claim("a", limit=4)
        second = store.claim("a", limit=3)
        store.release(second[-1])
        third = store.claim("a", limit=10)
        numbers = [job.claim for job in (*first, *second, *third)]
        assert numbers == sorted(set(numbers))

    def test_a_claim_number_is_never_used_again(self, store: JobStore) -> None:
        seen: list[int] = []
        for _ in range(5):
            store.insert(Job("a"))
            (claimed,) = store.claim("a")
            seen.append(claimed.claim)
            store.destroy(claimed)
        assert seen == sorted(set(seen))

    def test_attempts_count_claims(self, store: JobStore) -> None:
        job = store.insert(Job("a"))
        for attempt in (1, 2, 3):
            (claimed,) = store.claim("a")
            assert claimed.attempt == attempt
            failed = store.fail(claimed, "again")
            assert failed.attempt == attempt
            store.update(failed.replace(status="queued"))
        assert found(store, job).attempt == 3

    def test_attempts_stop_at_the_largest_number(self, store: JobStore) -> None:
        store.restore([Job("a", id=1, attempt=MAX_ATTEMPT)])
        (claimed,) = store.claim("a")
        assert claimed.attempt == MAX_ATTEMPT

    def test_big_arguments_stay_through_claims(self, store: JobStore) -> None:
        arguments = {"bytes": b"x" * 50_000}
        job = store.insert(Job("a", arguments, result=b"y" * 5_000, error="z" * 5_000))
        (claimed,) = store.claim("a")
        assert claimed.arguments == arguments
        assert (claimed.result, claimed.error) == (job.result, job.error)
        assert store.release(claimed).arguments == arguments
        (claimed,) = store.claim("a")
        assert store.complete(claimed).arguments == found(store, job).arguments == arguments

    def test_many_jobs_are_claimed_in_order(self, store: JobStore) -> None:
        jobs = store.insert_many(Job("abc"[n % 3]) for n in range(600))
        claimed: list[Job] = []
        while taken := store.claim("a", "c", limit=7):
            claimed += taken
            store.complete_many(taken)
        assert ids(claimed) == [job.id for job in jobs if job.worker != "b"]

    def test_rescue_leaves_what_a_living_process_holds(self, store: JobStore) -> None:
        store.insert_many([Job("a"), Job("a")])
        store.claim("a")
        with unchanged(store):
            assert store.rescue() == []

    def test_rescue_leaves_what_nobody_ever_held(self, store: JobStore) -> None:
        store.insert(Job("a", status="started"))
        store.update(Job("a", status="started"))
        with unchanged(store):
            assert store.rescue() == []
            assert store.claim("a", limit=5) == []

    def test_an_update_that_leaves_a_job_started_leaves_its_claim(self, store: JobStore) -> None:
        store.insert(Job("a"))
        (claimed,) = store.claim("a")
        updated = store.update(claimed.replace(arguments="new", attempt=9, claim=9, owner=9))
        assert updated == claimed.replace(arguments="new")
        assert store.complete(claimed).status is Status.COMPLETED

    def test_an_update_to_another_status_ends_the_claim_and_keeps_its_number(
        self, store: JobStore
    ) -> None:
        store.insert(Job("a"))
        (claimed,) = store.claim("a")
        updated = store.update(claimed.replace(status="queued"))
        assert updated == claimed.replace(status="queued", owner=0)
        with unchanged(store), pytest.raises(StaleClaim):
            store.complete(claimed)
        (again,) = store.claim("a")
        assert again.claim > claimed.claim
        assert again.attempt == 2

    def test_a_job_that_an_update_starts_is_held_by_nobody(self, store: JobStore) -> None:
        store.insert(Job("a"))
        (claimed,) = store.claim("a")
        store.release(claimed)
        started = store.update(claimed)
        assert (started.status, started.claim, started.owner) == (Status.STARTED, 0, 0)
        assert started.attempt == 0
        with unchanged(store), pytest.raises(StaleClaim):
            store.complete(claimed)

    @pytest.mark.parametrize("worker", ["", "x" * 501, 5, b"a", ANY], ids=label)
    def test_a_claim_refuses_what_is_no_worker(self, store: JobStore, worker: Any) -> None:
        store.insert(Job("a"))
        with unchanged(store), pytest.raises(InvalidJobError):
            store.claim("a", worker)

    @pytest.mark.parametrize("limit", [-1, 1.0, True, "1", None], ids=repr)
    def test_the_limit_of_a_claim_is_a_number(self, store: JobStore, limit: Any) -> None:
        store.insert(Job("a"))
        with unchanged(store), pytest.raises(ValueError, match="limit"):
            store.claim("a", limit=limit)
