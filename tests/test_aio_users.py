"""A store belongs to its loop, and is shared with the threads of its process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import quelmdb.aio
import quelmdb.commit
from quelmdb import Job, ReadOnlyStoreError, WrongThreadError
from quelmdb.testing.rules.helpers import id_of
from tests.aiostores import AioStore, listed, run

pytest_plugins = ["tests.fixtures"]

USES: dict[str, Callable[[AioStore], Any]] = {
    "insert": lambda store: store.insert(Job("a")),
    "insert_many": lambda store: store.insert_many([Job("a")]),
    "update": lambda store: store.update(Job("a")),
    "update_many": lambda store: store.update_many([Job("a")]),
    "destroy": lambda store: store.destroy(1),
    "destroy_many": lambda store: store.destroy_many([1]),
    "restore": lambda store: store.restore([Job("a", id=99)]),
    "claim": lambda store: store.claim("a"),
    "complete": lambda store: store.complete(Job("a", id=1, claim=1)),
    "complete_many": lambda store: store.complete_many([Job("a", id=1, claim=1)]),
    "fail": lambda store: store.fail(Job("a", id=1, claim=1), "oh"),
    "release": lambda store: store.release(Job("a", id=1, claim=1)),
    "rescue": lambda store: store.rescue(),
}


@pytest.mark.parametrize("use", [*USES, "batch", "snapshot"])
def test_another_loop_and_another_thread_are_refused(use: str, path: Path) -> None:
    async def elsewhere(store: AioStore) -> None:
        with pytest.raises(WrongThreadError):
            await {**USES, "batch": AioStore.batch, "snapshot": AioStore.snapshot}[use](store)

    def without_a_loop(store: AioStore) -> None:
        with pytest.raises(WrongThreadError):
            {**USES, "batch": AioStore.batch, "snapshot": AioStore.snapshot}[use](store).send(None)

    async def work(store: AioStore) -> None:
        await asyncio.to_thread(asyncio.run, elsewhere(store))
        await asyncio.to_thread(without_a_loop, store)
        assert len(store.all()) == 0

    run(path, work)


def test_a_snapshot_is_bound_to_the_thread_of_its_loop(path: Path) -> None:
    async def work(store: AioStore) -> None:
        async with store.snapshot() as snapshot:
            with pytest.raises(WrongThreadError):
                await asyncio.to_thread(asyncio.run, snapshot.find(1))
            with pytest.raises(WrongThreadError):
                await asyncio.to_thread(asyncio.run, listed(snapshot.all()))

    run(path, work)


def test_a_store_that_is_open_for_reading_refuses_every_write(path: Path) -> None:
    quelmdb.open(path).close()

    async def work() -> None:
        async with await quelmdb.aio.open(path, readonly=True) as store:
            for use in USES.values():
                with pytest.raises(ReadOnlyStoreError):
                    await use(store)
            with pytest.raises(ReadOnlyStoreError):
                async with store.batch() as batch:
                    batch.insert(Job("a"))
            assert await listed(store.all()) == []

    asyncio.run(work())


def test_a_store_is_shared_with_the_threads_of_its_process(path: Path) -> None:
    async def work(store: AioStore) -> None:
        def insert(number: int) -> list[int]:
            return [id_of(other.insert(Job("thread", number))) for _ in range(20)]

        threads = [asyncio.to_thread(insert, number) for number in range(4)]
        tasks = [store.insert(Job("task")) for _ in range(80)]
        ids = [id_of(job) for job in await asyncio.gather(*tasks)]
        for by_thread in await asyncio.gather(*threads):
            ids += by_thread
        assert sorted(ids) == list(range(1, 161))
        claimed = await store.claim("thread", limit=80)
        assert {job.owner for job in claimed} == {other.claim("task")[0].owner}

    with quelmdb.open(path) as other:
        run(path, work)
        assert len(other.jobs("started")) == 81  # it is open still, and they are held
        assert other.rescue() == []
