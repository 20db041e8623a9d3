"""Many calls in flight share transactions, hold no thread, and let other tasks go on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest

import quelmdb.aio
import quelmdb.commit
from quelmdb import InvalidJobError, Job, JobExistsError, StaleClaim, Status
from tests.aiostores import AioStore, held, listed, run

pytest_plugins = ["tests.fixtures"]


def _count_transactions(store: AioStore, patch: pytest.MonkeyPatch) -> list[None]:
    """One item for each that is begun."""
    count: list[None] = []
    begin_write = store._store._opened.environment.begin_write

    def begin() -> Any:
        count.append(None)
        return begin_write()

    patch.setattr(store._store._opened.environment, "begin_write", begin)
    return count


# --- Many in flight -----------------------------------------------------------


def test_inserts_in_flight_share_transactions(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(store: AioStore) -> None:
        transactions = _count_transactions(store, monkeypatch)
        jobs = await asyncio.gather(*(store.insert(Job("a", n)) for n in range(500)))
        assert [job.id for job in jobs] == list(range(1, 501))
        assert 1 <= len(transactions) <= 50
        del transactions[:]
        with held(store):
            futures = [store.insert(Job("a", n)) for n in range(500, 1000)]
        await asyncio.gather(*futures)
        assert len(transactions) <= 2  # the committer may have begun with the first alone

    run(path, work)
    with quelmdb.open(path) as store:
        assert [job.arguments for job in store.all()] == list(range(1000))


def test_tasks_that_await_each_insert_share_transactions(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(store: AioStore) -> None:
        transactions = _count_transactions(store, monkeypatch)

        async def insert(number: int) -> None:
            for n in range(10):
                await store.insert(Job(f"w{number}", n))

        await asyncio.gather(*map(insert, range(50)))
        assert len(transactions) <= 250
        for number in range(50):
            jobs = await listed(store.all(f"w{number}"))
            assert [job.arguments for job in jobs] == list(range(10))

    run(path, work)


def test_no_call_holds_a_thread(path: Path) -> None:
    async def work(store: AioStore) -> None:
        await store.insert(Job("a"))
        before = threading.active_count()
        futures = [store.insert(Job("a")) for _ in range(300)]
        claims = [asyncio.ensure_future(store.claim("a", limit=3)) for _ in range(50)]
        await asyncio.sleep(0)
        assert threading.active_count() <= before
        await asyncio.gather(*futures)
        for jobs in await asyncio.gather(*claims):
            await store.complete_many(jobs)
        assert threading.active_count() <= before
        assert (await store.counts())[Status.COMPLETED] == 150

    run(path, work)


def test_writes_of_a_task_are_applied_in_the_order_of_its_calls(path: Path) -> None:
    async def work(store: AioStore) -> None:
        async def write(number: int) -> None:
            futures: list[Awaitable[Any]] = []
            for n in range(20):
                futures += [
                    store.insert(Job("a", n, id=number)),
                    store.update(Job("b", n, id=number)),
                    store.destroy(number),
                ]
            await asyncio.gather(*futures, store.insert(Job("last", id=number)))

        await asyncio.gather(*map(write, range(1, 6)))
        assert await store.workers() == ["last"]
        assert await listed(store.all().ids()) == [1, 2, 3, 4, 5]

    run(path, work)


def test_an_error_fails_its_own_task_alone(path: Path) -> None:
    async def work(store: AioStore) -> None:
        taken = await store.insert(Job("a", id=50))
        (stale,) = await store.claim("a")
        await store.release(stale)
        with held(store):
            futures: list[Awaitable[Any]] = [
                store.insert(Job("b")),
                store.insert(taken),
                store.complete(stale),
                store.insert_many([Job("half"), taken]),
                store.insert(Job("b")),
            ]
        outcomes = await asyncio.gather(*futures, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [
            Job,
            JobExistsError,
            StaleClaim,
            JobExistsError,
            Job,
        ]
        assert await store.workers() == ["a", "b"]
        with pytest.raises(InvalidJobError):
            store.destroy(0)  # bad input raises at the call

    run(path, work)


# --- Cancellation -------------------------------------------------------------


def test_a_claim_that_finds_nothing_lets_other_tasks_go_on(path: Path) -> None:
    async def work(store: AioStore) -> None:
        async def insert() -> None:
            await asyncio.sleep(0)
            await store.insert(Job("a"))

        inserting = asyncio.ensure_future(insert())
        while not (jobs := await store.claim("a")):
            pass
        assert len(jobs) == 1
        await inserting

    run(path, work)


# --- Reading ------------------------------------------------------------------


def test_a_view_lets_other_tasks_go_on_between_its_pages(path: Path) -> None:
    async def work(store: AioStore) -> None:
        jobs = await store.insert_many([Job("a", n) for n in range(1000)])
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.ensure_future(count())
        assert await listed(store.all("a")) == jobs
        assert 5 <= turns < 1000
        before = turns
        assert await listed(store.all().ids()) == [job.id for job in jobs]
        assert before + 5 <= turns
        counting.cancel()

    run(path, work)
