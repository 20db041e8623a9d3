"""Priorities: who goes first, and that all else stays as it is."""

from __future__ import annotations

import pytest

from quelmdb.job import Job
from quelmdb.options import MAX_PRIORITY
from quelmdb.persistence import JobStore
from quelmdb.status import Status
from quelmdb.testing.clock import ManualClock
from quelmdb.testing.harness import JobStoreHarness
from quelmdb.testing.rules.helpers import claim_one, found, id_of, ids, in_seconds, unchanged


def _in_line(jobs: list[Job]) -> list[int | None]:
    """Their ids as claims go."""
    return ids(sorted(jobs, key=lambda job: (-job.priority, id_of(job))))


class PriorityRules(JobStoreHarness):
    def test_a_higher_priority_goes_first_then_the_smaller_id(self, store: JobStore) -> None:
        jobs = store.insert_many(Job("a", priority=n) for n in [0, 2, 0, 1, 2, 0, 1, 3])
        assert ids(store.claim("a", limit=9)) == _in_line(jobs)

    @pytest.mark.parametrize("limit", [1, 2, 3, 7])
    def test_a_priority_holds_from_claim_to_claim(self, store: JobStore, limit: int) -> None:
        jobs = store.insert_many(
            Job("abc"[n % 3], n, priority=(n * 7 % 5) if n % 2 else 0) for n in range(60)
        )
        claimed: list[Job] = []
        while taken := store.claim("a", "b", limit=limit):
            claimed += taken
        assert ids(claimed) == _in_line([job for job in jobs if job.worker != "c"])
        assert [job.claim for job in claimed] == sorted(job.claim for job in claimed)
        assert ids(store.claim(limit=60)) == _in_line([job for job in jobs if job.worker == "c"])

    def test_a_priority_counts_over_all_workers(self, store: JobStore) -> None:
        jobs = store.insert_many(
            [Job("a"), Job("b", priority=1), Job(None, priority=2), Job("c"), Job("a", priority=1)]
        )
        assert ids(store.claim(limit=2)) == _in_line(jobs)[:2]
        assert ids(store.claim(limit=9)) == _in_line(jobs)[2:]

    def test_a_priority_of_another_worker_does_not_count(self, store: JobStore) -> None:
        mine, other = store.insert_many([Job("a"), Job("b", priority=9)])
        assert ids(store.claim("a", limit=9)) == [mine.id]
        assert ids(store.claim("a", "b", limit=9)) == [other.id]

    def test_the_largest_priority_goes_before_all(self, store: JobStore) -> None:
        jobs = store.insert_many(
            Job("a", priority=n) for n in [0, 1, 255, 256, 65_536, MAX_PRIORITY - 1, MAX_PRIORITY]
        )
        assert ids(store.claim("a", limit=9)) == ids(jobs[::-1])

    def test_a_later_job_of_a_higher_priority_overtakes(self, store: JobStore) -> None:
        store.insert_many([Job("a", priority=1)] * 3)
        assert claim_one(store).id == 1
        urgent = store.insert(Job("a", priority=2))
        assert claim_one(store).id == urgent.id
        assert claim_one(store).id == 2

    def test_a_released_job_keeps_its_place(self, store: JobStore) -> None:
        jobs = store.insert_many(Job("a", priority=n) for n in [1, 5, 5])
        claimed = claim_one(store)
        assert claimed.priority == 5
        assert store.release(claimed).priority == 5
        assert ids(store.claim("a", limit=9)) == _in_line(jobs)

    def test_listings_are_by_id_whatever_the_priority(self, store: JobStore) -> None:
        jobs = store.insert_many(Job("a", priority=n) for n in [0, 3, 1, 2])
        assert list(store.all()) == list(store.incomplete("a")) == jobs

    def test_an_update_changes_a_priority(self, store: JobStore) -> None:
        first, second, third, fourth = store.insert_many(Job("a", priority=n) for n in [3, 2, 1, 0])
        store.update(first.replace(priority=0))
        store.update(fourth.replace(priority=9))
        store.update(third.replace(priority=2))
        assert ids(store.claim("a", limit=9)) == ids([fourth, second, third, first])

    def test_an_update_takes_a_priority_to_another_worker(self, store: JobStore) -> None:
        first, second = store.insert_many([Job("a", priority=1), Job("b")])
        store.update(first.replace(worker="b"))
        assert store.claim("a") == []
        assert ids(store.claim("b", limit=9)) == ids([first, second])

    def test_what_is_not_queued_is_not_claimed_for_its_priority(
        self, store: JobStore, clock: ManualClock
    ) -> None:
        for status in Status:
            if status is not Status.QUEUED:
                store.insert(Job("a", status=status, priority=5))
        store.insert(Job("a", run_at=in_seconds(clock, 5), priority=5))
        store.destroy(store.insert(Job("a", priority=5)))
        store.cancel(store.insert(Job("a", priority=5)))
        with unchanged(store):
            assert store.claim("a", limit=9) == store.claim(limit=9) == []

    def test_a_job_keeps_its_priority_through_its_life(
        self, store: JobStore, clock: ManualClock
    ) -> None:
        job = store.insert(Job("a", priority=7))
        store.insert(Job("a"))
        scheduled = store.fail(claim_one(store), "oh", in_seconds(clock, 5))
        clock.advance(5_000_000)
        failed = store.fail(claim_one(store), "oh")
        retried = store.retry(failed)
        claimed = claim_one(store)
        assert claimed.id == job.id
        completed = store.complete(claimed)
        assert {each.priority for each in (scheduled, failed, retried, claimed, completed)} == {7}
        assert found(store, job) == completed

    def test_a_restored_job_has_its_priority(self, store: JobStore) -> None:
        store.restore([Job("a", id=1), Job("a", id=2, priority=1)])
        store.restore([Job("a", id=1, priority=2)], on_conflict="replace")
        assert ids(store.claim("a", limit=9)) == [1, 2]

    def test_many_priorities_and_none_are_claimed_in_line(self, store: JobStore) -> None:
        jobs = store.insert_many(Job("a", priority=n * 37 % 11) for n in range(500))
        jobs += store.insert_many([Job("a")] * 300)
        claimed: list[Job] = []
        while taken := store.claim("a", limit=64):
            claimed += taken
            store.complete_many(taken)
        assert ids(claimed) == _in_line(jobs)
