"""Submitted writes: futures of what the store's methods return, many of them in flight."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from quelmdb.errors import (
    EncodeError,
    InvalidJobError,
    InvalidTransitionError,
    JobExistsError,
    JobNotFoundError,
    StaleClaim,
    StoreClosedError,
)
from quelmdb.job import Job
from quelmdb.persistence import JobStore
from quelmdb.status import Status
from quelmdb.testing.clock import ManualClock
from quelmdb.testing.harness import JobStoreHarness, new_directory
from quelmdb.testing.rules.helpers import (
    PATIENCE,
    found,
    id_of,
    ids,
    label,
    result_of,
    unchanged,
)
from quelmdb.testing.rules.threads import in_threads
from quelmdb.values import MAX_CHOSEN_ID
from quelmdb.writes import Submit

_HELD = Job("a", id=1, claim=1, status="started")

SUBMITS: dict[str, Callable[[Submit], object]] = {
    "insert": lambda submit: submit.insert(Job("a")),
    "insert_many": lambda submit: submit.insert_many([Job("a")]),
    "update": lambda submit: submit.update(Job("a")),
    "update_many": lambda submit: submit.update_many([Job("a")]),
    "destroy": lambda submit: submit.destroy(1),
    "destroy_many": lambda submit: submit.destroy_many([1]),
    "restore": lambda submit: submit.restore([Job("a", id=99)]),
    "complete": lambda submit: submit.complete(_HELD),
    "complete_many": lambda submit: submit.complete_many([_HELD]),
    "fail": lambda submit: submit.fail(_HELD, "oh"),
    "release": lambda submit: submit.release(_HELD),
    "progress": lambda submit: submit.progress(_HELD, 1),
    "cancel": lambda submit: submit.cancel(1),
    "cancel_many": lambda submit: submit.cancel_many([1]),
    "retry": lambda submit: submit.retry(1),
    "retry_many": lambda submit: submit.retry_many([1]),
    "pause": lambda submit: submit.pause("a"),
    "resume": lambda submit: submit.resume("a"),
}


class SubmitRules(JobStoreHarness):
    def test_what_is_submitted_becomes_what_the_method_returns(
        self, store: JobStore, clock: ManualClock
    ) -> None:
        store.insert_many([Job("w", n) for n in range(5)])
        first, second, third, fourth, fifth = store.claim("w", limit=5)
        clock.advance(1_000)
        submit = store.submit
        inserted = result_of(submit.insert(Job("a", {"n": 1}, id=100)))
        assert inserted == found(store, inserted)
        assert inserted == Job("a", {"n": 1}, id=100, created_at=clock.time, updated_at=clock.time)
        many = result_of(submit.insert_many([Job("b"), Job("c", id=150)]))
        assert [found(store, job) for job in many] == many
        assert [job.worker for job in many] == ["b", "c"]
        clock.advance(1_000)
        updated = result_of(submit.update(Job("d", id=100)))
        assert updated == found(store, updated)
        assert (updated.worker, updated.updated_at) == ("d", clock.time)
        updates = result_of(submit.update_many([Job("e", id=200), Job("f", id=201)]))
        assert [found(store, job) for job in updates] == updates
        completed = result_of(submit.complete(first, {"n": 1}))
        assert completed == found(store, first)
        assert (completed.status, completed.result) == (Status.COMPLETED, {"n": 1})
        completions = result_of(submit.complete_many([second, third]))
        assert [found(store, job) for job in (second, third)] == completions
        failed = result_of(submit.fail(fourth, "oh"))
        assert failed == found(store, fourth)
        assert (failed.status, failed.error) == (Status.FAILED, "oh")
        released = result_of(submit.release(fifth))
        assert released == found(store, fifth)
        assert (released.status, released.attempt) == (Status.QUEUED, 0)
        assert result_of(submit.destroy(100)) is None
        assert result_of(submit.destroy_many([inserted, 150, 200, None])) is None
        assert list(store.all().ids()) == [*range(1, 6), id_of(many[0]), 201]

    def test_a_submitted_restore_returns_what_was_stored(self, store: JobStore) -> None:
        stored = store.insert(Job("a", id=5))
        other = Job("b", id=7, attempt=3, claim=9)
        restored = result_of(store.submit.restore([stored, other], "skip"))
        assert ids(restored) == [7]
        assert found(store, other).attempt == 3
        replaced = result_of(store.submit.restore([stored.replace(worker="c")], "replace"))
        assert replaced == [found(store, stored)]
        assert replaced[0].worker == "c"
        with unchanged(store):
            error = store.submit.restore([Job("d", id=8), stored]).exception(PATIENCE)
        assert isinstance(error, JobExistsError)

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
    def test_a_bad_job_that_is_submitted_raises_at_the_call(
        self, store: JobStore, bad: Any, error: type[Exception]
    ) -> None:
        store.insert(Job("a"))
        with unchanged(store):
            with pytest.raises(error):
                store.submit.insert(bad)
            with pytest.raises(error):
                store.submit.insert_many([Job("b"), bad])

    def test_bad_updates_and_endings_that_are_submitted_raise_at_the_call(
        self, store: JobStore
    ) -> None:
        store.insert(Job("a"))
        (claimed,) = store.claim("a")
        bad: Any = "bad"
        submit = store.submit
        with unchanged(store):
            with pytest.raises(EncodeError):
                submit.update(Job("a", {1, 2}, id=claimed.id))
            with pytest.raises(InvalidJobError):
                submit.update_many([Job("b"), bad])
            with pytest.raises(InvalidJobError):
                submit.destroy(0)
            with pytest.raises(InvalidJobError):
                submit.destroy_many([claimed, bad])
            with pytest.raises(InvalidJobError):
                submit.restore([Job("b", id=9), Job("b")])
            with pytest.raises(ValueError, match="on_conflict"):
                submit.restore([Job("b", id=9)], bad)
            with pytest.raises(EncodeError):
                submit.complete(claimed, object())
            with pytest.raises(InvalidJobError):
                submit.complete_many([claimed, bad])
            with pytest.raises(InvalidJobError):
                submit.fail(claimed, bad.encode())
            with pytest.raises(InvalidTransitionError):
                submit.release(Job("a", id=claimed.id))

    def test_what_only_the_store_knows_is_the_exception_of_its_future_alone(
        self, store: JobStore
    ) -> None:
        taken = store.insert(Job("taken"))
        store.insert_many([Job("a")] * 2)
        stale, gone = store.claim("a", limit=2)
        store.release(stale)
        store.destroy(gone)
        before = found(store, taken), found(store, stale)
        submit = store.submit
        futures: list[Future[Any]] = []
        for _ in range(5):
            futures += [
                submit.insert(Job("good")),
                submit.insert(taken),
                submit.complete(stale),
                submit.insert_many([Job("good"), Job("good")]),
                submit.insert_many([Job("bad"), taken]),
                submit.fail(gone, "oh"),
                submit.complete_many([stale, gone]),
                submit.update(Job("good")),
            ]
        errors = [future.exception(PATIENCE) for future in futures]
        assert [type(error) for error in errors] == 5 * [
            type(None),
            JobExistsError,
            StaleClaim,
            type(None),
            JobExistsError,
            JobNotFoundError,
            StaleClaim,
            type(None),
        ]
        assert (found(store, taken), found(store, stale)) == before
        assert len(store.all("good")) == 4 * 5
        assert len(store.all("bad")) == 0

    def test_what_a_thread_submits_is_applied_in_the_order_of_its_calls(
        self, store: JobStore
    ) -> None:
        def write(number: int) -> list[int]:
            job = Job(f"w{number}", id=number)
            submit = store.submit
            futures: list[Future[Any]] = []
            for n in range(10):
                futures.append(submit.insert(job.replace(arguments=n)))
                futures.append(submit.update(job.replace(arguments=-n)))
                futures.append(submit.destroy(number))
            futures.append(submit.insert(job.replace(arguments="last")))
            new = [submit.insert(Job(f"new{number}")) for _ in range(10)]
            for future in futures:
                result_of(future)
            return [id_of(result_of(future)) for future in new]

        numbers = range(1, 5)
        given = in_threads([partial(write, number) for number in numbers])
        assert all(each == sorted(each) for each in given)
        assert [job.arguments for job in store.jobs(limit=4)] == ["last"] * 4

    def test_a_call_goes_behind_what_its_thread_has_submitted(self, store: JobStore) -> None:
        for n in range(50):
            submitted = store.submit.insert(Job("a", id=7))
            updated = store.update(Job("b", n, id=7))
            assert result_of(submitted).worker == "a"
            assert store.find(7) == updated
            destroyed = store.submit.destroy(7)
            assert store.insert(Job("c", id=7)).worker == "c"
            assert result_of(destroyed) is None
            store.destroy(7)

    def test_a_hundred_in_flight_all_come_true(self, store: JobStore) -> None:
        futures = [store.submit.insert(Job("a", n)) for n in range(100)]
        jobs = [result_of(future) for future in futures]
        assert [job.arguments for job in jobs] == list(range(100))
        assert list(store.all()) == jobs
        claimed = store.claim("a", limit=100)
        endings = [store.submit.complete(job, job.arguments) for job in claimed]
        assert [result_of(future).result for future in endings] == list(range(100))
        assert store.counts() == {**dict.fromkeys(Status, 0), Status.COMPLETED: 100}

    def test_threads_have_their_own_in_flight(self, store: JobStore) -> None:
        def write() -> list[int]:
            submit = store.submit
            return [
                id_of(result_of(future)) for future in [submit.insert(Job("a")) for _ in range(25)]
            ]

        given = in_threads([write] * 8)
        assert sorted(number for each in given for number in each) == list(store.all().ids())
        assert len(store.all()) == 200

    def test_arguments_are_submitted_as_they_are_at_the_call(self, store: JobStore) -> None:
        arguments = [1]
        jobs = [Job("a", arguments)]
        future = store.submit.insert_many(jobs)
        arguments.append(2)
        jobs.append(Job("b"))
        assert [job.arguments for job in result_of(future)] == [[1]]
        assert len(store.all()) == 1

    def test_a_write_that_is_done_cannot_be_cancelled(self, store: JobStore) -> None:
        future = store.submit.insert(Job("a"))
        job = result_of(future)
        assert not future.cancel()
        assert found(store, job) == job

    def test_a_cancelled_write_has_not_happened(self, store: JobStore) -> None:
        futures = [store.submit.insert(Job("a", n)) for n in range(50)]
        cancelled = [future.cancel() for future in reversed(futures)][::-1]
        happened = [
            result_of(future).arguments
            for future, was_cancelled in zip(futures, cancelled, strict=True)
            if not was_cancelled
        ]
        assert [job.arguments for job in store.all()] == happened
        assert all(
            future.cancelled() == was for future, was in zip(futures, cancelled, strict=True)
        )

    def test_a_callback_may_write_to_the_store_itself(self, store: JobStore) -> None:
        follow_up: Future[Job] = Future()

        def follow(future: Future[Job]) -> None:
            try:
                follow_up.set_result(store.insert(Job("next", future.result().id)))
            except BaseException as error:
                follow_up.set_exception(error)

        future = store.submit.insert(Job("a"))
        future.add_done_callback(follow)
        assert result_of(follow_up).arguments == result_of(future).id
        assert [job.worker for job in store.all()] == ["a", "next"]

    def test_a_callback_may_submit_to_the_store_itself(self, store: JobStore) -> None:
        done = threading.Event()

        def follow(future: Future[Job]) -> None:
            left = future.result().arguments - 1
            if left:
                store.submit.insert(Job("a", left)).add_done_callback(follow)
            else:
                done.set()

        store.submit.insert(Job("a", 10)).add_done_callback(follow)
        assert done.wait(PATIENCE)
        assert [job.arguments for job in store.all()] == list(range(10, 0, -1))

    def test_a_callback_that_raises_harms_nobody(
        self, store: JobStore, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail(future: Future[Job]) -> None:
            raise ZeroDivisionError

        futures = [store.submit.insert(Job("a")) for _ in range(5)]
        for future in futures:
            future.add_done_callback(fail)
        assert len({result_of(future).id for future in futures}) == 5
        assert result_of(store.submit.insert(Job("b"))).worker == "b"

    @pytest.mark.parametrize("use", SUBMITS.values(), ids=SUBMITS.keys())
    def test_nothing_is_submitted_to_a_closed_store(
        self, tmp_path: Path, clock: ManualClock, use: Callable[[Submit], object]
    ) -> None:
        store = self.open_store(new_directory(tmp_path, "ended"), clock)
        store.insert(Job("a"))
        before = store.submit
        store.close()
        with pytest.raises(StoreClosedError):
            use(before)
        with pytest.raises(StoreClosedError):
            use(store.submit)

    def test_closing_finishes_what_was_submitted_before(
        self, tmp_path: Path, clock: ManualClock
    ) -> None:
        store = self.open_store(new_directory(tmp_path, "finished"), clock)
        futures = [store.submit.insert(Job("a", n, id=n)) for n in range(1, 101)]
        refused = store.submit.insert(Job("a", id=1))
        store.close()
        assert all(future.done() for future in futures)
        assert [future.result().arguments for future in futures] == list(range(1, 101))
        assert isinstance(refused.exception(0), JobExistsError)
