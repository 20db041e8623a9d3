"""Store: the contract and the runner verbs on LMDB."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, Literal, TypeVar

from quelmdb import directory, owners
from quelmdb.codec import DEFAULT_LIMIT, Codec
from quelmdb.environment import Transaction
from quelmdb.errors import (
    CorruptRecordError,
    InvalidJobError,
    JobError,
    StoreClosedError,
    UnsupportedFormatError,
)
from quelmdb.info import StoreInfo, store_info
from quelmdb.job import ANY, Job, Status, Worker, checked_time, worker_name
from quelmdb.maintenance.check import check
from quelmdb.persistence import Batch, Clock, JobStore, OnConflict, Problem, Snapshot
from quelmdb.reading import StoreReader, StoreSnapshot
from quelmdb.verbs import Verb, Verbs, rescue
from quelmdb.writer import Writer

T = TypeVar("T")

_RESCUE_SECONDS = 1.0
_RESCUE_PAGE = 1000  # jobs a transaction


def open(
    path: str | os.PathLike[str],
    *,
    durability: Literal["full"] | None = None,
    create: bool = True,
    readonly: bool = False,
    clock: Clock | None = None,
    argument_limit: int = DEFAULT_LIMIT,
) -> Store:
    """Opens the store in the directory `path`, which is made where it is absent.

    `durability`: "full" is the only one so far: what a call has returned survives the
    death of any process, a crash of the system and loss of power. None takes what the
    store has. `create=False` raises `StoreNotFoundError` where there is no store.
    `readonly` opens for looking only. `clock` tells the time in microseconds since
    1970 (for tests). `argument_limit`: the most bytes of one job's arguments, or of its
    result, as CBOR; it binds writes through this handle, not what is stored already.

    A process opens a store once: opened again, it is shared, and closed with its last
    user. Raises the errors of the branch `StoreError`.
    """
    if durability not in (None, directory.DURABILITY):
        raise UnsupportedFormatError(
            f"unknown durability {durability!r}; known is {directory.DURABILITY!r}",
            expected=directory.DURABILITY,
            found=durability,
        )
    codec = Codec(argument_limit)
    opened = directory.acquire(path, create=create, readonly=readonly)
    return Store(opened, codec, clock or _now)


class Store(StoreReader, JobStore):
    """A store of jobs on LMDB. Made by `quelmdb.open`."""

    def __init__(self, opened: directory.Opened, codec: Codec, clock: Clock) -> None:
        super().__init__(opened.environment, opened.names)
        self._opened = opened
        self._owners = opened.owners
        self._verbs = Verbs(codec)
        self._clock = clock
        self._closed = False
        self._next_rescue = 0.0

    def __repr__(self) -> str:
        return f"<Store {self.path!r}{' (closed)' if self._closed else ''}>"

    @property
    def path(self) -> str:
        """The directory of the store."""
        return str(self._opened.path)

    def initialize(self) -> None:
        self._raise_if_ended()

    # --- Writing ------------------------------------------------------------

    def insert(self, job: Job) -> Job:
        return self.insert_many((job,))[0]

    def insert_many(self, jobs: Iterable[Job]) -> list[Job]:
        return self._commit(self._verbs.insert_many(jobs))

    def update(self, job: Job) -> Job:
        return self.update_many((job,))[0]

    def update_many(self, jobs: Iterable[Job]) -> list[Job]:
        return self._commit(self._verbs.update_many(jobs))

    def destroy(self, job_or_id: Job | int | None) -> None:
        self.destroy_many((job_or_id,))

    def destroy_many(self, jobs_or_ids: Iterable[Job | int | None]) -> None:
        self._commit(self._verbs.destroy_many(jobs_or_ids))

    def restore(self, jobs: Iterable[Job], on_conflict: OnConflict = "error") -> list[Job]:
        return self._commit(self._verbs.restore(jobs, on_conflict))

    def batch(self) -> Batch:
        self._raise_if_ended()
        return Batch(self._verbs, self._commit_all)

    # --- Runners ------------------------------------------------------------

    def claim(self, *workers: Worker, limit: int = 1) -> list[Job]:
        if type(limit) is not int or limit < 0:
            raise InvalidJobError(f"a limit is an int of 0 or more, not {limit!r}", found=limit)
        names = list(dict.fromkeys(map(worker_name, workers)))
        queued = self._count_queued(names)
        rescued: list[Job] = []
        if queued < limit or time.monotonic() >= self._next_rescue:
            rescued = self.rescue()
        if not limit or not (queued or rescued):
            return []
        damaged: list[CorruptRecordError] = []
        verb = self._verbs.claim(names, limit, damaged.append)
        taken: list[tuple[Writer, list[Job]]] = []

        def take(writer: Writer) -> list[Job]:
            taken.append((writer, verb(writer)))
            return taken[0][1]

        try:
            claimed = self._commit(take)
            self._report_all(damaged)
        except BaseException:
            for writer, jobs in taken:
                if writer.committed:  # and nobody will ever hear of it
                    self._give_back(jobs)
            raise
        return claimed

    def complete(self, job: Job, result: Any = None) -> Job:
        return self._commit(self._verbs.complete(job, result))

    def complete_many(self, jobs: Iterable[Job]) -> list[Job]:
        return self._commit(self._verbs.complete_many(jobs))

    def fail(self, job: Job, error: str) -> Job:
        return self._commit(self._verbs.fail(job, error))

    def release(self, job: Job) -> Job:
        return self._commit(self._verbs.release(job))

    def rescue(self) -> list[Job]:
        self._environment.raise_if_readonly()
        self._next_rescue = time.monotonic() + _RESCUE_SECONDS
        dead = {owner.number for owner in self._list_owners() if not owner.alive}
        rescued: list[Job] = []
        damaged: list[CorruptRecordError] = []
        if dead:
            started = list(self.jobs(Status.STARTED).ids())
            for first in range(0, len(started), _RESCUE_PAGE):
                ids = started[first : first + _RESCUE_PAGE]
                rescued += self._commit(rescue(ids, dead, damaged.append))
            self._report_all(damaged)
            if not damaged:  # which may be theirs, and readable again one day
                self._commit(lambda writer: writer.strike_out(dead))
        return rescued

    # --- The whole ----------------------------------------------------------

    def snapshot(self) -> Snapshot:
        self._raise_if_ended()
        return StoreSnapshot(self._environment, self._names)

    def info(self) -> StoreInfo:
        """Sizes, counts, readers and owners, for people. O(workers)."""
        self._raise_if_ended()
        return store_info(self._opened, self._list_owners())

    def check(self) -> list[Problem]:
        self._raise_if_ended()
        return check(self._environment)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            directory.release(self._opened)

    def _read(self, work: Callable[[Transaction], T]) -> T:
        if self._closed:
            self._raise_if_ended()
        return self._environment.read(work)

    def _raise_if_ended(self) -> None:
        self._environment.raise_if_gone()
        if self._closed:
            raise StoreClosedError(f"{self.path} was closed", path=self.path)

    def _commit(self, verb: Verb[T]) -> T:
        return self._commit_all([verb])[0]

    def _commit_all(self, verbs: Sequence[Verb[T]]) -> list[T]:
        """Runs verbs in one write transaction."""
        if self._closed:
            self._raise_if_ended()
        now = checked_time(self._clock())
        writer: Writer | None = None

        def work(transaction: Transaction) -> list[T]:
            nonlocal writer
            writer = Writer(transaction, self._environment, self._names, self._owners, now)
            results = [verb(writer) for verb in verbs]
            writer.finish()
            return results

        def failed(committed: bool) -> None:
            if writer is not None:
                writer.ended(committed)

        results = self._environment.write(work, failed)
        assert writer is not None
        writer.ended(True)
        return results

    def _give_back(self, jobs: list[Job]) -> None:
        """Releases what was claimed and could not be handed over."""
        try:
            self._commit_all([self._verbs.release(job) for job in jobs])
        except JobError:  # one of them was taken or destroyed meanwhile
            for job in jobs:
                with suppress(JobError):
                    self.release(job)

    def _count_queued(self, names: Sequence[str | None]) -> int:
        return sum(len(self.jobs(Status.QUEUED, worker=worker)) for worker in names or (ANY,))

    def _list_owners(self) -> list[owners.Owner]:
        def work(transaction: Transaction) -> list[owners.Owner]:
            return [
                owners.Owner(number, pid, self._owners.is_alive(number))
                for number, pid in owners.registered(transaction, self._environment.databases)
            ]

        return self._read(work)


def _now() -> int:
    return time.time_ns() // 1000
