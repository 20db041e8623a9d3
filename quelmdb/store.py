"""Store: the contract and the runner verbs on LMDB."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypedDict, TypeVar

from quelmdb import registry
from quelmdb.backup import Sink, backup, backup_to_stream
from quelmdb.claiming import Claim
from quelmdb.claims import Claims, deadline, drive
from quelmdb.codec import DEFAULT_LIMIT, Codec
from quelmdb.compaction import Compacted, Progress, compact, wasted
from quelmdb.directory import Opened
from quelmdb.durability import Durability, wanted
from quelmdb.environment import Work
from quelmdb.errors import StoreClosedError
from quelmdb.events import Hook
from quelmdb.info import StoreInfo, store_info
from quelmdb.job import Job
from quelmdb.maintenance.check import check
from quelmdb.persistence import Clock, JobStore, Problem
from quelmdb.reader import Snapshot
from quelmdb.reading import StoreReader, StoreSnapshot
from quelmdb.requests import FutureRequest, Request, Verb
from quelmdb.status import Status
from quelmdb.values import ANY, Worker, WorkerFilter, checked_time
from quelmdb.verbs import Verbs, all_of
from quelmdb.writes import Batch, OnConflict, OnDuplicate, Submit

T = TypeVar("T")
R = TypeVar("R", bound=Request[Any])


class Options(TypedDict, total=False):
    """Those of `open`."""

    durability: Durability | None
    create: bool
    readonly: bool
    capacity: int | None
    clock: Clock | None
    argument_limit: int
    write_timeout: float | None


def open(
    path: str | os.PathLike[str],
    *,
    durability: Durability | None = None,
    create: bool = True,
    readonly: bool = False,
    capacity: int | None = None,
    clock: Clock | None = None,
    argument_limit: int = DEFAULT_LIMIT,
    write_timeout: float | None = None,
) -> Store:
    """Opens the store in the directory `path`, which is made where it is absent.

    `durability`, chosen at creation and the same for all who open it: "full", where what
    a call has returned survives the death of any process, a crash of the system and loss
    of power, at two syncs of the disk a transaction; or "ephemeral", where it survives
    the death of any process, and costs no sync. None takes what the store has, and "full"
    for a new one. `capacity`: of an ephemeral store, the bytes of its file, all allocated
    at creation; 1 GiB if not said, at least 4 MiB. After the end of the machine's run
    an ephemeral store is verified before it is served, O(jobs).

    `create=False` raises `StoreNotFoundError` where there is no store. `readonly` opens for
    looking only. `clock` tells the time in microseconds since 1970 (for tests).
    `argument_limit`: the most bytes of one job's arguments, or of its result, as CBOR; it
    binds writes through this handle, not what is stored already. `write_timeout`: the most
    seconds that a call waits for the writes of others before it raises
    `StoreBusyError`; None waits, and logs that it does.

    A process opens a store once: opened again, it is shared, and closed with its last
    user. Raises the errors of the branch `StoreError`; of these `DurabilityError` for
    another durability or capacity than that of the store.
    """
    if write_timeout is not None and not write_timeout > 0:
        raise ValueError(f"write_timeout is None or above 0, not {write_timeout!r}")
    codec = Codec(argument_limit)
    opened = registry.acquire(
        path,
        create=create,
        readonly=readonly,
        wanted=wanted(durability, capacity),
        verify=check,
    )
    return Store(opened, codec, clock, write_timeout)


class Store(StoreReader, JobStore):
    """A store of jobs on LMDB. Made by `quelmdb.open`."""

    def __init__(
        self,
        opened: Opened,
        codec: Codec,
        clock: Clock | None,
        write_timeout: float | None,
    ) -> None:
        super().__init__()
        self._opened = opened
        self._committer = opened.committer
        self._verbs = Verbs(codec)
        self._now = _now if clock is None else lambda: checked_time(clock())
        self._claims = Claims(self, self._verbs, opened.owners, self._now)
        self._write_timeout = write_timeout
        self._closed = False

    def __repr__(self) -> str:
        return f"<Store {self.path!r}{' (closed)' if self._closed else ''}>"

    @property
    def path(self) -> str:
        """The directory of the store."""
        return str(self._opened.path)

    def initialize(self) -> None:
        self._raise_if_ended()

    # --- Writing ------------------------------------------------------------

    def insert(self, job: Job, on_duplicate: OnDuplicate = "raise") -> Job:
        return self._commit(self._verbs.insert(job, on_duplicate))

    def insert_many(self, jobs: Iterable[Job], on_duplicate: OnDuplicate = "raise") -> list[Job]:
        return self._commit(self._verbs.insert_many(jobs, on_duplicate))

    def update(self, job: Job) -> Job:
        return self._commit(self._verbs.update(job))

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

    @property
    def submit(self) -> Submit:
        self._raise_if_ended()
        return Submit(self._verbs, lambda verb: self._send(FutureRequest, verb).future)

    # --- Runners ------------------------------------------------------------

    def claim(self, *workers: Worker, limit: int = 1) -> list[Job]:
        return drive(self._claims.claim(workers, limit), self._commit, self._give_back)

    def wait(self, *workers: Worker, timeout: float | None = None) -> bool:
        names = self._claims.names(workers)
        end = deadline(timeout)
        while True:
            seen = self._opened.wakeup.seen()  # before the look: what comes after it is heard
            drive(self._claims.rescue_in_time(), self._commit, self._give_back)
            idle = self._claims.idle_seconds(names)
            if not idle:
                return True
            left = end - time.monotonic()
            if left <= 0:
                return False
            self._opened.wakeup.wait(seen, min(idle, left))

    def next_due(self) -> datetime | None:
        return self._claims.next_due()

    def complete(self, job: Job, result: Any = None) -> Job:
        return self._commit(self._verbs.complete(job, result))

    def complete_many(self, jobs: Iterable[Job], results: Iterable[Any] | None = None) -> list[Job]:
        return self._commit(self._verbs.complete_many(jobs, results))

    def fail(self, job: Job, error: str | BaseException, retry_at: datetime | None = None) -> Job:
        return self._commit(self._verbs.fail(job, error, retry_at))

    def release(self, job: Job) -> Job:
        return self._commit(self._verbs.release(job))

    def progress(
        self, job: Job, done: int, total: int | None = None, note: str | None = None
    ) -> Job:
        return self._commit(self._verbs.progress(job, done, total, note))

    def cancel(self, job_or_id: Job | int) -> Job:
        return self._commit(self._verbs.cancel(job_or_id))

    def cancel_many(self, jobs_or_ids: Iterable[Job | int]) -> list[Job]:
        return self._commit(self._verbs.cancel_many(jobs_or_ids))

    def cancel_requested(self, job: Job) -> bool:
        return self._claims.cancel_requested(job)

    def retry(self, job_or_id: Job | int) -> Job:
        return self._commit(self._verbs.retry(job_or_id))

    def retry_many(self, jobs_or_ids: Iterable[Job | int]) -> list[Job]:
        return self._commit(self._verbs.retry_many(jobs_or_ids))

    def pause(self, worker: Worker) -> None:
        self._commit(self._verbs.pause(worker))

    def resume(self, worker: Worker) -> None:
        self._commit(self._verbs.resume(worker))

    def paused(self) -> list[str | None]:
        return self._claims.paused()

    def rescue(self) -> list[Job]:
        return drive(self._claims.rescue(), self._commit, self._give_back)

    def requeue(self, jobs: Iterable[Job]) -> list[Job]:
        """Takes jobs away from whoever works on them: those that are still started as they
        are given are put back into the queue, as by `release`, and returned. For operators.

        One that was claimed must be under the claim that it carries, which is lost then. One
        that `insert` or `update` made started must not have been written since, which its
        updated_at tells; its attempts stay as they are. All others are passed over. Raises
        `InvalidJobError` for what is no stored job. O(log n) each.
        """
        return self._commit(self._verbs.requeue(jobs))

    def prune(
        self,
        *statuses: Status | str,
        worker: WorkerFilter = ANY,
        older_than: timedelta | None = None,
        keep: int | None = None,
    ) -> int:
        steps = self._claims.prune(statuses, worker, older_than, keep)
        return drive(steps, self._commit, self._give_back)

    def listen(self, hook: Hook) -> Callable[[], None]:
        self._raise_if_ended()
        return self._committer.listeners.listen(hook)

    # --- The whole ----------------------------------------------------------

    def snapshot(self) -> Snapshot:
        self._raise_if_ended()
        return StoreSnapshot(*self._opened.snapshot(), self._opened.end_snapshot)

    def info(self) -> StoreInfo:
        """Sizes, counts, readers and owners, for people. O(workers)."""
        self._raise_if_ended()
        return store_info(self._opened, self._claims.owners())

    def check(self) -> list[Problem]:
        self._raise_if_ended()
        return self._read(check)

    def compact(self, capacity: int | None = None, progress: Progress | None = None) -> Compacted:
        """Puts a copy without holes in the place of the data file, while the store is used:
        readers go on, snapshots keep what they see, writers of all processes wait for the copy
        alone. Of an ephemeral store `capacity` is what the new file has; it can only grow.

        The space of the old file is free when nobody reads it any more. Needs as much space
        as the store has in use, and the reserve for claims (4 to 64 MiB). Raises `StoreError`;
        nothing is changed then. O(jobs).
        """
        self._raise_if_ended()
        self._raise_if_readonly()
        return compact(self._opened, self._now(), capacity, progress)

    def backup(self, target: str | os.PathLike[str] | Sink, directory: str | None = None) -> int:
        """Copies the store, as it is at one point in time, while it is used: into a new or an empty
        directory, which is a store then; or, as a tar archive of one, into a binary stream (made
        in a temporary directory first, below `directory` if that is named). Nobody waits for
        it; what others delete meanwhile keeps its space until it is done.

        Jobs that are started there are held by nobody, and rescued by the first who claims.
        Returns the bytes of the copied file. Raises `NotAStoreError` where the directory is not
        empty, `StoreError`. O(jobs).
        """
        self._raise_if_ended()
        if isinstance(target, str | os.PathLike):
            return backup(self._opened, Path(os.path.abspath(target)))
        return backup_to_stream(self._opened, target, directory)

    def wasted(self) -> float:
        """Which part of the used file a compaction would free, 0 to 1, about; some 30 pages that
        any store soon has free again do not count. O(1)."""
        return self._read(wasted)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            try:
                registry.release(self._opened)
            except BaseException:  # interrupted, and to be closed again
                self._closed = False
                raise

    def _read(self, work: Work[T]) -> T:
        if self._closed:
            self._raise_if_ended()
        return self._opened.read(work)

    def _raise_if_readonly(self) -> None:
        self._opened.environment.raise_if_readonly()

    def _raise_if_ended(self) -> None:
        self._opened.environment.raise_if_gone()
        if self._closed:
            raise StoreClosedError(f"{self.path} was closed", path=self.path)

    def _commit(self, verb: Verb[T]) -> T:
        if self._closed:
            self._raise_if_ended()
        unreceived: Any = self._give_back if type(verb) is Claim else None
        done: T = self._committer.run(verb, self._now(), self._write_timeout, unreceived)
        return done

    def _send(self, kind: Callable[[Verb[Any], int], R], verb: Verb[Any]) -> R:
        """The request that `kind` makes of it, on its way."""
        if self._closed:
            self._raise_if_ended()
        request = kind(verb, self._now())
        self._committer.submit(request)
        return request

    def _commit_all(self, verbs: Sequence[Verb[Any]]) -> list[Any]:
        """Runs verbs in one write transaction."""
        return self._commit(all_of(verbs))

    def _give_back(self, jobs: Any) -> None:
        """Releases what was claimed and could not be handed over, also where this handle was
        closed meanwhile. With the store the claims have ended."""
        with suppress(StoreClosedError):
            self._committer.run(self._verbs.give_back(jobs), self._now(), None)


def _now() -> int:
    return time.time_ns() // 1000
