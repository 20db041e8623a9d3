"""Events: what listeners are told of the jobs that this process works on."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from quelmdb.errors import StaleClaim
from quelmdb.events import Event
from quelmdb.job import Job
from quelmdb.persistence import JobStore
from quelmdb.status import Status
from quelmdb.testing.clock import ManualClock
from quelmdb.testing.harness import JobStoreHarness, Life
from quelmdb.testing.rules.helpers import (
    PATIENCE,
    Heard,
    claim_one,
    claimed_new,
    found,
    ids,
    in_seconds,
)
from quelmdb.testing.rules.threads import in_threads

_SECOND = 1_000_000

# (how a started job is asked to stop before, what ends it, what is told)
ENDINGS: dict[str, tuple[bool, Callable[[JobStore, Job, ManualClock], Job], str]] = {
    "complete": (False, lambda store, job, clock: store.complete(job, 1), "completed"),
    "complete_many": (False, lambda store, job, _: store.complete_many([job])[0], "completed"),
    "complete though asked to stop": (True, lambda store, job, _: store.complete(job), "completed"),
    "fail": (False, lambda store, job, _: store.fail(job, "oh"), "failed"),
    "fail for now": (False, lambda store, job, clock: store.fail(job, "oh", clock.time), "retried"),
    "fail though asked to stop": (True, lambda store, job, _: store.fail(job, "oh"), "failed"),
    "fail for now when asked to stop": (
        True,
        lambda store, job, clock: store.fail(job, "oh", clock.time),
        "cancelled",
    ),
    "release": (False, lambda store, job, _: store.release(job), "released"),
    "release when asked to stop": (True, lambda store, job, _: store.release(job), "cancelled"),
}


class EventRules(JobStoreHarness):
    def test_a_claim_tells_how_long_a_job_was_queued(
        self, store: JobStore, clock: ManualClock
    ) -> None:
        heard = Heard(store)
        store.insert(Job("a", b"x" * 5_000))
        clock.advance(3 * _SECOND // 2)
        claimed = claim_one(store)
        event = heard.one()
        assert (event.kind, event.job, event.seconds) == ("claimed", claimed, 1.5)
        assert event.job.arguments == b"x" * 5_000

    def test_a_claim_of_several_tells_of_each(self, store: JobStore, clock: ManualClock) -> None:
        store.insert_many(Job("a", priority=n % 2) for n in range(6))
        heard = Heard(store)
        clock.advance(_SECOND)
        claimed = store.claim("a", limit=9)
        assert heard.take(6) == [Event("claimed", job, 1.0, Status.QUEUED) for job in claimed]

    @pytest.mark.parametrize(("is_asked", "end", "kind"), ENDINGS.values(), ids=ENDINGS.keys())
    def test_an_ending_tells_how_long_a_job_was_started(
        self,
        store: JobStore,
        clock: ManualClock,
        is_asked: bool,
        end: Callable[[JobStore, Job, ManualClock], Job],
        kind: str,
    ) -> None:
        claimed = claimed_new(store)
        clock.advance(_SECOND)
        if is_asked:
            store.cancel(claimed)
        heard = Heard(store)
        clock.advance(_SECOND)
        store.progress(claimed, 1)
        clock.advance(_SECOND // 4)
        ended = end(store, claimed, clock)
        event = heard.one()
        assert (event.kind, event.job, event.seconds) == (kind, ended, 2.25)
        assert event.job == found(store, claimed)

    def test_centuries_are_told_as_exactly_as_seconds(
        self, store: JobStore, clock: ManualClock
    ) -> None:
        since = [datetime(913, 10, 30, 4, 59, 36, n, tzinfo=UTC) for n in range(20)]
        jobs = [Job("a", id=n + 1, status="failed", updated_at=at) for n, at in enumerate(since)]
        store.restore(jobs)
        heard = Heard(store)
        store.retry_many(jobs)
        assert [event.seconds for event in heard.take(20)] == [
            (clock.time - at).total_seconds() for at in since
        ]

    def test_what_waits_and_is_cancelled_or_retried_is_told(
        self, store: JobStore, clock: ManualClock
    ) -> None:
        queued = store.insert(Job("a"))
        scheduled = store.insert(Job("a", run_at=in_seconds(clock, 9)))
        heard = Heard(store)
        cancelled = store.cancel(queued)
        retried = store.retry(scheduled)
        many = [*store.cancel_many([scheduled]), *store.retry_many([queued])]
        told = heard.take(4)
        assert [event.job for event in told] == [cancelled, retried, *many]
        assert [event.kind for event in told] == ["cancelled", "retried", "cancelled", "retried"]
        assert all(event.seconds >= 0 for event in told)

    def test_what_is_rescued_is_told(self, life: Life, clock: ManualClock) -> None:
        life.store.insert_many([Job("a"), Job("a", max_attempts=1), Job("a")])
        held = life.store.claim("a", limit=3)
        life.store.cancel(held[2])
        clock.advance(2 * _SECOND)
        store = life.reopen()
        heard = Heard(store)
        rescued = store.rescue()
        assert heard.take(3) == [Event("rescued", job, 2.0, Status.STARTED) for job in rescued]
        assert [job.status for job in rescued] == ["queued", "failed", "cancelled"]
        store.claim("a")
        assert heard.one().kind == "claimed"

    def test_what_a_claim_rescues_is_told_before_it_is_claimed(self, life: Life) -> None:
        claimed_new(life.store)
        store = life.reopen()
        heard = Heard(store)
        claim_one(store)
        assert heard.kinds(2) == ["rescued", "claimed"]

    def test_a_clock_that_goes_back_makes_no_time_negative(
        self, store: JobStore, clock: ManualClock
    ) -> None:
        heard = Heard(store)
        store.insert(Job("a"))
        clock.advance(-_SECOND)
        claimed = claim_one(store)
        clock.advance(-_SECOND)
        store.complete(claimed)
        assert [event.seconds for event in heard.take(2)] == [0.0, 0.0]

    def test_only_what_runners_do_is_told(self, store: JobStore, clock: ManualClock) -> None:
        heard = Heard(store)
        job = store.insert(Job("a"))
        store.insert_many([Job("a", unique_key="k")] * 2, on_duplicate="replace")
        store.update(job.replace(arguments="new"))
        store.restore([Job("a", id=50, status="completed")])
        store.insert(Job("b", run_at=in_seconds(clock, 1)))
        claimed = claim_one(store)
        store.cancel(claimed)  # which is asked for, and not done
        store.progress(claimed, 1)
        store.update(claimed.replace(status="completed"))
        store.destroy(job)
        store.prune()
        store.pause("a")
        store.resume("a")
        store.claim("nobody")
        clock.advance(_SECOND)
        claim_one(store, "b")
        assert [event.job.worker for event in heard.take(2)] == ["a", "b"]

    def test_a_verb_that_raises_tells_nothing(self, store: JobStore) -> None:
        store.insert_many([Job("a")] * 2)
        first, second = store.claim("a", limit=2)
        store.release(second)
        heard = Heard(store)
        with pytest.raises(StaleClaim):
            store.complete_many([first, second])
        batch = store.batch().__enter__()
        batch.complete(first)
        batch.release(second)
        with pytest.raises(StaleClaim):
            batch.__exit__(None, None, None)
        assert isinstance(store.submit.complete(second).exception(PATIENCE), StaleClaim)
        completed = store.complete(first)
        assert heard.one().job == completed

    def test_a_batch_tells_of_each_of_its_writes(self, store: JobStore, clock: ManualClock) -> None:
        store.insert_many([Job("a")] * 4)
        first, second, third, fourth = store.claim("a", limit=4)
        heard = Heard(store)
        clock.advance(_SECOND)
        with store.batch() as batch:
            batch.insert(Job("b"))
            batch.complete(first)
            batch.fail(second, "oh")
            batch.fail(third, "oh", clock.time)
            batch.release(fourth)
            batch.cancel(fourth)
            batch.retry(fourth)
        told = heard.take(6)
        assert [event.kind for event in told] == [
            "completed",
            "failed",
            "retried",
            "released",
            "cancelled",
            "retried",
        ]
        assert [event.job for event in told] == batch.results[1:]

    def test_what_is_submitted_is_told(self, store: JobStore) -> None:
        store.insert_many([Job("a")] * 30)
        claimed = store.claim("a", limit=30)
        heard = Heard(store)
        futures = [store.submit.complete(job) for job in claimed]
        completed = [future.result(PATIENCE) for future in futures]
        assert [event.job for event in heard.take(30)] == completed

    def test_what_is_told_is_committed(self, store: JobStore) -> None:
        seen: list[Job | None] = []
        told = threading.Event()

        def look(event: Event) -> None:
            seen.append(store.find(event.job))
            told.set()

        end = store.listen(look)
        claimed = claimed_new(store)
        assert told.wait(PATIENCE)
        end()
        assert seen == [claimed]

    def test_a_hook_may_write_to_the_store_itself(self, store: JobStore) -> None:
        followed = threading.Event()

        def follow(event: Event) -> None:
            if event.kind == "completed" and event.job.worker == "a":
                store.insert(Job("next", event.job.result))
                followed.set()

        end = store.listen(follow)
        store.complete(claimed_new(store), "done")
        assert followed.wait(PATIENCE)
        end()
        assert claim_one(store, "next").arguments == "done"

    def test_a_hook_that_raises_is_logged_and_harms_nobody(
        self, store: JobStore, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail(event: Event) -> None:
            raise ZeroDivisionError("of a hook")

        with caplog.at_level(logging.ERROR, "quelmdb"):
            store.listen(fail)
            heard = Heard(store)
            claimed = claimed_new(store)
            assert store.complete(claimed).status is Status.COMPLETED
            assert heard.kinds(2) == ["claimed", "completed"]
        records = [record for record in caplog.records if record.name == "quelmdb"]
        assert len(records) == 2
        for record in records:
            assert record.exc_info is not None
            assert record.exc_info[0] is ZeroDivisionError

    def test_who_no_longer_listens_is_told_nothing(self, store: JobStore) -> None:
        first, second, third = Heard(store), Heard(store), Heard(store)
        claimed = claimed_new(store)
        for heard in (first, second, third):
            assert heard.one().job == claimed
        second.end()
        second.end()
        completed = store.complete(claimed)
        assert first.one().job == third.one().job == completed
        assert second.left() == 0
        first.end()
        third.end()
        claimed_new(store, "b")
        last = Heard(store)
        claimed_new(store, "c")
        assert last.one().job.worker == "c"
        assert [heard.left() for heard in (first, second, third)] == [0, 0, 0]

    def test_a_hook_that_listens_twice_is_told_twice(self, store: JobStore) -> None:
        told: list[Event] = []
        enough = threading.Semaphore(0)

        def hook(event: Event) -> None:
            told.append(event)
            enough.release()

        end, _ = store.listen(hook), store.listen(hook)
        claimed = claimed_new(store)
        assert enough.acquire(timeout=PATIENCE)
        assert enough.acquire(timeout=PATIENCE)
        end()
        store.complete(claimed)
        assert enough.acquire(timeout=PATIENCE)
        heard = Heard(store)
        claimed_new(store, "b")
        assert heard.one().job.worker == "b"
        assert [event.kind for event in told[:3]] == ["claimed", "claimed", "completed"]

    def test_what_many_threads_do_is_all_told(self, store: JobStore) -> None:
        heard = Heard(store)
        jobs = store.insert_many([Job("a")] * 80)

        def work() -> None:
            while claimed := store.claim("a", limit=3):
                store.complete_many(claimed)

        in_threads([work] * 4)
        told = heard.take(160)
        for kind in ("claimed", "completed"):
            of_kind = [event.job for event in told if event.kind == kind]
            assert sorted(ids(of_kind), key=int) == ids(jobs)  # type: ignore[arg-type]
