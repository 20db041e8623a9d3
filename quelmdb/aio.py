"""The store for asyncio: the same verbs, to be awaited.

Writes go to the committer of the process (`commit`), which answers the event loop once
a transaction: no thread is held by a call, and whatever is in flight at the same time
shares commits. Reads are made at once, in the event loop: they wait for nobody, and take
microseconds while what they read is in memory. The rules are those of `JobStore`. Writes of
one transaction return futures: bad input raises at the call, and they are on their way
before they are awaited.

    async with await quelmdb.aio.open("jobs.qdb") as store:
        await store.insert(Job("mail.welcome", {"user": 7}))
        for job in await store.claim("mail.welcome", limit=32): ...

A write whose await is cancelled has happened or not: it does not if it was not begun. A
claim that is cancelled, or whose loop is closed, gives back what nobody received.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

from quelmdb import store as blocking
from quelmdb.aioreading import AsyncReader as AsyncReader
from quelmdb.aioreading import AsyncSnapshot as AsyncSnapshot
from quelmdb.aioreading import Jobs as Jobs
from quelmdb.aioreading import View as View
from quelmdb.claiming import Claim
from quelmdb.claims import Steps, deadline
from quelmdb.errors import StoreClosedError, WrongThreadError
from quelmdb.events import Hook
from quelmdb.info import StoreInfo
from quelmdb.job import Job
from quelmdb.mailbox import AwaitedRequest, Mailbox, Waiter
from quelmdb.persistence import Problem
from quelmdb.requests import FutureRequest, Verb, is_first
from quelmdb.status import Status
from quelmdb.values import ANY, Worker, WorkerFilter
from quelmdb.verbs import all_of
from quelmdb.writes import OnConflict, OnDuplicate, Recorder, Writes

T = TypeVar("T")

log = logging.getLogger("quelmdb")


async def open(path: str | os.PathLike[str], **options: Unpack[blocking.Options]) -> Store:
    """As `quelmdb.open`, for the event loop that runs."""
    opened: list[blocking.Store] = []
    awaited = [None]  # who pops it decides: the thread that it is delivered, or the task not

    def work() -> None:
        opened.append(blocking.open(path, **options))
        if not is_first(awaited):
            opened[0].close()

    try:
        await asyncio.to_thread(work)
    except BaseException:  # cancelled: nobody else will close it
        if not is_first(awaited) and opened:
            opened[0].close()
        raise
    return Store(opened[0])


class Store(AsyncReader):
    """As `quelmdb.Store`, for one event loop. Made by `open`."""

    def __init__(self, store: blocking.Store) -> None:
        super().__init__(store)
        self._store = store
        self._loop = asyncio.get_running_loop()
        self._verbs = store._verbs
        self._waiter = Waiter(self._loop, store._opened.wakeup)
        self._request = partial(AwaitedRequest, Mailbox(self._loop), self._give_back)

    # --- Writing ------------------------------------------------------------

    def insert(self, job: Job, on_duplicate: OnDuplicate = "raise") -> asyncio.Future[Job]:
        return self._send(self._verbs.insert(job, on_duplicate))

    def insert_many(
        self, jobs: Iterable[Job], on_duplicate: OnDuplicate = "raise"
    ) -> asyncio.Future[list[Job]]:
        return self._send(self._verbs.insert_many(jobs, on_duplicate))

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

    def complete_many(
        self, jobs: Iterable[Job], results: Iterable[Any] | None = None
    ) -> asyncio.Future[list[Job]]:
        return self._send(self._verbs.complete_many(jobs, results))

    def fail(
        self, job: Job, error: str | BaseException, retry_at: datetime | None = None
    ) -> asyncio.Future[Job]:
        return self._send(self._verbs.fail(job, error, retry_at))

    def release(self, job: Job) -> asyncio.Future[Job]:
        return self._send(self._verbs.release(job))

    def progress(
        self, job: Job, done: int, total: int | None = None, note: str | None = None
    ) -> asyncio.Future[Job]:
        return self._send(self._verbs.progress(job, done, total, note))

    def cancel(self, job_or_id: Job | int) -> asyncio.Future[Job]:
        return self._send(self._verbs.cancel(job_or_id))

    def cancel_many(self, jobs_or_ids: Iterable[Job | int]) -> asyncio.Future[list[Job]]:
        return self._send(self._verbs.cancel_many(jobs_or_ids))

    def retry(self, job_or_id: Job | int) -> asyncio.Future[Job]:
        return self._send(self._verbs.retry(job_or_id))

    def retry_many(self, jobs_or_ids: Iterable[Job | int]) -> asyncio.Future[list[Job]]:
        return self._send(self._verbs.retry_many(jobs_or_ids))

    def pause(self, worker: Worker) -> asyncio.Future[None]:
        return self._send(self._verbs.pause(worker))

    def resume(self, worker: Worker) -> asyncio.Future[None]:
        return self._send(self._verbs.resume(worker))

    # --- Several transactions, or none --------------------------------------

    async def claim(self, *workers: Worker, limit: int = 1) -> list[Job]:
        self._refuse_other_loops()
        claimed = await self._drive(self._store._claims.claim(workers, limit))
        if not claimed:  # nothing was waited for: who asks again and again lets others go on
            await asyncio.sleep(0)
        return claimed

    async def rescue(self) -> list[Job]:
        self._refuse_other_loops()
        return await self._drive(self._store._claims.rescue())

    async def wait(self, *workers: Worker, timeout: float | None = None) -> bool:
        """As `JobStore.wait`."""
        self._refuse_other_loops()
        claims, wakeup = self._store._claims, self._store._opened.wakeup
        names = claims.names(workers)
        end = deadline(timeout)
        while True:
            seen = wakeup.seen()  # before the look: what comes after it is heard
            await self._drive(claims.rescue_in_time())
            idle = claims.idle_seconds(names)
            if not idle:
                await asyncio.sleep(0)
                return True
            left = end - time.monotonic()
            if left <= 0:
                return False
            await self._waiter.wait(seen, min(idle, left))

    async def prune(
        self,
        *statuses: Status | str,
        worker: WorkerFilter = ANY,
        older_than: timedelta | None = None,
        keep: int | None = None,
    ) -> int:
        self._refuse_other_loops()
        return await self._drive(self._store._claims.prune(statuses, worker, older_than, keep))

    async def cancel_requested(self, job: Job) -> bool:
        return self._store.cancel_requested(job)

    async def next_due(self) -> datetime | None:
        return self._store.next_due()

    async def paused(self) -> list[str | None]:
        return self._store.paused()

    def listen(self, hook: Hook) -> Callable[[], None]:
        """As `JobStore.listen`: the hook is called in the thread that commits, not in the
        event loop."""
        return self._store.listen(hook)

    def batch(self) -> AsyncBatch:
        """As `JobStore.batch`, for `async with`."""
        self._refuse_other_loops()
        self._store._raise_if_ended()
        return AsyncBatch(self._verbs, self._send)

    def snapshot(self) -> AsyncSnapshot:
        """As `JobStore.snapshot`, for `async with`."""
        self._refuse_other_loops()
        return AsyncSnapshot(self._store.snapshot())

    async def info(self) -> StoreInfo:
        """As `quelmdb.Store.info`."""
        return self._store.info()

    async def check(self) -> list[Problem]:
        """As `JobStore.check`, in a thread."""
        return await asyncio.to_thread(self._store.check)

    async def close(self) -> None:
        """Waits for the writes that are in flight, and ends the use of the store, also where
        the wait is cancelled."""
        await asyncio.shield(asyncio.get_running_loop().run_in_executor(None, self._finish))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def _finish(self) -> None:
        self._store._committer.finish()  # closed, it does; shared with others it is not closed
        self._store.close()

    def _refuse_other_loops(self) -> None:
        # As `asyncio.get_running_loop`, which raises where there is none.
        if asyncio._get_running_loop() is not self._loop:
            raise WrongThreadError(
                "a store of quelmdb.aio belongs to the event loop that opened it"
            )

    def _send(self, verb: Verb[Any]) -> asyncio.Future[Any]:
        self._refuse_other_loops()
        return self._store._send(self._request, verb).future

    async def _drive(self, steps: Steps[T]) -> T:
        """As `claims.drive`."""
        try:
            verb = next(steps)
            while True:
                try:
                    result = await self._received(verb)
                except GeneratorExit as end:  # the loop is closed: nothing can be awaited
                    self._send_unwatched(steps.throw(end))
                    raise
                except BaseException as error:
                    verb = steps.throw(error)
                else:
                    verb = steps.send(result)
        except StopIteration as end:
            returned: T = end.value
            return returned

    async def _received(self, verb: Verb[Any]) -> Any:
        if type(verb) is not Claim:
            return await asyncio.shield(self._send(verb))  # a rescue, or what is given back
        request = self._store._send(self._request, verb)
        try:
            return await request.future
        except BaseException:  # also where it had just been answered
            request.withdraw()
            raise

    def _give_back(self, jobs: list[Job]) -> None:
        """Releases what was claimed and could not be handed over."""
        self._send_unwatched(self._verbs.give_back(jobs))

    def _send_unwatched(self, verb: Verb[Any]) -> None:
        """Has something done for which nobody waits. The committer knows no handles: it does
        it although this one may be closed. Where the store is, its jobs are rescued."""
        request = FutureRequest(verb, self._store._now())
        request.future.add_done_callback(_log_failure)
        with suppress(StoreClosedError):
            self._store._committer.submit(request)


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
            self.results = await self._send(all_of(recorded))


def _log_failure(future: Future[Any]) -> None:
    error = future.exception()
    if error is not None and not isinstance(error, StoreClosedError):
        log.error("claimed jobs that nobody received could not be given back: %s", error)
