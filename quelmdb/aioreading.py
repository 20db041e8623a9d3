"""Reading for asyncio: `Reader` and `Snapshot`, to be awaited, and listings for `async for`.

What is asked is answered at once, in the event loop: it waits for nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from datetime import datetime
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar, Unpack

from quelmdb.job import Job
from quelmdb.reader import IdView, JobView, Page, Reader, Snapshot
from quelmdb.status import Status
from quelmdb.values import ANY, WorkerFilter

T = TypeVar("T")

_PAGE: Final = 128  # jobs between which other tasks of the loop have their turn


class View(Generic[T]):
    """A listing, for `async for`; otherwise as `JobView`."""

    def __init__(self, view: JobView | IdView) -> None:
        self._view = view

    async def __aiter__(self) -> AsyncIterator[T]:
        items: Iterable[Any] = self._view
        for number, item in enumerate(items, 1):
            yield item
            if not number % _PAGE:
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

    async def started_at(self, job_or_id: Job | int | None) -> datetime | None:
        return self._reader.started_at(job_or_id)

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
