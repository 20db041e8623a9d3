"""Complete, fail and release: what they make of a claimed job, and the fence before them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import pytest

from quelmdb.codec import DEFAULT_LIMIT
from quelmdb.errors import (
    EncodeError,
    InvalidJobError,
    InvalidTransitionError,
    JobNotFoundError,
    StaleClaim,
    TooLargeError,
)
from quelmdb.job import Job
from quelmdb.options import Failure
from quelmdb.persistence import JobStore
from quelmdb.status import Status
from quelmdb.testing.clock import ManualClock
from quelmdb.testing.harness import JobStoreHarness
from quelmdb.testing.rules.helpers import found, ids, unchanged
from quelmdb.testing.rules.values import SIZES, VALUES, typed
from quelmdb.values import MAX_ATTEMPT, MAX_ERROR

Ending = Callable[[JobStore, Job], object]

_LATER: Final = datetime(2999, 1, 1, tzinfo=UTC)


def _complete_in_a_batch(store: JobStore, job: Job) -> None:
    with store.batch() as batch:
        batch.insert(Job("follow-up"))
        batch.complete(job)


def _fail_in_a_batch(store: JobStore, job: Job) -> None:
    with store.batch() as batch:
        batch.insert(Job("follow-up"))
        batch.fail(job, "oh")


def _release_in_a_batch(store: JobStore, job: Job) -> None:
    with store.batch() as batch:
        batch.release(job)


ENDINGS: dict[str, Ending] = {
    "complete": lambda store, job: store.complete(job),
    "complete_many": lambda store, job: store.complete_many([job]),
    "fail": lambda store, job: store.fail(job, "oh"),
    "release": lambda store, job: store.release(job),
    "complete_many with results": lambda store, job: store.complete_many([job], [1]),
    "fail with an exception": lambda store, job: store.fail(job, ValueError("oh")),
    "fail for now": lambda store, job: store.fail(job, "oh", retry_at=_LATER),
    "complete in a batch": _complete_in_a_batch,
    "fail in a batch": _fail_in_a_batch,
    "release in a batch": _release_in_a_batch,
}

each_ending = pytest.mark.parametrize("end", ENDINGS.values(), ids=ENDINGS.keys())


def _claimed(store: JobStore, arguments: Any = None, **fields: Any) -> Job:
    store.insert(Job("a", arguments, **fields))
    (claimed,) = store.claim("a")
    return claimed


class EndingRules(JobStoreHarness):
    def test_a_completed_job_has_its_result_and_no_owner(
        self, store: JobStore, clock: ManualClock
    ) -> None:
        claimed = _claimed(store, {"n": 1})
        clock.advance(1_000)
        completed = store.complete(claimed, {"sum": 5})
        assert completed == claimed.replace(
            status="completed", result={"sum": 5}, owner=0, updated_at=clock.time
        )
        assert found(store, claimed) == completed
        assert list(store.completed("a")) == [completed]
        assert list(store.incomplete()) == []

    def test_a_failed_job_has_its_error_and_no_owner(
        self, store: JobStore, clock: ManualClock
    ) -> None:
        claimed = _claimed(store, {"n": 1})
        clock.advance(1_000)
        failed = store.fail(claimed, "it broke")
        assert claimed.updated_at is not None
        assert failed == claimed.replace(
            status="failed",
            error="it broke",
            owner=0,
            updated_at=clock.time,
            failures=[Failure(1, claimed.updated_at, clock.time, "it broke")],
        )
        assert found(store, claimed) == failed
        assert list(store.failed("a")) == [failed]
        assert list(store.incomplete()) == []

    def test_a_released_job_is_queued_and_the_attempt_does_not_count(
        self, store: JobStore, clock: ManualClock
    ) -> None:
        claimed = _claimed(store, {"n": 1})
        clock.advance(1_000)
        released = store.release(claimed)
        assert released == claimed.replace(
            status="queued", attempt=0, owner=0, updated_at=clock.time
        )
        assert found(store, claimed) == released
        assert list(store.jobs("queued")) == [released]

    def test_a_job_completes_without_a_result(self, store: JobStore) -> None:
        assert store.complete(_claimed(store)).result is None

    @pytest.mark.parametrize("value", VALUES.values(), ids=VALUES.keys())
    def test_a_result_may_be_what_arguments_may_be(self, store: JobStore, value: Any) -> None:
        completed = store.complete(_claimed(store), value)
        assert typed(completed.result) == typed(value)
        assert typed(found(store, completed).result) == typed(value)

    @pytest.mark.parametrize("size", SIZES)
    def test_a_result_of_any_size_takes_the_place_of_any_other(
        self, store: JobStore, size: int
    ) -> None:
        for before in (0, 10, 3_000, 9_000):
            claimed = _claimed(store, b"x" * size, result=b"y" * before, error="z" * before)
            completed = store.complete(claimed, b"1" * size)
            assert completed.arguments == b"x" * size
            assert completed.result == b"1" * size
            assert found(store, claimed) == completed

    @pytest.mark.parametrize("size", SIZES)
    def test_an_error_of_any_size_takes_the_place_of_any_other(
        self, store: JobStore, size: int
    ) -> None:
        for before in (0, 10, 3_000, 9_000):
            claimed = _claimed(store, b"x" * size, result=b"y" * before, error="z" * before)
            error = "1" * min(size, MAX_ERROR)
            failed = store.fail(claimed, error)
            assert failed.arguments == b"x" * size
            assert failed.error == error
            assert found(store, claimed) == failed

    def test_what_was_claimed_after_a_failure_completes_without_the_old_error(
        self, store: JobStore
    ) -> None:
        claimed = _claimed(store, error="old")
        completed = store.complete(claimed, 1)
        assert (completed.result, completed.error) == (1, None)

    def test_what_fails_has_no_older_result(self, store: JobStore) -> None:
        failed = store.fail(_claimed(store, result="old"), "oh")
        assert (failed.result, failed.error) == (None, "oh")

    def test_a_released_job_keeps_result_and_error(self, store: JobStore) -> None:
        released = store.release(_claimed(store, result="old", error="older"))
        assert (released.result, released.error) == ("old", "older")

    def test_a_release_takes_back_one_attempt(self, store: JobStore) -> None:
        failed = store.fail(_claimed(store), "oh")
        store.update(failed.replace(status="queued"))
        (claimed,) = store.claim("a")
        assert claimed.attempt == 2
        assert store.release(claimed).attempt == 1

    def test_a_release_takes_one_from_attempts_that_are_used_up(self, store: JobStore) -> None:
        store.insert(Job("a"))
        (claimed,) = store.claim("a")
        store.restore([claimed.replace(status="queued", attempt=MAX_ATTEMPT)], "replace")
        (claimed,) = store.claim("a")
        assert claimed.attempt == MAX_ATTEMPT
        assert store.release(claimed).attempt == MAX_ATTEMPT - 1

    @each_ending
    def test_only_id_and_claim_of_the_given_job_count(self, store: JobStore, end: Ending) -> None:
        claimed = _claimed(store, {"n": 1})
        end(store, Job("other", "other", id=claimed.id, claim=claimed.claim, attempt=7, owner=9))
        stored = found(store, claimed)
        assert (stored.worker, stored.arguments, stored.owner) == ("a", {"n": 1}, 0)
        assert stored.claim == claimed.claim
        assert stored.attempt <= 1
        assert stored.created_at == claimed.created_at

    @each_ending
    @pytest.mark.parametrize("first", ["complete", "fail", "release"])
    def test_a_claim_ends_once(self, store: JobStore, first: str, end: Ending) -> None:
        claimed = _claimed(store)
        ENDINGS[first](store, claimed)
        with unchanged(store), pytest.raises(StaleClaim) as caught:
            end(store, claimed)
        assert caught.value.job_id == claimed.id
        assert caught.value.expected == claimed.claim
        assert caught.value.found is not None

    @each_ending
    def test_whoever_claimed_a_job_before_cannot_end_it(self, store: JobStore, end: Ending) -> None:
        before = _claimed(store)
        store.release(before)
        (now,) = store.claim("a")
        with unchanged(store), pytest.raises(StaleClaim) as caught:
            end(store, before)
        assert (caught.value.expected, caught.value.found) == (before.claim, now.claim)
        end(store, now)
        assert found(store, now).owner == 0

    @each_ending
    def test_a_claim_that_was_never_given_is_stale(self, store: JobStore, end: Ending) -> None:
        claimed = _claimed(store)
        with unchanged(store), pytest.raises(StaleClaim):
            end(store, claimed.replace(claim=claimed.claim + 1))

    @each_ending
    def test_a_claim_does_not_end_another_job(self, store: JobStore, end: Ending) -> None:
        store.insert_many([Job("a"), Job("a")])
        first, second = store.claim("a", limit=2)
        with unchanged(store), pytest.raises(StaleClaim):
            end(store, first.replace(id=second.id))

    @each_ending
    def test_a_destroyed_job_cannot_be_ended(self, store: JobStore, end: Ending) -> None:
        claimed = _claimed(store)
        store.destroy(claimed)
        with unchanged(store), pytest.raises(JobNotFoundError) as caught:
            end(store, claimed)
        assert caught.value.job_id == claimed.id

    @each_ending
    def test_a_new_job_under_the_same_id_is_not_ended_by_the_old_claim(
        self, store: JobStore, end: Ending
    ) -> None:
        claimed = _claimed(store)
        store.destroy(claimed)
        store.insert(Job("a", id=claimed.id, status="started"))
        with unchanged(store), pytest.raises(StaleClaim):
            end(store, claimed)

    @each_ending
    def test_a_job_that_was_never_claimed_cannot_be_ended(
        self, store: JobStore, end: Ending
    ) -> None:
        for status in Status:
            job = store.insert(Job("a", status=status))
            with unchanged(store), pytest.raises(InvalidTransitionError):
                end(store, job)

    @each_ending
    def test_a_job_without_id_cannot_be_ended(self, store: JobStore, end: Ending) -> None:
        claimed = _claimed(store)
        with unchanged(store), pytest.raises(InvalidJobError):
            end(store, Job("a", claim=claimed.claim))

    @each_ending
    @pytest.mark.parametrize("value", [None, 1, "job", {}], ids=repr)
    def test_what_is_no_job_cannot_be_ended(self, store: JobStore, end: Ending, value: Any) -> None:
        _claimed(store, id=1)
        with unchanged(store), pytest.raises(InvalidJobError):
            end(store, value)

    def test_a_result_that_cannot_be_carried_leaves_the_job_claimed(self, store: JobStore) -> None:
        claimed = _claimed(store)
        with unchanged(store), pytest.raises(EncodeError) as caught:
            store.complete(claimed, {"a": [object()]})
        assert caught.value.path == "$.a[0]"
        with unchanged(store), pytest.raises(TooLargeError):
            store.complete(claimed, bytes(DEFAULT_LIMIT))
        assert store.complete(claimed, 1).result == 1

    def test_an_error_that_is_no_text_leaves_the_job_claimed(self, store: JobStore) -> None:
        claimed = _claimed(store)
        values: list[Any] = [None, 5, b"bytes", ValueError, ["oh"]]
        for value in values:
            with unchanged(store), pytest.raises(InvalidJobError):
                store.fail(claimed, value)
        assert store.fail(claimed, "").error == ""

    @pytest.mark.parametrize("error", ["what \ud800 is this", "x" * DEFAULT_LIMIT])
    def test_fail_refuses_no_text(self, store: JobStore, error: str) -> None:
        failed = store.fail(_claimed(store), error)
        assert found(store, failed) == failed
        assert failed.error is not None
        assert failed.error[:5] == error[:5]
        assert failed.error[-5:] == error[-5:]
        assert len(failed.error) <= MAX_ERROR

    def test_complete_many_ends_all_and_returns_them_in_order(
        self, store: JobStore, clock: ManualClock
    ) -> None:
        store.insert_many(Job("a", n, result="old") for n in range(5))
        claimed = store.claim("a", limit=5)[::-1]
        clock.advance(1_000)
        completed = store.complete_many(iter(claimed))
        assert completed == [
            job.replace(status="completed", owner=0, result=None, updated_at=clock.time)
            for job in claimed
        ]
        assert ids(store.completed()) == sorted(ids(claimed), key=int)  # type: ignore[arg-type]
        assert store.complete_many([]) == []

    def test_complete_many_completes_none_where_one_is_stale(self, store: JobStore) -> None:
        store.insert_many([Job("a")] * 3)
        claimed = store.claim("a", limit=3)
        store.release(claimed[1])
        queued = store.insert(Job("b"))
        with unchanged(store), pytest.raises(StaleClaim):
            store.complete_many(claimed)
        with unchanged(store), pytest.raises(StaleClaim):
            store.complete_many([claimed[0], claimed[0]])
        with unchanged(store), pytest.raises(InvalidTransitionError):
            store.complete_many([claimed[0], queued])
