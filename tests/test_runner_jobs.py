"""What a worker is, what its job can do and tell while it runs, and what becomes of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Generator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import quelmdb
from quelmdb import Job, JobStore, Progress, Status
from quelmdb.runner import Counts, Worker, WorkerFunction, current, work, worker
from tests import inprocess
from tests.inprocess import found, run_one

store = inprocess.store


def test_the_five_lines(store: JobStore) -> None:
    greeted = []

    class Welcome(Worker):
        def perform(self, arguments: dict[str, int]) -> str:
            greeted.append(arguments["user"])
            return "hello"

    job = run_one(store, Welcome, {"user": 7})
    assert greeted == [7]
    assert (job.status, job.result, job.attempt) == (Status.COMPLETED, "hello", 1)


def test_functions_coroutines_and_generators_are_workers(store: JobStore) -> None:
    @worker
    def plain(number: int) -> int:
        return number + 1

    @worker
    async def coroutine(number: int) -> int:
        await asyncio.sleep(0)
        return number + 2

    @worker
    def generator(number: int) -> Generator[None, None, int]:
        yield
        return number + 3

    targets: list[WorkerFunction[..., Any]] = [plain, coroutine, generator]
    jobs = [target.add(store, 10) for target in targets]
    assert work(store, targets) == Counts(completed=3)
    assert [found(store, job).result for job in jobs] == [11, 12, 13]


@pytest.mark.parametrize("is_async", [False, True])
def test_hooks_come_in_ques_order_and_change_nothing(
    store: JobStore, is_async: bool, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[Any] = []

    class Base(Worker):
        max_attempts = 1

        def on_setup(self, job: Job) -> None:
            calls.append(("setup", job.id))
            raise ValueError("of no consequence")

        def on_success(self, arguments: Any) -> None:
            calls.append(("success", arguments))
            raise SystemExit

        def on_failure(self, arguments: Any, error: BaseException) -> None:
            calls.append(("failure", arguments, type(error)))

        def on_teardown(self, job: Job) -> None:
            calls.append(("teardown", job.id))

    class Plain(Base):
        def perform(self, arguments: Any) -> None:
            calls.append("perform")
            if arguments == "bad":
                raise LookupError

    class Coroutine(Base):
        async def perform(self, arguments: Any) -> None:
            calls.append("perform")
            if arguments == "bad":
                raise LookupError

        async def on_success(self, arguments: Any) -> None:  # type: ignore[override]
            calls.append(("success", arguments))

    target = Coroutine if is_async else Plain
    good = run_one(store, target, "good")
    assert calls == [("setup", good.id), "perform", ("success", "good"), ("teardown", good.id)]
    assert good.status is Status.COMPLETED
    assert "on_setup raised" in caplog.text
    calls.clear()
    bad = run_one(store, target, "bad")
    assert calls == [
        ("setup", bad.id),
        "perform",
        ("failure", "bad", LookupError),
        ("teardown", bad.id),
    ]
    assert bad.status is Status.FAILED


def test_who_has_lost_his_claim_does_not_hurt_the_others(
    store: JobStore, caplog: pytest.LogCaptureFixture
) -> None:
    @worker
    def perform(arguments: Any) -> None:
        if arguments == "gone":
            store.destroy(current().job)
        elif arguments == "stolen":
            job = current().job
            store.release(job)

    jobs = [perform.add(store, what) for what in ("a", "gone", "c")]
    counts = work(store, [perform])
    assert (counts.completed, counts.lost) == (2, 1)
    assert f"job {jobs[1].id} is left as it is" in caplog.text


def test_progress_is_stored_while_the_job_runs(store: JobStore) -> None:
    seen = []

    @worker
    def plain(arguments: Any) -> None:
        current().progress(1, 2, "half")
        seen.append(found(store, current().job).progress)

    @worker
    def generator(arguments: Any) -> Generator[Progress, None, None]:
        yield Progress(3, 4)
        seen.append(found(store, current().job).progress)

    @worker
    async def coroutine(arguments: Any) -> None:
        current().progress(5)

    for one in (plain, generator):
        run_one(store, one)
    assert run_one(store, coroutine).progress == Progress(5)
    assert seen == [Progress(1, 2, "half"), Progress(3, 4)]


def test_current_is_for_workers() -> None:
    with pytest.raises(LookupError, match="no job is run here"):
        current()


def test_follow_ups_are_done_before_it_ends(store: JobStore) -> None:
    @worker
    def second(number: int) -> int:
        return number

    @worker
    async def first(number: int) -> None:
        second.add(current().store, number + 1, run_at=datetime.now(UTC) + timedelta(seconds=0.1))

    first.add(store, 1)
    assert work(store, [first, second]) == Counts(completed=2)
    assert [job.result for job in store.completed(second)] == [2]


def test_jobs_of_paused_workers_and_of_others_are_left(store: JobStore) -> None:
    @worker
    def perform(arguments: Any) -> None: ...

    @worker
    def paused(arguments: Any) -> None: ...

    perform.add(store)
    left = [paused.add(store), store.insert(Job("of somebody else"))]
    store.pause(paused)
    assert work(store, [perform, paused]) == Counts(completed=1)
    assert all(found(store, job).status is Status.QUEUED for job in left)


def test_each_job_is_a_line_at_debug(store: JobStore, caplog: pytest.LogCaptureFixture) -> None:
    @worker(name="w", max_attempts=1)
    def perform(arguments: Any) -> float:
        return 1 / int(arguments)

    with caplog.at_level(logging.DEBUG, "quelmdb.runner"):
        jobs = [perform.add(store, number) for number in (1, 0)]
        work(store, [perform])
    assert f"job {jobs[0].id} of w completed in 0.0" in caplog.text
    assert f"job {jobs[1].id} of w failed in 0.0" in caplog.text
    assert "(attempt 1): ZeroDivisionError('division by zero')" in caplog.text


@pytest.mark.parametrize("result", [None, "result"])
def test_a_store_that_refuses_for_a_while_loses_nothing(
    store: JobStore, monkeypatch: pytest.MonkeyPatch, result: str | None
) -> None:
    refusals = 6  # with results each attempt to write is three

    def refusing(real: Callable[..., Any]) -> Callable[..., Any]:
        def method(*arguments: Any) -> Any:
            nonlocal refusals
            if refusals:
                refusals -= 1
                raise quelmdb.StoreFullError("full")
            return real(*arguments)

        return method

    for name in ("complete_many", "batch"):
        monkeypatch.setattr(store, name, refusing(getattr(store, name)))
    for module in ("finishing", "dispatch"):
        monkeypatch.setattr(f"quelmdb.runner.{module}.REFUSED_SECONDS", 0.05)

    @worker
    def perform(arguments: Any) -> str | None:
        return result

    store.insert_many(perform.job() for _ in range(10))
    assert work(store, [perform]) == Counts(completed=10)
    assert {(job.attempt, job.result) for job in store.completed(perform)} == {(1, result)}


def test_a_job_may_complete_itself_together_with_its_follow_ups(
    store: JobStore, caplog: pytest.LogCaptureFixture
) -> None:
    @worker
    def second(arguments: Any) -> None: ...

    @worker
    def first(arguments: Any) -> None:
        with store.batch() as batch:
            batch.complete(current().job, "done")
            batch.insert(second.job())

    job = first.add(store)
    assert work(store, [first, second]) == Counts(completed=2)
    assert found(store, job).result == "done"
    assert not caplog.records
