"""The contract of reading: what can be asked of a store, and of a snapshot of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from datetime import datetime
from types import TracebackType
from typing import Protocol, Self, TypedDict, Unpack

from quelmdb.job import Job
from quelmdb.status import INCOMPLETE, Status
from quelmdb.values import ANY, WorkerFilter


class Page(TypedDict, total=False):
    """Which part of a listing is wanted."""

    after: int | None
    """Only ids above this one (below it where `reverse`)."""
    limit: int | None
    """At most so many jobs."""
    reverse: bool
    """By descending id."""


class IdView(Protocol):
    """The ids of a listing: lazy, sized, iterated as often as one likes."""

    def __iter__(self) -> Iterator[int]: ...

    def __len__(self) -> int: ...


class JobView(ABC):
    """A listing: lazy, sized, iterated as often as one likes.

    Each iteration tells the state of its own moment: each job at most once,
    and one that stays in the listing exactly once. No transaction is open
    while the caller's code runs. A job whose record is corrupt is logged and
    left out. Inside a snapshot all is of one point in time.
    """

    @abstractmethod
    def __iter__(self) -> Iterator[Job]: ...

    @abstractmethod
    def __len__(self) -> int:
        """How many ids it has: O(1) without `after`, else O(n). Nothing is decoded."""

    @abstractmethod
    def ids(self) -> IdView:
        """The same listing as ids, read from the index alone."""


class Reader(ABC):
    """What can be asked of a store, and of a snapshot of it."""

    @abstractmethod
    def find(self, job_or_id: Job | int | None) -> Job | None:
        """As `Persistence.find`. O(log n)."""

    @abstractmethod
    def started_at(self, job_or_id: Job | int | None) -> datetime | None:
        """When the claim was made by which a job is started; None where it is not. What its worker
        tells of its progress changes `updated_at`, and not this. O(log n)."""

    @abstractmethod
    def jobs(
        self, *statuses: Status | str, worker: WorkerFilter = ANY, **page: Unpack[Page]
    ) -> JobView:
        """The jobs in any of these statuses (of none named: in all) [of a worker].

        A range scan: the first job costs O(log n), each further one O(1),
        whatever else is stored.
        """

    @abstractmethod
    def counts(self, worker: WorkerFilter = ANY) -> dict[Status, int]:
        """How many jobs [of a worker] are in each status, zeros included. O(1)."""

    @abstractmethod
    def workers(self) -> list[str | None]:
        """The workers that have jobs: None first, then by name."""

    def all(self, worker: WorkerFilter = ANY, **page: Unpack[Page]) -> JobView:
        return self.jobs(worker=worker, **page)

    def completed(self, worker: WorkerFilter = ANY, **page: Unpack[Page]) -> JobView:
        return self.jobs(Status.COMPLETED, worker=worker, **page)

    def failed(self, worker: WorkerFilter = ANY, **page: Unpack[Page]) -> JobView:
        return self.jobs(Status.FAILED, worker=worker, **page)

    def incomplete(self, worker: WorkerFilter = ANY, **page: Unpack[Page]) -> JobView:
        return self.jobs(*INCOMPLETE, worker=worker, **page)


class Closable(ABC):
    """What is closed at the end of a `with` block."""

    @abstractmethod
    def close(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Snapshot(Reader, Closable):
    """One point in time, bound to the thread that took it.

    Whatever is used after its end raises `SnapshotEndedError`, in another
    thread `WrongThreadError`. While it is open the pages it sees are not
    recycled, so the file grows with every write: end it soon.
    """

    @abstractmethod
    def close(self) -> None:
        """Ends it. A second time changes nothing."""
