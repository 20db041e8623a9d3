"""The store for asyncio: the same verbs, to be awaited.

Writes go to the committer of the process (`commit`), which answers the event loop once
a transaction: no thread is held by a call, and whatever is in flight at the same time
shares commits. Reads are made at once, in the event loop: they wait for nobody, and take
microseconds while what they read is in memory. The rules are those of `JobStore`.

    async with await quelmdb.aio.open("jobs.qdb") as store:
        await store.insert(Job("mail.welcome", {"user": 7}))
        for job in await store.claim("mail.welcome", limit=32): ...

A write whose await is cancelled has happened or not: it does not if it was not begun. A
claim that is cancelled gives back what nobody received.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from functools import partial
from itertools import islice
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar, Unpack

from quelmdb import store as blocking
from quelmdb.claims import Steps
from quelmdb.errors import WrongThreadError
from quelmdb.info import StoreInfo
from quelmdb.job import ANY, Job, Status, Worker, WorkerFilter
from quelmdb.persistence import IdView, JobView, Page, Problem, Reader, Snapshot
from quelmdb.requests import FutureRequest, Request, Verb
from quelmdb.verbs import Claim
from quelmdb.writes import OnConflict, Operation, Recorder, Writes

T = TypeVar("T")

_PAGE: Final = 128  # jobs between which other tasks of the loop have their turn


async def open(path: str | os.PathLike[str], **options: Unpack[blocking.Options]) -> Store:
    """As `quelmdb.open`, for the event loop that runs."""
    return Store(await asyncio.to_thread(blocking.open, path, **options))


class View(Generic[T]):
    """A listing, for `async for`; otherwise as `JobView`."""

    def __init__(self, view: JobView | IdView) -> None:
        self._view = view

    async def __aiter__(self) -> AsyncIterator[T]:
        items: Any = iter(self._view)
        while page := list(islice(items, _PAGE)):
            for item in page:
                yield item
            await asyncio.sleep(0)

    def __len__(self) -> int:
        return len(self._view)


class Jobs(View[Job]):
    """A listing of jobs."""

    def ids(self) -> View[int]:
        """The same listing as ids, read from the index alone."""
        assert isinstance(self._view, JobView)
        return View(self._view.ids())


class AsyncReader:
    """What can be asked of a store, and of a snapshot of it: as `Reader`."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def find(self, job_or_id: Job | int | None) -> Job | None:
        return self._reader.find(job_or_id)

    async def counts(self, worker: WorkerFilter = ANY) -> dict[Status, int]:
        return self._reader.counts(worker)

    async def workers(self) -> list[str | None]:
        return self._reader.workers()

    def jobs(
        self, *statuses: Status | str, worker: WorkerFilter = ANY, **page: Unpack[Page]
    ) -> Jobs:
        return Jobs(self._reader.jobs(*statuses, worker=worker, **page))

    def all(self, worker: WorkerFilter = ANY, **page: Unpack[Page]) -> Jobs:
        return Jobs(self._reader.all(worker, **page))

    def completed(self, worker: WorkerFilter = ANY, **page: Unpack[Page]) -> Jobs:
        return Jobs(self._reader.completed(worker, **page))

    def failed(self, worker: WorkerFilter = ANY, **page: Unpack[Page]) -> Jobs:
        return Jobs(self._reader.failed(worker, **page))

    def incomplete(self, worker: WorkerFilter = ANY, **page: Unpack[Page]) -> Jobs:
        return Jobs(self._reader.incomplete(worker, **page))


class AsyncSnapshot(AsyncReader):
    """As `Snapshot`, for `async with`: bound to the thread of the event loop."""

    def __init__(self, snapshot: Snapshot) -> None:
        super().__init__(snapshot)
        self._snapshot = snapshot

    async def close(self) -> None:
        self._snapshot.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._snapshot.close()


class Store(AsyncReader):
    """As `quelmdb.Store`, for one event loop. Made by `open`."""

    def __init__(self, store: blocking.Store) -> None:
        super().__init__(store)
        self._store = store
        self._loop = asyncio.get_running_loop()
        self._verbs = store._verbs
        self._request = partial(_AwaitedRequest, _Mailbox(self._loop), self._give_back)

    # --- Writing ------------------------------------------------------------

    def insert(self, job: Job) -> asyncio.Future[Job]:
        return self._send(self._verbs.insert(job))

    def insert_many(self, jobs: Iterable[Job]) -> asyncio.Future[list[Job]]:
        return self._send(self._verbs.insert_many(jobs))

    def update(self, job: Job) -> asyncio.Future[Job]:
        return self._send(self._verbs.update(job))

    def update_many(self, jobs: Iterable[Job]) -> asyncio.Future[list[Job]]:
        return self._send(self._verbs.update_many(jobs))

    def destroy(self, job_or_id: Job | int | None) -> asyncio.Future[None]:
        return self._send(self._verbs.destroy_many([job_or_id]))

    def destroy_many(self, jobs_or_ids: Iterable[Job | int | None]) -> asyncio.Future[None]:
        return self._send(self._verbs.destroy_many(jobs_or_ids))

    def restore(
        self, jobs: Iterable[Job], on_conflict: OnConflict = "error"
    ) -> asyncio.Future[list[Job]]:
        return self._send(self._verbs.restore(jobs, on_conflict))

    def complete(self, job: Job, result: Any = None) -> asyncio.Future[Job]:
        return self._send(self._verbs.complete(job, result))

    def complete_many(self, jobs: Iterable[Job]) -> asyncio.Future[list[Job]]:
        return self._send(self._verbs.complete_many(jobs))

    def fail(self, job: Job, error: str) -> asyncio.Future[Job]:
        return self._send(self._verbs.fail(job, error))

    def release(self, job: Job) -> asyncio.Future[Job]:
        return self._send(self._verbs.release(job))

    # --- Several transactions, or none --------------------------------------

    async def claim(self, *workers: Worker, limit: int = 1) -> list[Job]:
        return await self._drive(self._store._claims.claim(workers, limit))

    async def rescue(self) -> list[Job]:
        return await self._drive(self._store._claims.rescue())

    def batch(self) -> AsyncBatch:
        """As `JobStore.batch`, for `async with`."""
        return AsyncBatch(self._verbs, self._send)

    def snapshot(self) -> AsyncSnapshot:
        """As `JobStore.snapshot`, for `async with`."""
        return AsyncSnapshot(self._store.snapshot())

    async def info(self) -> StoreInfo:
        """As `quelmdb.Store.info`."""
        return self._store.info()

    async def check(self) -> list[Problem]:
        """As `JobStore.check`, in a thread."""
        return await asyncio.to_thread(self._store.check)

    async def close(self) -> None:
        """Waits for the writes that are in flight, and ends the use of the store."""
        await asyncio.to_thread(self._store.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def _send(self, verb: Verb[Any]) -> asyncio.Future[Any]:
        if asyncio.get_running_loop() is not self._loop:
            raise WrongThreadError(
                "a store of quelmdb.aio belongs to the event loop that opened it"
            )
        return self._store._send(self._request, verb).future

    async def _drive(self, steps: Steps[T]) -> T:
        """As `claims.drive`."""
        try:
            verb = next(steps)
            while True:
                try:
                    result = await self._received(verb)
                except BaseException as error:
                    verb = steps.throw(error)
                else:
                    verb = steps.send(result)
        except StopIteration as end:
            returned: T = end.value
            return returned

    async def _received(self, verb: Verb[Any]) -> Any:
        future = self._send(verb)
        if type(verb) is not Claim:
            return await asyncio.shield(future)  # a rescue, or something that is given back
        try:
            return await future
        except asyncio.CancelledError:
            if not future.cancelled() and future.exception() is None:
                self._give_back(future.result())  # it had just been answered
            raise

    def _give_back(self, jobs: list[Job]) -> None:
        """Releases what was claimed and could not be handed over. Nobody waits for it."""
        self._store._send(FutureRequest, self._verbs.give_back(jobs))


class AsyncBatch(Recorder):
    """As `Batch`, for `async with`."""

    def __init__(
        self, writes: Writes, send: Callable[[Verb[Any]], asyncio.Future[list[Any]]]
    ) -> None:
        super().__init__(writes)
        self._send = send

    async def __aenter__(self) -> Self:
        self._begin()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        recorded = self._end()
        if kind is None and recorded:
            self.results = await self._send(_all_of(recorded))


def _all_of(operations: list[Operation]) -> Verb[list[Any]]:
    return lambda writer: [operation(writer) for operation in operations]


class _Mailbox:
    """Where the committer leaves what an event loop is to be told: one call a transaction."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._answered: deque[_AwaitedRequest] = deque()
        self._called = False

    def put(self, request: _AwaitedRequest) -> None:
        """In the committer. Raises `RuntimeError` where the loop was closed."""
        self._answered.append(request)
        if not self._called:
            self._called = True  # first: `_open` may be done before the call returns
            try:
                self.loop.call_soon_threadsafe(self._open)
            except RuntimeError:
                self._called = False
                raise

    def _open(self) -> None:
        """In the event loop."""
        self._called = False  # first: what is put from here on calls again
        answered = self._answered
        while answered:
            answered.popleft().answer()


class _AwaitedRequest(Request[Any]):
    """Of a task that awaits it."""

    __slots__ = ("_mailbox", "future")

    def __init__(
        self,
        mailbox: _Mailbox,
        give_back: Callable[[list[Job]], None],
        verb: Verb[Any],
        now: int,
    ) -> None:
        super().__init__(verb, now, give_back if type(verb) is Claim else None)
        self._mailbox = mailbox
        self.future: asyncio.Future[Any] = asyncio.Future(loop=mailbox.loop)

    def take(self) -> bool:
        return not self.future.cancelled()

    def deliver(self) -> None:
        try:
            self._mailbox.put(self)
        except RuntimeError:  # the loop was closed meanwhile
            self.give_back()

    def answer(self) -> None:
        """Tells the task, in its event loop."""
        if self.future.cancelled():
            self.give_back()
        elif self.error is None:
            self.future.set_result(self.result)
        else:
            self.future.set_exception(self.error)
