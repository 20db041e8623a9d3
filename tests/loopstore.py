"""quelmdb.aio as a JobStore: an event loop in a thread of its own, which every call asks."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime, timedelta
from inspect import isawaitable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar, Unpack, overload

import quelmdb.aio
from quelmdb.events import Event, Hook
from quelmdb.job import Job
from quelmdb.persistence import JobStore, Problem
from quelmdb.reader import IdView, JobView, Page, Snapshot
from quelmdb.status import Status
from quelmdb.store import Options
from quelmdb.values import ANY, Worker, WorkerFilter
from quelmdb.writes import Batch, OnConflict, OnDuplicate, Operation, Submit

T = TypeVar("T")

_log = logging.getLogger("quelmdb")

_END: Final = object()
_AT_A_TIME: Final = 64  # items; a divisor of the pages of a view, which stays as lazy as it was


class LoopThread:
    """An event loop that runs until the end of its `with` block."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._work, name="loop of a test")
        self._stop = asyncio.Event()

    @overload
    def ask(self, question: Callable[[], Awaitable[T]]) -> T: ...

    @overload
    def ask(self, question: Callable[[], T]) -> T: ...

    def ask(self, question: Callable[[], Any]) -> Any:
        """The answer to a question that is asked, and awaited where that is needed, in the
        loop."""

        async def answer() -> Any:
            answered = question()
            return await answered if isawaitable(answered) else answered

        assert threading.current_thread() is not self._thread, "it would wait for itself"
        return asyncio.run_coroutine_threadsafe(answer(), self.loop).result()

    def _work(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
            runner.run(self._stop.wait())

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *reason: object) -> None:
        self.loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()


class LoopStore(JobStore):
    """The store, asked from any thread but that of its loop."""

    def __init__(self, thread: LoopThread, path: Path, **options: Unpack[Options]) -> None:
        self._thread = thread
        self.ask = thread.ask
        self.store = self.ask(lambda: quelmdb.aio.open(path, **options))
        self._callbacks = ThreadPoolExecutor(1)  # they may ask, for which the loop must be free

    def find(self, job_or_id: Job | int | None) -> Job | None:
        return self.ask(lambda: self.store.find(job_or_id))

    def started_at(self, job_or_id: Job | int | None) -> datetime | None:
        return self.ask(lambda: self.store.started_at(job_or_id))

    def jobs(
        self, *statuses: Status | str, worker: WorkerFilter = ANY, **page: Unpack[Page]
    ) -> JobView:
        return _Jobs(
            self._thread, self.ask(lambda: self.store.jobs(*statuses, worker=worker, **page))
        )

    def all(self, worker: WorkerFilter = ANY, **page: Unpack[Page]) -> JobView:
        return _Jobs(self._thread, self.ask(lambda: self.store.all(worker, **page)))

    def completed(self, worker: WorkerFilter = ANY, **page: Unpack[Page]) -> JobView:
        return _Jobs(self._thread, self.ask(lambda: self.store.completed(worker, **page)))

    def failed(self, worker: WorkerFilter = ANY, **page: Unpack[Page]) -> JobView:
        return _Jobs(self._thread, self.ask(lambda: self.store.failed(worker, **page)))

    def incomplete(self, worker: WorkerFilter = ANY, **page: Unpack[Page]) -> JobView:
        return _Jobs(self._thread, self.ask(lambda: self.store.incomplete(worker, **page)))

    def counts(self, worker: WorkerFilter = ANY) -> dict[Status, int]:
        return self.ask(lambda: self.store.counts(worker))

    def workers(self) -> list[str | None]:
        return self.ask(lambda: self.store.workers())

    def check(self) -> list[Problem]:
        return self.ask(lambda: self.store.check())

    def snapshot(self) -> Snapshot:
        return _Snapshot(self._thread, self.ask(lambda: self.store.snapshot()))

    def initialize(self) -> None:
        """An open store is ready; a closed one says that it is closed."""
        self.ask(lambda: self.store.info())

    def insert(self, job: Job, on_duplicate: OnDuplicate = "raise") -> Job:
        return self.ask(lambda: self.store.insert(job, on_duplicate))

    def insert_many(self, jobs: Iterable[Job], on_duplicate: OnDuplicate = "raise") -> list[Job]:
        given = list(jobs)  # they may come from a view of this store
        return self.ask(lambda: self.store.insert_many(given, on_duplicate))

    def update(self, job: Job) -> Job:
        return self.ask(lambda: self.store.update(job))

    def update_many(self, jobs: Iterable[Job]) -> list[Job]:
        given = list(jobs)
        return self.ask(lambda: self.store.update_many(given))

    def destroy(self, job_or_id: Job | int | None) -> None:
        self.ask(lambda: self.store.destroy(job_or_id))

    def destroy_many(self, jobs_or_ids: Iterable[Job | int | None]) -> None:
        given = list(jobs_or_ids)
        self.ask(lambda: self.store.destroy_many(given))

    def restore(self, jobs: Iterable[Job], on_conflict: OnConflict = "error") -> list[Job]:
        given = list(jobs)
        return self.ask(lambda: self.store.restore(given, on_conflict))

    def batch(self) -> Batch:
        return _Batch(self._thread, self.ask(lambda: self.store.batch()))

    @property
    def submit(self) -> Submit:
        self.initialize()
        return Submit(self.store._verbs, self._submit)

    def _submit(self, verb: Operation) -> Future[Any]:
        """A write of the loop that is not awaited at once, for threads."""

        def send() -> Future[Any]:
            sent, future = self.store._send(verb), _Submitted()
            sent.add_done_callback(lambda sent: self._callbacks.submit(_pass_on, sent, future))
            return future

        return self.ask(send)

    def claim(self, *workers: Worker, limit: int = 1) -> list[Job]:
        return self.ask(lambda: self.store.claim(*workers, limit=limit))

    def complete(self, job: Job, result: Any = None) -> Job:
        return self.ask(lambda: self.store.complete(job, result))

    def complete_many(self, jobs: Iterable[Job], results: Iterable[Any] | None = None) -> list[Job]:
        given, of_them = list(jobs), None if results is None else list(results)
        return self.ask(lambda: self.store.complete_many(given, of_them))

    def fail(self, job: Job, error: str | BaseException, retry_at: datetime | None = None) -> Job:
        return self.ask(lambda: self.store.fail(job, error, retry_at))

    def release(self, job: Job) -> Job:
        return self.ask(lambda: self.store.release(job))

    def progress(
        self, job: Job, done: int, total: int | None = None, note: str | None = None
    ) -> Job:
        return self.ask(lambda: self.store.progress(job, done, total, note))

    def cancel(self, job_or_id: Job | int) -> Job:
        return self.ask(lambda: self.store.cancel(job_or_id))

    def cancel_many(self, jobs_or_ids: Iterable[Job | int]) -> list[Job]:
        given = list(jobs_or_ids)
        return self.ask(lambda: self.store.cancel_many(given))

    def cancel_requested(self, job: Job) -> bool:
        return self.ask(lambda: self.store.cancel_requested(job))

    def retry(self, job_or_id: Job | int) -> Job:
        return self.ask(lambda: self.store.retry(job_or_id))

    def retry_many(self, jobs_or_ids: Iterable[Job | int]) -> list[Job]:
        given = list(jobs_or_ids)
        return self.ask(lambda: self.store.retry_many(given))

    def pause(self, worker: Worker) -> None:
        self.ask(lambda: self.store.pause(worker))

    def resume(self, worker: Worker) -> None:
        self.ask(lambda: self.store.resume(worker))

    def paused(self) -> list[str | None]:
        return self.ask(lambda: self.store.paused())

    def next_due(self) -> datetime | None:
        return self.ask(lambda: self.store.next_due())

    def prune(
        self,
        *statuses: Status | str,
        worker: WorkerFilter = ANY,
        older_than: timedelta | None = None,
        keep: int | None = None,
    ) -> int:
        return self.ask(
            lambda: self.store.prune(*statuses, worker=worker, older_than=older_than, keep=keep)
        )

    def wait(self, *workers: Worker, timeout: float | None = None) -> bool:
        return self.ask(lambda: self.store.wait(*workers, timeout=timeout))

    def listen(self, hook: Hook) -> Callable[[], None]:
        def tell(event: Event) -> None:
            self._callbacks.submit(_tell, hook, event)

        return self.ask(lambda: self.store.listen(tell))

    def rescue(self) -> list[Job]:
        return self.ask(lambda: self.store.rescue())

    def close(self) -> None:
        self.ask(lambda: self.store.close())
        self._callbacks.shutdown()


def _tell(hook: Hook, event: Event) -> None:
    try:
        hook(event)
    except Exception:
        _log.exception("a hook has raised")


class _Submitted(Future[Any]):
    """One that is not cancelled: in a loop that may be done when the write has begun, too."""

    def cancel(self) -> bool:
        return False


def _pass_on(sent: asyncio.Future[Any], future: Future[Any]) -> None:
    error = sent.exception()
    if error is None:
        future.set_result(sent.result())
    else:
        future.set_exception(error)


class _View:
    def __init__(
        self, thread: LoopThread, view: quelmdb.aio.View[Any], at_a_time: int = _AT_A_TIME
    ) -> None:
        self._at_a_time = at_a_time
        self._ask = thread.ask
        self._thread = thread
        self._view = view

    def __iter__(self) -> Iterator[Any]:
        items = self._ask(lambda: aiter(self._view))

        async def some() -> list[Any]:
            page: list[Any] = []
            while len(page) < self._at_a_time and (item := await anext(items, _END)) is not _END:
                page.append(item)
            return page

        while page := self._ask(some):
            yield from page

    def __len__(self) -> int:
        return self._ask(lambda: len(self._view))


class _Jobs(_View, JobView):
    def ids(self) -> IdView:
        view: Any = self._view
        return _View(self._thread, self._ask(lambda: view.ids()), self._at_a_time)


class _Snapshot(Snapshot):
    """In the thread of the loop, whoever asks."""

    def __init__(self, thread: LoopThread, snapshot: quelmdb.aio.AsyncSnapshot) -> None:
        self._ask = thread.ask
        self._thread = thread
        self._snapshot = snapshot

    def find(self, job_or_id: Job | int | None) -> Job | None:
        return self._ask(lambda: self._snapshot.find(job_or_id))

    def started_at(self, job_or_id: Job | int | None) -> datetime | None:
        return self._ask(lambda: self._snapshot.started_at(job_or_id))

    def jobs(
        self, *statuses: Status | str, worker: WorkerFilter = ANY, **page: Unpack[Page]
    ) -> JobView:
        return _Jobs(
            self._thread,
            self._ask(lambda: self._snapshot.jobs(*statuses, worker=worker, **page)),
            at_a_time=1,  # it may end between any two of them
        )

    def counts(self, worker: WorkerFilter = ANY) -> dict[Status, int]:
        return self._ask(lambda: self._snapshot.counts(worker))

    def workers(self) -> list[str | None]:
        return self._ask(lambda: self._snapshot.workers())

    def close(self) -> None:
        self._ask(lambda: self._snapshot.close())


class _Batch(Batch):
    """Recorded here and there, applied there."""

    def __init__(self, thread: LoopThread, batch: quelmdb.aio.AsyncBatch) -> None:
        super().__init__(batch._writes, commit=lambda operations: [])
        self._ask = thread.ask
        self._thread = thread
        self._batch = batch

    def _record(self, operation: Operation) -> None:
        self._batch._record(operation)

    def __enter__(self) -> Self:
        self._ask(lambda: self._batch.__aenter__())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ask(lambda: self._batch.__aexit__(kind, error, trace))
        self.results = self._batch.results
