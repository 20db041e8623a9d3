"""quelmdb.aio keeps the contract, and what it promises to event loops."""

from __future__ import annotations

import asyncio
import gc
import random
import shutil
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

import pytest

import quelmdb.aio
import quelmdb.commit
from quelmdb import (
    InvalidJobError,
    Job,
    JobExistsError,
    ReadOnlyStoreError,
    StaleClaim,
    Status,
    StoreClosedError,
    WrongThreadError,
    registry,
)
from quelmdb.claiming import Claim
from quelmdb.counters import Counters
from quelmdb.mailbox import AwaitedRequest
from quelmdb.persistence import Clock, JobStore
from quelmdb.testing import JobStoreContract
from quelmdb.testing.rules.helpers import id_of
from tests.children import Child
from tests.loopstore import LoopStore, LoopThread

pytest_plugins = ["tests.fixtures"]

T = TypeVar("T")
AioStore = quelmdb.aio.Store

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
            self.thread, directory, durability="ephemeral", capacity=256 * MIB, clock=clock
        )

    def reopen(self, store: JobStore, directory: Path, clock: Clock) -> LoopStore:
        store.close()
        return self.open_store(directory, clock)

    @pytest.fixture(autouse=True)
    def _thread(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[None]:
        if request.node.originalname in self.bound_to_threads:
            pytest.skip("the snapshot is in the thread of the loop, whoever asks for it")
        with LoopThread() as self.thread:
            yield
        shutil.rmtree(tmp_path)  # the files have their capacity on the disk


def _run(path: Path, work: Callable[[AioStore], Coroutine[Any, Any, T]]) -> T:
    """What `work` returns, in an event loop with a store that is open."""

    async def opened() -> T:
        async with await quelmdb.aio.open(path) as store:
            return await work(store)

    return asyncio.run(opened())


async def _settle(store: AioStore) -> None:
    """Waits until all is committed, and what that gave back is, too."""
    for _ in range(2):
        await asyncio.to_thread(store._store._committer.finish)


@contextmanager
def _held(store: AioStore) -> Iterator[None]:
    """No transaction begins."""
    with store._store._committer._turn:  # this thread itself writes nothing
        yield


class _Stop:
    """A function before which whoever calls it stops, until the end of the block."""

    def __init__(self, patch: pytest.MonkeyPatch, where: object, name: str) -> None:
        self.reached, self.go_on = threading.Event(), threading.Event()
        function = getattr(where, name)

        def stop(*arguments: object) -> object:
            self.reached.set()
            self.go_on.wait()
            return function(*arguments)

        patch.setattr(where, name, stop)

    async def wait(self) -> None:
        await asyncio.to_thread(self.reached.wait)


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Stop]:
    """The committer stops within its transactions."""
    stop = _Stop(monkeypatch, Counters, "finish")
    yield stop
    stop.go_on.set()


@pytest.fixture
def committed(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Stop]:
    """The committer stops behind its transactions, before it tells of them."""
    stop = _Stop(monkeypatch, quelmdb.commit, "_deliver")
    yield stop
    stop.go_on.set()


def _count_transactions(store: AioStore, patch: pytest.MonkeyPatch) -> list[None]:
    """One item for each that is begun."""
    count: list[None] = []
    begin_write = store._store._opened.environment.begin_write

    def begin() -> Any:
        count.append(None)
        return begin_write()

    patch.setattr(store._store._opened.environment, "begin_write", begin)
    return count


async def _jobs(view: quelmdb.aio.View[T]) -> list[T]:
    return [item async for item in view]


# --- Many in flight -----------------------------------------------------------


def test_inserts_in_flight_share_transactions(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(store: AioStore) -> None:
        transactions = _count_transactions(store, monkeypatch)
        jobs = await asyncio.gather(*(store.insert(Job("a", n)) for n in range(500)))
        assert [job.id for job in jobs] == list(range(1, 501))
        assert 1 <= len(transactions) <= 50
        del transactions[:]
        with _held(store):
            futures = [store.insert(Job("a", n)) for n in range(500, 1000)]
        await asyncio.gather(*futures)
        assert len(transactions) <= 2  # the committer may have begun with the first alone

    _run(path, work)
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
            jobs = await _jobs(store.all(f"w{number}"))
            assert [job.arguments for job in jobs] == list(range(10))

    _run(path, work)


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

    _run(path, work)


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
        assert await _jobs(store.all().ids()) == [1, 2, 3, 4, 5]

    _run(path, work)


def test_an_error_fails_its_own_task_alone(path: Path) -> None:
    async def work(store: AioStore) -> None:
        taken = await store.insert(Job("a", id=50))
        (stale,) = await store.claim("a")
        await store.release(stale)
        with _held(store):
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

    _run(path, work)


# --- Cancellation -------------------------------------------------------------


def test_a_write_that_is_cancelled_before_it_is_begun_does_not_happen(path: Path) -> None:
    async def work(store: AioStore) -> None:
        async def insert(n: int) -> None:
            await store.insert(Job("a", n))

        with _held(store):
            tasks = [asyncio.ensure_future(insert(n)) for n in range(10)]
            await asyncio.sleep(0)
            for task in tasks[::2]:
                task.cancel()
            outcomes = await asyncio.gather(*tasks[::2], return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {asyncio.CancelledError}
        await asyncio.gather(*tasks[1::2])
        assert [job.arguments for job in await _jobs(store.all())] == [1, 3, 5, 7, 9]

    _run(path, work)


def test_a_write_that_is_cancelled_later_has_happened_whole(path: Path, begun: _Stop) -> None:
    async def work(store: AioStore) -> None:
        future = store.insert_many([Job("a")] * 100)
        await begun.wait()
        assert future.cancel()
        begun.go_on.set()
        await _settle(store)
        assert len(store.all()) == 100

    _run(path, work)


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
                with _held(store):
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
                stop = _Stop(patch, *where[moment])
                await stop.wait()
                cancel()
                stop.go_on.set()
            with pytest.raises(asyncio.CancelledError):
                await claim
        await _settle(store)
        jobs = await _jobs(store.jobs("queued"))
        assert [(job.id, job.attempt, job.owner) for job in jobs] == [(n, 0, 0) for n in (1, 2, 3)]

    _run(path, work)


def _die_holding(pipe: Connection, path: Path, limit: int) -> None:
    with quelmdb.open(path) as store:
        pipe.send(store.claim("a", limit=limit))
        pipe.recv()


@contextmanager
def _dead_holder(path: Path, limit: int) -> Iterator[None]:
    """A process that holds jobs, and is dead in the block."""
    with Child(_die_holding, path, limit, method="spawn") as child:
        child.receive()
        child.kill()
        yield


def test_claim_rescues_what_a_killed_process_held(path: Path) -> None:
    with quelmdb.open(path) as store:
        store.insert_many([Job("a")] * 3)
        with _dead_holder(path, 2):

            async def work(store: AioStore) -> list[Job]:
                return await store.claim("a", limit=5)

            claimed = _run(path, work)
    assert [(job.id, job.attempt) for job in claimed] == [(1, 2), (2, 2), (3, 1)]


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
        await _settle(store)
        store._store._claims._next_rescue = 0
        claimed = await store.claim("a", limit=5)
        assert [job.id for job in claimed] == [1, 2, 3]
        assert [job.attempt for job in claimed] == [2, 2, 1]

    with quelmdb.open(path) as store:
        store.insert_many([Job("a")] * 3)
        with _dead_holder(path, 2):
            _run(path, work)
    assert steps >= step


@pytest.mark.parametrize("durability", ["full", "ephemeral"])
@pytest.mark.parametrize("seed", range(3))
def test_no_job_is_lost_by_claims_that_are_cancelled_at_any_moment(
    seed: int, durability: Any, tmp_path: Path, long: bool, monkeypatch: pytest.MonkeyPatch
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
        await _settle(store)
        assert {job.id: job async for job in store.jobs("started")} == kept
        queued = await _jobs(store.jobs("queued"))
        assert len(kept) + len(queued) + completed == 60
        assert len(store.completed()) == completed
        assert {job.attempt for job in queued} <= {0}
        return cancelled, completed

    async def opened() -> tuple[int, int]:
        capacity = 16 * MIB if durability == "ephemeral" else None
        async with await quelmdb.aio.open(path, durability=durability, capacity=capacity) as store:
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
        with _held(store):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(store.claim("a", limit=2), 0.001)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.001):
                    await store.claim("a", limit=2)
        assert [job.id for job in await store.claim("a", limit=9)] == [1, 2, 3]

    _run(path, work)


def test_a_group_of_tasks_that_fails_gives_back_its_claims(path: Path, committed: _Stop) -> None:
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
        await _settle(store)
        assert len(store.jobs("queued")) == 6

    with quelmdb.open(path) as filled:
        filled.insert_many([Job("a")] * 6)
        _run(path, work)


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

    _run(path, work)


# --- The end of a store, and of a loop ----------------------------------------


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


def test_a_cancelled_close_closes_nevertheless(path: Path, begun: _Stop) -> None:
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
    stop = _Stop(monkeypatch, quelmdb.store, "open")

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


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kept", [True, False], ids=["task kept", "task forgotten"])
def test_a_claim_whose_loop_is_closed_before_it_is_told_is_given_back(
    kept: bool, store: quelmdb.Store, begun: _Stop
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
        store._committer.finish()
        store._committer.finish()
        assert [job.attempt for job in store.jobs("queued")] == [0, 0, 0]


def test_a_claim_whose_loop_is_closed_before_it_hears_is_given_back(store: quelmdb.Store) -> None:
    store.insert_many([Job("a")] * 3)
    with _loop_that_is_closed(store) as (loop, opened):
        told = loop.create_task(opened.claim("a", limit=2))
        loop.run_until_complete(asyncio.sleep(0))
        store._committer.finish()  # the loop was called, and will never come to it
        assert len(store.jobs("started")) == 2
        late = opened._request(Claim([None, "a"], 1, lambda error: None), 0)
        with store._committer._turn:
            store._committer.submit(late)
            loop.close()
        for _ in range(2):
            store._committer.finish()
        assert [job.attempt for job in store.jobs("queued")] == [0, 0, 0]
        assert not told.done()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_claim_that_is_forgotten_between_its_transactions_gives_back_what_it_had(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with quelmdb.open(path) as store:
        store.insert_many([Job("a")] * 3)
        with _dead_holder(path, 2), _loop_that_is_closed(store) as (loop, opened):
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
        assert await _jobs(store.all("a")) == jobs
        assert 5 <= turns < 1000
        before = turns
        assert await _jobs(store.all().ids()) == [job.id for job in jobs]
        assert before + 5 <= turns
        counting.cancel()

    _run(path, work)


def test_views_are_as_those_of_other_stores(path: Path) -> None:
    async def work(store: AioStore) -> None:
        jobs = await store.insert_many(Job("ab"[n % 2], n) for n in range(10))
        view = store.jobs("queued", worker="a", after=2, limit=3, reverse=False)
        assert await _jobs(view) == await _jobs(view) == [jobs[n] for n in (2, 4, 6)]
        assert len(view) == len(view.ids()) == 3
        assert await _jobs(store.incomplete("b", reverse=True).ids()) == [10, 8, 6, 4, 2]
        assert len(store.completed()) == len(store.failed("a")) == 0
        assert await store.find(3) == jobs[2]
        assert await store.find(None) is None
        assert (await store.counts("a"))[Status.QUEUED] == 5
        assert await store.workers() == ["a", "b"]
        assert (await store.info()).path == str(path)

    _run(path, work)


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

    _run(path, work)


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
        assert batch.results[1] == await _jobs(store.all("next"))

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

    _run(path, work)


# --- Who may use it -----------------------------------------------------------

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

    _run(path, work)


def test_a_snapshot_is_bound_to_the_thread_of_its_loop(path: Path) -> None:
    async def work(store: AioStore) -> None:
        async with store.snapshot() as snapshot:
            with pytest.raises(WrongThreadError):
                await asyncio.to_thread(asyncio.run, snapshot.find(1))
            with pytest.raises(WrongThreadError):
                await asyncio.to_thread(asyncio.run, _jobs(snapshot.all()))

    _run(path, work)


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
            assert await _jobs(store.all()) == []

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
        _run(path, work)
        assert len(other.jobs("started")) == 81  # it is open still, and they are held
        assert other.rescue() == []


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
