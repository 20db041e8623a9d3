"""quelmdb.aio keeps the contract of every store, and reads and batches as the others do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import quelmdb.aio
import quelmdb.commit
from quelmdb import Job, StaleClaim, Status, StoreClosedError
from quelmdb.persistence import Clock, JobStore
from quelmdb.testing import JobStoreContract
from tests import inmemory
from tests.aiostores import AioStore, dead_holder, listed, run
from tests.loopstore import LoopStore, LoopThread

pytest_plugins = ["tests.fixtures"]
tmp_path = inmemory.tmp_path

MIB = 2**20


class TestAioStore(JobStoreContract):
    """Asked from other threads. Ephemeral, so that its many writes take no time."""

    bound_to_threads = frozenset(
        (
            "test_a_snapshot_belongs_to_its_thread",
            "test_what_was_made_in_a_snapshot_belongs_to_its_thread",
        )
    )

    def open_store(self, directory: Path, clock: Clock) -> LoopStore:
        return LoopStore(
            self.thread, directory, durability="ephemeral", capacity=16 * MIB, clock=clock
        )

    def reopen(self, store: JobStore, directory: Path, clock: Clock) -> LoopStore:
        store.close()
        return self.open_store(directory, clock)

    @pytest.fixture(autouse=True)
    def _thread(self, request: pytest.FixtureRequest) -> Iterator[None]:
        if request.node.originalname in self.bound_to_threads:
            pytest.skip("the snapshot is in the thread of the loop, whoever asks for it")
        with LoopThread() as self.thread:
            yield


# --- Cancellation -------------------------------------------------------------


def test_claim_rescues_what_a_killed_process_held(path: Path) -> None:
    with quelmdb.open(path) as store:
        store.insert_many([Job("a")] * 3)
        with dead_holder(path, 2):

            async def work(store: AioStore) -> list[Job]:
                return await store.claim("a", limit=5)

            claimed = run(path, work)
    assert [(job.id, job.attempt) for job in claimed] == [(1, 2), (2, 2), (3, 1)]


# --- Reading ------------------------------------------------------------------


def test_views_are_as_those_of_other_stores(path: Path) -> None:
    async def work(store: AioStore) -> None:
        jobs = await store.insert_many(Job("ab"[n % 2], n) for n in range(10))
        view = store.jobs("queued", worker="a", after=2, limit=3, reverse=False)
        assert await listed(view) == await listed(view) == [jobs[n] for n in (2, 4, 6)]
        assert len(view) == len(view.ids()) == 3
        assert await listed(store.incomplete("b", reverse=True).ids()) == [10, 8, 6, 4, 2]
        assert len(store.completed()) == len(store.failed("a")) == 0
        assert await store.find(3) == jobs[2]
        assert await store.find(None) is None
        assert (await store.counts("a"))[Status.QUEUED] == 5
        assert await store.workers() == ["a", "b"]
        assert (await store.info()).path == str(path)

    run(path, work)


def test_a_snapshot_is_one_point_in_time(path: Path) -> None:
    async def work(store: AioStore) -> None:
        jobs = await store.insert_many([Job("a")] * 300)
        async with store.snapshot() as snapshot:
            told: list[Job] = []
            async for job in snapshot.all():
                if not told:
                    await store.destroy_many(jobs)
                told.append(job)
            assert told == jobs
            assert await snapshot.find(jobs[0]) == jobs[0]
            assert await store.find(jobs[0]) is None
            assert len(snapshot.incomplete("a")) == 300
        with pytest.raises(quelmdb.SnapshotEndedError):
            await snapshot.counts()
        await snapshot.close()

    run(path, work)


def test_a_batch_is_applied_at_its_end_or_not_at_all(path: Path) -> None:
    async def work(store: AioStore) -> None:
        await store.insert(Job("a"))
        (claimed,) = await store.claim("a")
        async with store.batch() as batch:
            batch.complete(claimed, "done")
            batch.insert_many([Job("next"), Job("next")])
            await asyncio.sleep(0)
            assert len(store.all()) == 1
        assert batch.results[0] == await store.find(claimed)
        assert batch.results[1] == await listed(store.all("next"))

        async def fail(then: Callable[[quelmdb.aio.AsyncBatch], object]) -> None:
            nonlocal batch
            async with store.batch() as batch:
                batch.destroy_many([2, 3])
                then(batch)

        with pytest.raises(ZeroDivisionError):
            await fail(lambda batch: 1 // 0)
        with pytest.raises(StaleClaim):
            await fail(lambda batch: batch.complete(claimed))
        with pytest.raises(quelmdb.BatchError):
            batch.insert(Job("b"))
        assert batch.results == []
        assert len(store.all()) == 3

    run(path, work)


# --- Who may use it -----------------------------------------------------------


def test_options_are_those_of_open(path: Path) -> None:
    async def work() -> None:
        with pytest.raises(quelmdb.StoreNotFoundError):
            await quelmdb.aio.open(path, create=False)
        async with await quelmdb.aio.open(path, clock=lambda: 1_000_000) as store:
            job = await store.insert(Job("a"))
            assert job.created_at is not None
            assert job.created_at.timestamp() == 1
        with suppress(StoreClosedError):
            await store.rescue()

    asyncio.run(work())
