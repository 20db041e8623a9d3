"""The end of a store or of its loop finishes what is in flight, and gives back its claims."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import quelmdb.aio
import quelmdb.commit
from quelmdb import Job, StoreClosedError, registry
from quelmdb.claiming import Claim
from tests import aiostores
from tests.aiostores import AioStore, Stop, dead_holder, held
from tests.runners import eventually

pytest_plugins = ["tests.fixtures"]
begun = aiostores.begun


def test_closing_finishes_writes_in_flight(path: Path) -> None:
    async def work() -> None:
        store = await quelmdb.aio.open(path)
        futures = [store.insert(Job("a", n)) for n in range(300)]
        await store.close()
        assert [job.arguments for job in await asyncio.gather(*futures)] == list(range(300))
        with pytest.raises(StoreClosedError):
            store.insert(Job("a"))
        with pytest.raises(StoreClosedError):
            await store.find(1)
        with pytest.raises(StoreClosedError):
            store.batch()
        await store.close()

    asyncio.run(work())
    with quelmdb.open(path) as store:
        assert len(store.all()) == 300


def test_closing_a_shared_store_finishes_writes_in_flight(path: Path) -> None:
    async def work() -> None:
        store = await quelmdb.aio.open(path)
        futures = [store.insert(Job("a", n)) for n in range(300)]
        await store.close()
        assert len(other.all()) == 300
        await asyncio.gather(*futures)

    with quelmdb.open(path) as other:
        asyncio.run(work())
        assert other.insert(Job("a")).id == 301


def test_a_claim_that_is_cancelled_behind_the_end_of_its_store_is_given_back(path: Path) -> None:
    async def work() -> None:
        store = await quelmdb.aio.open(path)
        claim = asyncio.ensure_future(store.claim("a"))
        await asyncio.sleep(0)
        other._committer.finish()  # it is answered, and this loop had no time to hear of it
        store._store.close()
        claim.cancel()
        with pytest.raises(asyncio.CancelledError):
            await claim

    with quelmdb.open(path) as other:
        other.insert(Job("a"))
        asyncio.run(work())
        other._committer.finish()
        assert [job.attempt for job in other.jobs("queued")] == [0]


def test_a_cancelled_close_closes_nevertheless(path: Path, begun: Stop) -> None:
    async def work() -> None:
        store = await quelmdb.aio.open(path)
        future = store.insert(Job("a"))
        await begun.wait()
        closing = asyncio.ensure_future(store.close())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        begun.go_on.set()
        assert (await future).id == 1

    asyncio.run(work())
    assert path not in [opened.path for opened in registry._open.values()]


def test_an_open_that_is_cancelled_leaves_nothing_open(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = Stop(monkeypatch, quelmdb.store, "open")

    async def work() -> None:
        opening = asyncio.ensure_future(quelmdb.aio.open(path))
        await stop.wait()
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        stop.go_on.set()

    quelmdb.open(path).close()
    asyncio.run(work())  # waits for the thread
    assert path not in [opened.path for opened in registry._open.values()]


@contextmanager
def _loop_that_is_closed(
    store: quelmdb.Store,
) -> Iterator[tuple[asyncio.AbstractEventLoop, AioStore]]:
    """A loop that the block closes while tasks are pending, which `asyncio.run` would not."""
    loop = asyncio.new_event_loop()
    opened = loop.run_until_complete(quelmdb.aio.open(store.path))
    loop.run_until_complete(loop.shutdown_default_executor())
    yield loop, opened
    assert loop.is_closed()
    opened._store.close()


def _all_given_back(store: quelmdb.Store) -> bool:
    store._committer.finish()
    return [job.attempt for job in store.jobs("queued")] == [0, 0, 0]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kept", [True, False], ids=["task kept", "task forgotten"])
def test_a_claim_whose_loop_is_closed_before_it_is_told_is_given_back(
    kept: bool, store: quelmdb.Store, begun: Stop
) -> None:
    begun.go_on.set()
    store.insert_many([Job("a")] * 3)
    begun.go_on.clear()
    begun.reached.clear()
    with _loop_that_is_closed(store) as (loop, opened):
        tasks = {loop.create_task(opened.claim("a", limit=3))}
        loop.run_until_complete(asyncio.sleep(0))
        begun.reached.wait()
        loop.close()
        if not kept:
            tasks.clear()
            gc.collect()
        begun.go_on.set()
        eventually(lambda: _all_given_back(store))


def test_a_claim_whose_loop_is_closed_before_it_hears_is_given_back(store: quelmdb.Store) -> None:
    store.insert_many([Job("a")] * 3)
    with _loop_that_is_closed(store) as (loop, opened):
        told = loop.create_task(opened.claim("a", limit=2))
        with held(opened):
            loop.run_until_complete(asyncio.sleep(0))
        store._committer.finish()  # the loop was called, and will never come to it
        assert len(store.jobs("started")) == 2
        late = opened._request(Claim([None, "a"], 1, lambda error: None), 0)
        with store._committer._turn:
            store._committer.submit(late)
            loop.close()
        eventually(lambda: _all_given_back(store))
        assert not told.done()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_claim_that_is_forgotten_between_its_transactions_gives_back_what_it_had(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with quelmdb.open(path) as store:
        store.insert_many([Job("a")] * 3)
        with dead_holder(path, 2), _loop_that_is_closed(store) as (loop, opened):
            opened._store._claims._next_rescue = float("inf")
            tasks = {loop.create_task(opened.claim("a", limit=5))}
            while not store.jobs("started", worker="a", after=2):
                loop.run_until_complete(asyncio.sleep(0))
            with store._committer._turn:
                while tasks and not store._committer._unserved:
                    loop.run_until_complete(asyncio.sleep(0))  # until it rescues
                loop.close()
                tasks.clear()
            for _ in range(2):
                store._committer.finish()  # which had a hold on the task
                store._committer.finish()
                gc.collect()
        assert [job.attempt for job in store.claim("a", limit=5)] == [2, 2, 1]


@pytest.mark.parametrize("turns", range(12))
def test_the_end_of_asyncio_run_gives_back_claims_in_flight(
    turns: int, store: quelmdb.Store
) -> None:
    kept: list[Job] = []

    async def take(opened: AioStore) -> None:
        while True:
            kept.extend(await opened.claim("a", limit=2))

    async def work() -> None:
        opened = await quelmdb.aio.open(store.path)
        tasks.update(asyncio.ensure_future(take(opened)) for _ in range(3))
        for _ in range(turns):
            await asyncio.sleep(0)

    tasks: set[asyncio.Future[None]] = set()
    store.insert_many([Job("a")] * 20)
    asyncio.run(work())
    store._committer.finish()
    store._committer.finish()
    assert list(store.jobs("started")) == sorted(kept, key=lambda job: job.id or 0)
