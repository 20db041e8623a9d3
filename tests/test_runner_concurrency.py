"""Many jobs run at once, no more than their workers allow, and few are claimed ahead."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

import quelmdb
from quelmdb import JobStore, Status
from quelmdb.runner import Counts, WorkerFunction, work, worker
from quelmdb.runner.dispatch import Dispatcher
from quelmdb.runner.lanes import Pool
from quelmdb.runner.performing import Running
from tests import inprocess
from tests.inprocess import PATIENCE, found

store = inprocess.store


def test_many_jobs_are_all_done_once(store: JobStore) -> None:
    done: list[int] = []
    count = 3000 if isinstance(store, quelmdb.Store) else 300

    @worker
    def perform(number: int) -> None:
        done.append(number)

    @worker
    async def coroutine(number: int) -> None:
        done.append(number)

    half = count // 2
    store.insert_many(perform.job(n) for n in range(half))
    store.insert_many(coroutine.job(n) for n in range(half, count))
    assert work(store, [perform, coroutine], threads=4) == Counts(completed=count)
    assert sorted(done) == list(range(count))


def test_several_threads_run_several_jobs_at_once(store: JobStore) -> None:
    together = threading.Barrier(3, timeout=PATIENCE)

    @worker
    def perform(arguments: Any) -> None:
        together.wait()

    store.insert_many(perform.job() for _ in range(6))
    assert work(store, [perform], threads=3) == Counts(completed=6)


def test_many_coroutines_run_at_once(store: JobStore) -> None:
    begun = 0
    all_begun = asyncio.Event()

    @worker
    async def perform(arguments: Any) -> None:
        nonlocal begun
        begun += 1
        if begun == 200:
            all_begun.set()
        await asyncio.wait_for(all_begun.wait(), PATIENCE)

    store.insert_many(perform.job() for _ in range(200))
    assert work(store, [perform]) == Counts(completed=200)


class _Meter:
    """How many are inside at once, at most."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self.most = 0

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            self.most = max(self.most, self._inside)

    def __exit__(self, *reason: object) -> None:
        with self._lock:
            self._inside -= 1


def test_no_more_than_a_workers_concurrency_run_at_once(store: JobStore) -> None:
    single, pair, any_number, coroutines = _Meter(), _Meter(), _Meter(), _Meter()
    pause = threading.Event()

    def made(meter: _Meter, **options: Any) -> WorkerFunction[..., Any]:
        @worker(name=str(id(meter)), **options)
        def perform(arguments: Any) -> None:
            with meter:
                pause.wait(0.002)

        return perform

    @worker(concurrency=3)
    async def coroutine(arguments: Any) -> None:
        with coroutines:
            await asyncio.sleep(0.002)

    targets = [made(single, concurrency=1), made(pair, concurrency=2), made(any_number), coroutine]
    store.insert_many(target.job() for _ in range(25) for target in targets)
    assert work(store, targets, threads=6) == Counts(completed=100)
    assert single.most == 1
    assert pair.most <= 2
    assert 2 <= any_number.most <= 6
    assert coroutines.most == 3


def test_a_limited_worker_does_not_hold_up_the_others(store: JobStore) -> None:
    others_done = threading.Event()
    count = 0

    @worker(concurrency=1)
    def slow(arguments: Any) -> bool:
        return others_done.wait(PATIENCE)

    @worker
    def quick(arguments: Any) -> None:
        nonlocal count
        count += 1
        if count == 20:
            others_done.set()

    slows = [slow.add(store) for _ in range(3)]
    store.insert_many(quick.job() for _ in range(20))
    work(store, [slow, quick], threads=2)
    assert [found(store, job).result for job in slows] == [True] * 3


def test_what_was_claimed_ahead_goes_back_when_a_job_takes_long(store: JobStore) -> None:
    begun = threading.Event()

    @worker
    def perform(arguments: Any) -> Any:
        if arguments == "slow":
            begun.set()
            waiting = len(store.jobs("queued", worker=perform))
            for _ in range(400):
                if waiting := len(store.jobs("queued", worker=perform)):
                    break
                threading.Event().wait(0.005)
            return waiting
        return None

    # Short ones first, so that it claims ahead.
    store.insert_many(perform.job() for _ in range(40))
    slow = perform.add(store, "slow")
    store.insert_many(perform.job() for _ in range(40))
    assert work(store, [perform]) == Counts(completed=81)
    assert found(store, slow).result > 0
    assert {job.attempt for job in store.completed(perform)} == {1}


@pytest.mark.parametrize(("max_attempts", "is_ahead"), [(1, False), (2, True)])
def test_jobs_with_a_single_attempt_are_not_claimed_ahead(
    store: JobStore, max_attempts: int, is_ahead: bool
) -> None:
    most_started = 0

    @worker(max_attempts=max_attempts)
    def perform(arguments: Any) -> None:
        nonlocal most_started
        most_started = max(most_started, store.counts(perform)[Status.STARTED])

    store.insert_many(perform.job() for _ in range(40))
    assert work(store, [perform]) == Counts(completed=40)
    assert (most_started > 1) == is_ahead


def test_jobs_in_their_own_last_attempt_are_not_claimed_ahead(store: JobStore) -> None:
    most_started = 0

    @worker
    def perform(arguments: Any) -> None:
        nonlocal most_started
        if arguments == "own":
            most_started = max(most_started, store.counts(perform)[Status.STARTED])

    store.insert_many(perform.job() for _ in range(40))
    store.insert_many(perform.job("own", max_attempts=1) for _ in range(40))
    assert work(store, [perform]) == Counts(completed=80)
    assert {job.attempt for job in store.completed(perform)} == {1}
    assert most_started == 1


def test_a_coroutine_that_ends_behind_the_last_look_ends_the_run(
    store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its outcome is stored, all is seen to be done, and only then it is forgotten. (Where
    that is seen later anyway, nothing is shown.)"""
    finish = Dispatcher.finish

    def late(self: Dispatcher, pool: Pool, running: Running) -> None:
        end = time.monotonic() + 0.5
        while not self.is_stopping and time.monotonic() < end:
            time.sleep(0.001)
        time.sleep(0.1)  # until the main thread sleeps: nothing tells when it does
        finish(self, pool, running)

    @worker
    async def perform(arguments: Any) -> int:
        return 1

    perform.add(store)
    monkeypatch.setattr(Dispatcher, "finish", late)
    assert work(store, [perform]).completed == 1
