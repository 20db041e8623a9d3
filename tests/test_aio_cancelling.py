"""What is cancelled happens whole or not at all, and a claim that is cancelled is given back."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

import quelmdb.aio
import quelmdb.commit
from quelmdb import Job
from quelmdb.counters import Counters
from quelmdb.mailbox import AwaitedRequest
from tests import aiostores
from tests.aiostores import AioStore, Stop, dead_holder, held, listed, run, settle
from tests.durabilities import by_durability

pytest_plugins = ["tests.fixtures"]
begun, committed = aiostores.begun, aiostores.committed

MIB = 2**20


def test_a_write_that_is_cancelled_before_it_is_begun_does_not_happen(path: Path) -> None:
    async def work(store: AioStore) -> None:
        async def insert(n: int) -> None:
            await store.insert(Job("a", n))

        with held(store):
            tasks = [asyncio.ensure_future(insert(n)) for n in range(10)]
            await asyncio.sleep(0)
            for task in tasks[::2]:
                task.cancel()
            outcomes = await asyncio.gather(*tasks[::2], return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {asyncio.CancelledError}
        await asyncio.gather(*tasks[1::2])
        assert [job.arguments for job in await listed(store.all())] == [1, 3, 5, 7, 9]

    run(path, work)


def test_a_write_that_is_cancelled_later_has_happened_whole(path: Path, begun: Stop) -> None:
    async def work(store: AioStore) -> None:
        future = store.insert_many([Job("a")] * 100)
        await begun.wait()
        assert future.cancel()
        begun.go_on.set()
        await settle(store)
        assert len(store.all()) == 100

    run(path, work)


MOMENTS = ("held", "begun", "committed", "answered")


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("cancellations", [1, 3])
def test_a_claim_that_is_cancelled_is_given_back(
    moment: str, cancellations: int, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(store: AioStore) -> None:
        await store.insert_many([Job("a")] * 3)
        claim = asyncio.ensure_future(store.claim("a", limit=3))

        def cancel() -> None:
            for _ in range(cancellations):
                claim.cancel()

        with monkeypatch.context() as patch:
            if moment == "held":
                with held(store):
                    await asyncio.sleep(0)
                    cancel()
            elif moment == "answered":  # and not resumed yet
                answer = AwaitedRequest.answer

                def answer_and_cancel(request: Any) -> None:
                    answer(request)
                    cancel()

                patch.setattr(AwaitedRequest, "answer", answer_and_cancel)
            else:
                where = {"begun": (Counters, "finish"), "committed": (quelmdb.commit, "_deliver")}
                stop = Stop(patch, *where[moment])
                await stop.wait()
                cancel()
                stop.go_on.set()
            with pytest.raises(asyncio.CancelledError):
                await claim
        await settle(store)
        jobs = await listed(store.jobs("queued"))
        assert [(job.id, job.attempt, job.owner) for job in jobs] == [(n, 0, 0) for n in (1, 2, 3)]

    run(path, work)


@pytest.mark.parametrize("step", range(1, 5))
def test_a_claim_that_is_cancelled_between_its_transactions_loses_nothing(
    step: int, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is there, what is rescued, the dead one struck out, what was rescued."""
    steps = 0

    async def work(store: AioStore) -> None:
        store._store._claims._next_rescue = float("inf")
        claim = asyncio.ensure_future(store.claim("a", limit=5))
        received = AioStore._received

        async def cancelled_at_its_step(store: AioStore, verb: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps == step:
                claim.cancel()
            return await received(store, verb)

        with monkeypatch.context() as patch:
            patch.setattr(AioStore, "_received", cancelled_at_its_step)
            with pytest.raises(asyncio.CancelledError):
                await claim
        await settle(store)
        store._store._claims._next_rescue = 0
        claimed = await store.claim("a", limit=5)
        assert [job.id for job in claimed] == [1, 2, 3]
        assert [job.attempt for job in claimed] == [2, 2, 1]

    with quelmdb.open(path) as store:
        store.insert_many([Job("a")] * 3)
        with dead_holder(path, 2):
            run(path, work)
    assert steps >= step


@by_durability(16 * MIB)
@pytest.mark.parametrize("seed", range(3))
def test_no_job_is_lost_by_claims_that_are_cancelled_at_any_moment(
    seed: int, options: dict[str, Any], tmp_path: Path, long: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(seed)
    path = tmp_path / "random.qdb"
    running: set[asyncio.Task[None]] = set()
    answer = AwaitedRequest.answer

    def cancel_some(probability: float) -> None:
        if running and chance.random() < probability:
            chance.choice(list(running)).cancel()

    def answer_and_cancel(request: Any) -> None:
        answer(request)  # now futures are done whose tasks have not resumed
        cancel_some(0.3)

    async def work(store: AioStore) -> tuple[int, int]:
        kept: dict[int | None, Job] = {}
        completed = cancelled = 0

        async def take() -> None:
            nonlocal completed
            async with asyncio.timeout(chance.choice([None, 0.0, 0.0005, 0.002])):
                jobs = await store.claim("a", limit=chance.randint(1, 5))
                assert not kept.keys() & {job.id for job in jobs}
                kept.update((job.id, job) for job in jobs)
            for job in jobs:
                ending = chance.choice([None, None, store.complete, store.release])
                if ending is not None:
                    del kept[job.id]
                    completed += ending == store.complete
                    await asyncio.shield(ending(job))  # it happens, heard of or not

        async def cancel_in_turn() -> None:
            while True:
                await asyncio.sleep(chance.choice([0, 0, 0.0002]))
                cancel_some(0.2)

        await store.insert_many([Job("a", n) for n in range(60)])
        cancelling = asyncio.ensure_future(cancel_in_turn())
        for _ in range(400 if long else 40):
            running.update(asyncio.ensure_future(take()) for _ in range(chance.randint(1, 6)))
            await asyncio.sleep(chance.choice([0, 0.001]))
            ended = {task for task in running if task.done()}
            running.difference_update(ended)
            outcomes = await asyncio.gather(*ended, return_exceptions=True)
            cancelled += sum(outcome is not None for outcome in outcomes)
            assert {type(outcome) for outcome in outcomes} <= {
                type(None),
                asyncio.CancelledError,
                TimeoutError,
            }
        cancelling.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await settle(store)
        assert {job.id: job async for job in store.jobs("started")} == kept
        queued = await listed(store.jobs("queued"))
        assert len(kept) + len(queued) + completed == 60
        assert len(store.completed()) == completed
        assert {job.attempt for job in queued} <= {0}
        return cancelled, completed

    async def opened() -> tuple[int, int]:
        async with await quelmdb.aio.open(path, **options) as store:
            outcome = await work(store)
            assert await store.check() == []
            return outcome

    monkeypatch.setattr(AwaitedRequest, "answer", answer_and_cancel)
    cancelled, completed = asyncio.run(opened())
    assert cancelled > 10
    assert completed > 0


def test_a_claim_that_times_out_is_given_back(path: Path) -> None:
    async def work(store: AioStore) -> None:
        await store.insert_many([Job("a")] * 3)
        with held(store):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(store.claim("a", limit=2), 0.001)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.001):
                    await store.claim("a", limit=2)
        assert [job.id for job in await store.claim("a", limit=9)] == [1, 2, 3]

    run(path, work)


def test_a_group_of_tasks_that_fails_gives_back_its_claims(path: Path, committed: Stop) -> None:
    async def work(store: AioStore) -> None:
        async def fail() -> None:
            await committed.wait()
            raise ZeroDivisionError

        async def group() -> None:
            async with asyncio.TaskGroup() as group:
                for _ in range(3):
                    group.create_task(store.claim("a", limit=2))
                group.create_task(fail())

        with pytest.raises(ExceptionGroup) as caught:
            await group()
        assert isinstance(caught.value.exceptions[0], ZeroDivisionError)
        committed.go_on.set()
        await settle(store)
        assert len(store.jobs("queued")) == 6

    with quelmdb.open(path) as filled:
        filled.insert_many([Job("a")] * 6)
        run(path, work)
