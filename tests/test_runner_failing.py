"""What is raised fails its job alone, which is tried again as its worker and it ask for."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

import quelmdb
from quelmdb import JobStore, Status
from quelmdb.runner import Counts, Discard, Retry, Worker, current, exponential, work, worker
from tests import inprocess
from tests.inprocess import SOON, found, run_one

store = inprocess.store


@pytest.mark.parametrize(
    "raised", [ValueError("of mine"), SystemExit("of mine"), KeyboardInterrupt("of mine")]
)
def test_whatever_is_raised_fails_the_job_alone(store: JobStore, raised: BaseException) -> None:
    @worker(max_attempts=1)
    def perform(arguments: Any) -> None:
        if arguments == "bad":
            raise raised

    @worker(max_attempts=1)
    async def coroutine(arguments: Any) -> None:
        if arguments == "bad" and isinstance(raised, Exception):
            raise raised

    jobs = [perform.add(store, what) for what in ("good", "bad", "good")]
    others = [coroutine.add(store, what) for what in ("good", "good")]
    work(store, [perform, coroutine])
    assert [found(store, job).status for job in jobs] == ["completed", "failed", "completed"]
    assert all(found(store, job).status == "completed" for job in others)
    error = found(store, jobs[1]).error or ""
    assert "of mine" in error
    assert "Traceback" in error


def test_a_failed_attempt_is_followed_by_others_up_to_the_workers_limit(store: JobStore) -> None:
    attempts = []

    @worker(max_attempts=3, backoff=SOON)
    def perform(arguments: Any) -> None:
        attempts.append(current().job.attempt)
        raise ValueError

    job = run_one(store, perform)
    assert attempts == [1, 2, 3]
    assert (job.status, job.attempt, len(job.failures)) == (Status.FAILED, 3, 3)


def test_a_jobs_own_limit_wins_over_the_workers(store: JobStore) -> None:
    @worker(max_attempts=1, backoff=SOON)
    def perform(arguments: Any) -> None:
        raise ValueError

    assert run_one(store, perform, max_attempts=2).attempt == 2
    assert run_one(store, perform).attempt == 1


def test_the_backoff_is_given_the_attempt_and_says_when(store: JobStore) -> None:
    asked = []

    def backoff(attempt: int) -> float:
        asked.append(attempt)
        return 0.01

    @worker(max_attempts=3, backoff=backoff)
    def perform(arguments: Any) -> None:
        raise ValueError

    run_one(store, perform)
    assert asked == [1, 2]


def test_retry_asks_for_another_time(store: JobStore) -> None:
    @worker(backoff=exponential(first=1000.0))
    def perform(arguments: Any) -> str:
        if current().job.attempt == 1:
            raise Retry(0.01, "not ready")
        return "done"

    job = run_one(store, perform)
    assert (job.status, job.result, job.attempt) == (Status.COMPLETED, "done", 2)
    assert "not ready" in job.failures[0].error


@pytest.mark.parametrize("is_async", [False, True])
def test_discard_fails_a_job_for_good_with_the_reason_alone(
    store: JobStore, is_async: bool
) -> None:
    told = []

    class Base(Worker):
        def on_failure(self, arguments: Any, error: BaseException) -> None:
            told.append(error)

    class Plain(Base):
        def perform(self, arguments: Any) -> None:
            raise Discard("no such file")

    class Coroutine(Base):
        async def perform(self, arguments: Any) -> None:
            raise Discard("no such file")

    job = run_one(store, Coroutine if is_async else Plain, max_attempts=9)
    assert (job.status, job.attempt, job.error) == (Status.FAILED, 1, "no such file")
    assert [type(error) for error in told] == [Discard]


@pytest.mark.parametrize("is_async", [False, True])
def test_a_result_that_cannot_be_stored_fails_its_job_and_no_other(
    store: JobStore, is_async: bool
) -> None:
    @worker
    def plain(arguments: Any) -> Any:
        return object() if arguments == "bad" else arguments

    @worker
    async def coroutine(arguments: Any) -> Any:
        return object() if arguments == "bad" else arguments

    target = coroutine if is_async else plain
    jobs = [target.add(store, what) for what in ("a", "bad", "c")]
    assert work(store, [target]) == Counts(completed=2, failed=1)
    assert [found(store, job).result for job in jobs] == ["a", None, "c"]
    bad = found(store, jobs[1])
    assert (bad.status, bad.attempt) == (Status.FAILED, 1)
    assert (bad.error or "").startswith("its result cannot be stored: EncodeError: ")


def test_a_result_without_room_fails_its_job_and_no_other(tmp_path: Path) -> None:
    @worker
    def perform(size: int) -> bytes:
        return b"x" * size

    with quelmdb.open(tmp_path / "s", durability="ephemeral", capacity=4 * 2**20) as store:
        jobs = [perform.add(store, size) for size in (10, 8 * 2**20, 20)]
        assert work(store, [perform]) == Counts(completed=2, failed=1)
        error = found(store, jobs[1]).error or ""
        assert error.startswith("its result cannot be stored: StoreFullError: ")
        assert [len(job.result) for job in store.completed(perform)] == [10, 20]


class Mute(Discard):
    def __str__(self) -> str:
        raise SystemExit

    __repr__ = __str__


class Unpacking(dict[str, int]):
    def items(self) -> Any:
        raise SystemExit


def test_neither_errors_nor_results_that_raise_end_the_process(
    store: JobStore, caplog: pytest.LogCaptureFixture
) -> None:
    class Wordless(Exception):
        __str__ = __repr__ = Mute.__str__

    @worker(max_attempts=1)
    def perform(arguments: str) -> Any:
        if arguments == "result":
            return Unpacking(a=1)
        raise Mute if arguments == "discard" else Wordless

    jobs = [perform.add(store, what) for what in ("discard", "error", "result")]
    with caplog.at_level(logging.DEBUG, "quelmdb.runner"):
        counts = work(store, [perform])
    assert counts == Counts(failed=3)
    assert found(store, jobs[0]).error == "Mute (it has no text)"
    assert "Wordless" in (found(store, jobs[1]).error or "")
