"""Reading: lookups, lazy views, snapshots.

A view copies its jobs out page by page, each page under a read transaction of its
own (in a snapshot: under the snapshot's), and yields them afterwards: no
transaction is open while code of the caller runs, and nothing that is yielded
points into the map.
"""

from __future__ import annotations

import logging
import threading
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from itertools import chain
from typing import Final, NamedTuple, TypeVar, Unpack

from quelmdb import index
from quelmdb.engine import Transaction
from quelmdb.environment import Environment, Work
from quelmdb.errors import (
    CorruptRecordError,
    InvalidJobError,
    SnapshotEndedError,
    WrongThreadError,
)
from quelmdb.holding import Held
from quelmdb.job import Job, id_of
from quelmdb.layout import STATUS_CODES, STATUSES, Damaged, pack_number, unpack_number
from quelmdb.reader import IdView, JobView, Page, Reader, Snapshot
from quelmdb.records import read_job, read_jobs
from quelmdb.status import Status, status_of
from quelmdb.stored import verified
from quelmdb.values import ANY, WorkerFilter, check_id, time_of, worker_name

T = TypeVar("T")

log = logging.getLogger("quelmdb")

# Pages of a view: a small first one, for those who look at the beginning only. More jobs
# a page do not fit into the processor's cache (512 KiB), and take longer each.
_FIRST_PAGE: Final = 128
_JOB_PAGE: Final = 256
_ID_PAGE: Final = 2**17
_PAGE_BYTES: Final = 8 * 2**20  # of arguments and results that stand outside of records

_ALL: Final = tuple(range(len(STATUSES)))


class Selection(NamedTuple):
    """What a view shows."""

    statuses: tuple[int, ...]
    worker: WorkerFilter
    after: int | None
    limit: int | None
    reverse: bool


class StoreReader(Reader):
    """The reading half of a store, and all of a snapshot of it."""

    def __init__(self) -> None:
        self._reported: set[int] = set()

    @abstractmethod
    def _read(self, work: Work[T]) -> T:
        """Runs `work` in a read transaction."""

    def _raise_if_readonly(self) -> None:
        """Raises where nothing may be written."""

    @abstractmethod
    def _raise_if_ended(self) -> None:
        """Raises where this reader may not be used any more, or here."""

    def _guarded(self, pages: Iterator[list[T]]) -> Iterator[T]:
        """What the pages hold, as long as it may be used."""
        return chain.from_iterable(pages)

    def find(self, job_or_id: Job | int | None) -> Job | None:
        job_id = id_of(job_or_id)
        if job_id is None:
            self._raise_if_ended()
            return None
        key = pack_number(job_id)

        def work(environment: Environment, transaction: Transaction) -> Job | None:
            databases = environment.databases
            record = transaction.get(key, db=databases.jobs)
            if record is None:
                return None
            return read_job(transaction, databases, environment.names, key, record)

        return self._read(work)

    def started_at(self, job_or_id: Job | int | None) -> datetime | None:
        job_id = id_of(job_or_id)
        if job_id is None:
            self._raise_if_ended()
            return None
        key = pack_number(job_id)

        def work(environment: Environment, transaction: Transaction) -> int | None:
            record = transaction.get(key, db=environment.databases.jobs)
            if record is None:
                return None
            stored = verified(job_id, key, record)
            return stored.since if stored.status is Status.STARTED else None

        since = self._read(work)
        return None if since is None else time_of(since)

    def jobs(
        self, *statuses: Status | str, worker: WorkerFilter = ANY, **page: Unpack[Page]
    ) -> JobView:
        return Listing(self, _selection(statuses, worker, page))

    def counts(self, worker: WorkerFilter = ANY) -> dict[Status, int]:
        who = worker if worker is ANY else worker_name(worker)

        def work(environment: Environment, transaction: Transaction) -> list[int]:
            return index.counts(transaction, keys_of(environment, transaction, _ALL, who))

        found = self._read(work) or [0] * len(STATUSES)  # an unknown worker has no keys
        return dict(zip(STATUSES, found, strict=True))

    def workers(self) -> list[str | None]:
        def work(environment: Environment, transaction: Transaction) -> list[str | None]:
            numbers = index.workers(transaction, environment.databases)
            return [environment.names.name(transaction, number) for number in numbers]

        names = self._read(work)
        return sorted(names, key=lambda name: (name is not None, name or ""))

    def _report_all(self, damaged: list[CorruptRecordError]) -> None:
        """Logs corrupt jobs that were passed over, each once. Outside of transactions:
        a handler is code of the caller."""
        for error in damaged:
            if error.job_id is not None and error.job_id not in self._reported:
                self._reported.add(error.job_id)
                log.warning("passed over: %s", error)


def keys_of(
    environment: Environment,
    transaction: Transaction,
    statuses: Iterable[int],
    worker: WorkerFilter,
) -> index.Keys:
    """What a listing of a worker (a name, None or `ANY`) in these statuses reads."""
    databases = environment.databases
    if worker is ANY:
        return index.Keys(databases, tuple(statuses), None)
    assert worker is None or isinstance(worker, str)
    number = environment.names.number(transaction, worker)
    return index.Keys(databases, tuple(statuses), () if number is None else (number,))


class StoreSnapshot(StoreReader, Snapshot):
    """A read transaction that stays open, in the thread that began it."""

    def __init__(
        self,
        environment: Environment,
        transaction: Transaction,
        held: Held,
        end: Callable[[Environment, Transaction, Held], object],
    ) -> None:
        super().__init__()
        self._environment = environment
        self._thread = threading.current_thread()  # not its number, which is given again
        self._transaction: Transaction | None = transaction
        self._held = held
        self._end = end

    def close(self) -> None:
        if self._transaction is not None:
            self._refuse_other_threads()
            transaction, self._transaction = self._transaction, None
            self._end(self._environment, transaction, self._held)

    def _read(self, work: Work[T]) -> T:
        self._raise_if_ended()
        assert self._transaction is not None
        return self._environment.within(self._transaction, work)

    def _raise_if_ended(self) -> None:
        if self._transaction is None:
            raise SnapshotEndedError("the snapshot has ended; take a new one")
        self._refuse_other_threads()
        self._environment.raise_if_gone()

    def _guarded(self, pages: Iterator[list[T]]) -> Iterator[T]:
        here, environment = threading.current_thread, self._environment
        for page in pages:
            for item in page:
                yield item
                if self._transaction is None or here() is not self._thread or environment.is_gone:
                    self._raise_if_ended()

    def _refuse_other_threads(self) -> None:
        if threading.current_thread() is not self._thread:
            raise WrongThreadError(
                "a snapshot belongs to the thread that took it; take one in each thread"
            )


class Listing(JobView):
    """A view: what is selected, read anew at each iteration."""

    def __init__(self, reader: StoreReader, selection: Selection) -> None:
        self._reader = reader
        self._selection = selection

    def __iter__(self) -> Iterator[Job]:
        return self._reader._guarded(_pages(self._selection, _JOB_PAGE, self._job_page))

    def __len__(self) -> int:
        return len(self.ids())

    def ids(self) -> IdView:
        return Ids(self._reader, self._selection)

    def _job_page(self, after: int | None, size: int) -> tuple[list[list[Job]], int | None]:
        damaged: list[CorruptRecordError] = []
        jobs, last = self._reader._read(
            lambda environment, transaction: self._jobs(
                environment, transaction, after, size, damaged.append
            )
        )
        self._reader._report_all(damaged)
        return [jobs], last

    def _jobs(
        self,
        environment: Environment,
        transaction: Transaction,
        after: int | None,
        size: int,
        report: Callable[[CorruptRecordError], None],
    ) -> tuple[list[Job], int | None]:
        """The jobs of about `size` ids beyond `after`, and the id to go on from."""
        chosen, databases = self._selection, environment.databases
        if chosen.worker is ANY and len(chosen.statuses) == len(STATUSES):
            found, complete = index.scan_jobs(transaction, databases, after, chosen.reverse, size)
        else:
            keys = keys_of(environment, transaction, chosen.statuses, chosen.worker)
            found, complete = index.scan_records(
                transaction, databases, keys, after, chosen.reverse, size
            )
        jobs, last = read_jobs(
            transaction, databases, environment.names, found, _PAGE_BYTES, report
        )
        if complete and last is None:
            return jobs, None
        return jobs, _further(last or unpack_number(found[-1][0]), after, chosen.reverse)


class Ids:
    """The ids of a view, from the index alone."""

    def __init__(self, reader: StoreReader, selection: Selection) -> None:
        self._reader = reader
        self._selection = selection

    def __iter__(self) -> Iterator[int]:
        return self._reader._guarded(_pages(self._selection, _ID_PAGE, self._page))

    def __len__(self) -> int:
        chosen = self._selection
        if chosen.after is None:
            total = self._reader._read(self._count)
            return total if chosen.limit is None else min(total, chosen.limit)
        return sum(map(len, _pages(chosen, _ID_PAGE, self._page)))

    def _count(self, environment: Environment, transaction: Transaction) -> int:
        chosen = self._selection
        keys = keys_of(environment, transaction, chosen.statuses, chosen.worker)
        return index.count(transaction, keys)

    def _page(self, after: int | None, size: int) -> tuple[Iterable[list[int]], int | None]:
        chosen = self._selection

        def work(
            environment: Environment, transaction: Transaction
        ) -> tuple[Iterable[list[int]], int | None]:
            keys = keys_of(environment, transaction, chosen.statuses, chosen.worker)
            whole = chosen.limit is None
            pieces = index.read(transaction, keys, after, chosen.reverse, size, whole)
            if pieces is not None:
                return pieces, None
            ids, complete = index.scan(transaction, keys, after, chosen.reverse, size)
            return [ids], None if complete else _further(ids[-1], after, chosen.reverse)

        return self._reader._read(work)


def _further(last: int, after: int | None, reverse: bool) -> int:
    """The id to go on from. Raises `Damaged` where that is not beyond the one before: a
    damaged index would be read for ever."""
    if after is not None and (last >= after if reverse else last <= after):
        raise Damaged("the entries of an index are not in order")
    return last


def _pages(
    selection: Selection,
    size: int,
    page: Callable[[int | None, int], tuple[Iterable[list[T]], int | None]],
) -> Iterator[list[T]]:
    """Page after page: `page(after, size)` returns one of about that size, in pieces,
    and the id to go on from, or None where that is all."""
    after, left = selection.after, selection.limit
    wanted = _FIRST_PAGE if left is None else min(left, size)
    while wanted:
        pieces, last = page(after, wanted)
        for piece in pieces:
            if left is None:
                yield piece
            else:
                yield piece[:left]
                left -= min(left, len(piece))
        if last is None:
            return
        after, wanted = last, size if left is None else min(left, size)


def _selection(statuses: tuple[Status | str, ...], worker: WorkerFilter, page: Page) -> Selection:
    """Checks what a caller selects. Raises `InvalidJobError`, `ValueError`."""
    after, limit, reverse = None, None, False
    if page:
        unknown = page.keys() - Page.__annotations__.keys()
        if unknown:
            raise TypeError(f"unknown argument {', '.join(sorted(unknown))}")
        after, limit = page.get("after"), page.get("limit")
        reverse = page.get("reverse", False)
    if after is not None and not (type(after) is int and after == 0):
        check_id(after)
    if limit is not None and (type(limit) is not int or limit < 0):
        raise InvalidJobError(f"a limit is None or an int of 0 or more, not {limit!r}")
    codes = {STATUS_CODES[status_of(status)] for status in statuses}
    return Selection(
        tuple(sorted(codes)) or _ALL,
        worker if worker is ANY else worker_name(worker),
        after,
        limit,
        reverse,
    )
