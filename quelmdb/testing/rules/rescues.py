"""Rescue: what becomes of the jobs that somebody held who is gone."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from quelmdb.errors import DuplicateJobError, StaleClaim
from quelmdb.job import Job
from quelmdb.options import DIED, MAX_FAILURES, Failure
from quelmdb.persistence import JobStore
from quelmdb.status import Status
from quelmdb.testing.clock import ManualClock
from quelmdb.testing.harness import JobStoreHarness, Life
from quelmdb.testing.rules.helpers import claim_one, claimed_new, found, id_of, ids, unchanged

_SECOND = 1_000_000


def _by_rescue(store: JobStore) -> None:
    store.rescue()


def _by_wait(store: JobStore) -> None:
    assert store.wait(timeout=30)


def _by_claim(store: JobStore) -> None:
    for job in store.claim("nobody has jobs of this one", limit=5):
        store.release(job)


each_way = pytest.mark.parametrize(
    "rescue", [_by_rescue, _by_wait, _by_claim], ids=["rescue", "wait", "claim"]
)


class RescueRules(JobStoreHarness):
    def test_an_author_opens_the_store_again(self, life: Life) -> None:
        job = life.store.insert(Job("a", {"n": 1}))
        store = life.reopen()
        assert list(store.all()) == [job]

    def test_what_was_held_is_queued_again_and_the_attempt_counts(
        self, life: Life, clock: ManualClock
    ) -> None:
        claimed = claimed_new(
            life.store, arguments=b"x" * 5_000, result="old", error="older", priority=2
        )
        started = clock.time
        clock.advance(_SECOND)
        store = life.reopen()
        assert found(store, claimed) == claimed
        (rescued,) = store.rescue()
        assert rescued == claimed.replace(
            status="queued",
            owner=0,
            updated_at=clock.time,
            failures=[Failure(1, started, clock.time, DIED, died=True)],
        )
        assert found(store, claimed) == rescued
        assert store.rescue() == []
        again = claim_one(store)
        assert (again.id, again.attempt) == (claimed.id, 2)
        assert again.claim > claimed.claim
        assert again.owner not in (0, claimed.owner)

    def test_a_claim_of_before_ends_nothing_after_a_rescue(self, life: Life) -> None:
        claimed = claimed_new(life.store)
        store = life.reopen()
        store.rescue()
        endings: list[Callable[[], object]] = [
            lambda: store.complete(claimed),
            lambda: store.fail(claimed, "oh"),
            lambda: store.release(claimed),
            lambda: store.progress(claimed, 1),
        ]
        for end in endings:
            with unchanged(store), pytest.raises(StaleClaim):
                end()
        assert store.cancel_requested(claimed)

    @each_way
    def test_who_has_used_up_its_attempts_is_not_run_again(
        self, life: Life, clock: ManualClock, rescue: Callable[[JobStore], None]
    ) -> None:
        last = claimed_new(life.store, max_attempts=1, result="old")
        other = claimed_new(life.store, "b", max_attempts=2)
        clock.advance(_SECOND)
        store = life.reopen()
        rescue(store)
        failed = found(store, last)
        assert (failed.status, failed.owner, failed.attempt) == (Status.FAILED, 0, 1)
        assert failed.error == f"{DIED}: attempt 1 of 1 was the last"
        assert failed.result is None
        assert [(failure.error, failure.died) for failure in failed.failures] == [(DIED, True)]
        assert found(store, other).status is Status.QUEUED
        assert ids(store.claim(limit=9)) == [other.id]

    @each_way
    def test_who_was_asked_to_stop_is_cancelled(
        self, life: Life, clock: ManualClock, rescue: Callable[[JobStore], None]
    ) -> None:
        claimed = claimed_new(life.store, result="old", error="older")
        other = claimed_new(life.store, "b")
        life.store.cancel(claimed)
        clock.advance(_SECOND)
        store = life.reopen()
        rescue(store)
        cancelled = found(store, claimed)
        assert cancelled == claimed.replace(
            status="cancelled",
            owner=0,
            updated_at=clock.time,
            failures=cancelled.failures,
        )
        assert [(failure.error, failure.died) for failure in cancelled.failures] == [(DIED, True)]
        assert ids(store.claim(limit=9)) == [other.id]

    def test_who_was_to_stop_is_cancelled_though_its_attempts_are_used_up(self, life: Life) -> None:
        claimed = claimed_new(life.store, max_attempts=1)
        life.store.cancel(claimed)
        (cancelled,) = life.reopen().rescue()
        assert cancelled.status is Status.CANCELLED

    def test_a_claim_rescues_where_there_would_be_too_few(self, life: Life) -> None:
        life.store.insert_many([Job("a")] * 5)
        held = life.store.claim("a", limit=3)
        store = life.reopen()
        assert ids(store.claim("a", limit=5)) == [1, 2, 3, 4, 5]
        assert [found(store, job).attempt for job in held] == [2, 2, 2]

    def test_a_wait_rescues(self, life: Life) -> None:
        claimed = claimed_new(life.store)
        store = life.reopen()
        assert store.wait("a", timeout=30)
        assert claim_one(store).id == claimed.id

    def test_jobs_are_rescued_one_life_after_the_other(
        self, life: Life, clock: ManualClock
    ) -> None:
        job = life.store.insert(Job("a", max_attempts=MAX_FAILURES + 2))
        owners = set()
        for attempt in range(1, MAX_FAILURES + 3):
            claimed = claim_one(life.store)
            owners.add(claimed.owner)
            assert claimed.attempt == attempt
            life.reopen()
        assert len(owners) == MAX_FAILURES + 2
        (failed,) = life.store.rescue()
        assert failed.error == f"{DIED}: attempt 12 of 12 was the last"
        assert [failure.attempt for failure in failed.failures] == list(range(3, 13))
        assert found(life.store, job) == failed

    def test_rescued_jobs_are_told_by_id(self, life: Life) -> None:
        life.store.insert_many(Job("ab"[n % 2], b"x" * 500, priority=n % 3) for n in range(40))
        held = life.store.claim(limit=30)
        store = life.reopen()
        assert ids(store.rescue()) == sorted(map(id_of, held))
        assert store.counts()[Status.QUEUED] == 40

    def test_what_nobody_holds_is_not_rescued(self, life: Life) -> None:
        store = life.store
        store.insert_many(Job("a", status=status) for status in Status)
        store.update(claimed_new(store, "b").replace(status="completed"))
        store.release(claimed_new(store, "c"))
        store = life.reopen()
        with unchanged(store):
            assert store.rescue() == []

    def test_what_this_one_holds_is_not_rescued(self, life: Life) -> None:
        lost = claimed_new(life.store)
        store = life.reopen()
        own = claimed_new(store, "b")
        store.rescue()
        assert found(store, own) == own
        assert found(store, lost).status is Status.QUEUED

    def test_a_rescued_job_keeps_its_key_its_progress_and_its_time(
        self, life: Life, clock: ManualClock
    ) -> None:
        claimed = claimed_new(life.store, unique_key="k", run_at=clock.time)
        started = clock.time
        clock.advance(_SECOND)
        life.store.progress(claimed, 1, 2, "half")
        life.store.update(found(life.store, claimed).replace(arguments="new"))
        clock.advance(_SECOND)
        store = life.reopen()
        (rescued,) = store.rescue()
        assert (rescued.unique_key, rescued.run_at) == ("k", started)
        assert (rescued.progress, rescued.arguments) == ((1, 2, "half"), "new")
        assert rescued.failures[0].started_at == started
        with unchanged(store), pytest.raises(DuplicateJobError):
            store.insert(Job("b", unique_key="k"))

    def test_a_rescued_job_of_a_paused_worker_waits(self, life: Life) -> None:
        claimed = claimed_new(life.store)
        life.store.pause("a")
        store = life.reopen()
        assert store.paused() == ["a"]
        assert ids(store.rescue()) == [claimed.id]
        assert store.claim() == []
        store.resume("a")
        assert claim_one(store).id == claimed.id

    def test_all_that_waits_is_found_again(self, life: Life, clock: ManualClock) -> None:
        first = life.store.insert(Job("a", run_at=clock.time.replace(year=2900), unique_key="k"))
        second = life.store.insert(Job("a", priority=5))
        third = life.store.insert(Job("a", max_attempts=2))
        store = life.reopen()
        assert list(store.all()) == [first, second, third]
        assert store.next_due() == first.run_at
        assert ids(store.claim(limit=9)) == [second.id, third.id]
        with unchanged(store), pytest.raises(DuplicateJobError):
            store.insert(Job("b", unique_key="k"))
        assert id_of(store.insert(Job("a"))) > id_of(third)
