"""The contract: what every store of jobs promises.

`Persistence` is Que.Persistence, the least that an adapter offers. `JobStore`
puts the verbs of runners on top; what can be asked of one stands in `reader`. The
docstrings are the rules; the kit in `quelmdb.testing` checks them; docs/contract.md
tells where and why they differ from Que.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from quelmdb.events import Hook
from quelmdb.job import Job
from quelmdb.reader import Closable, Reader, Snapshot
from quelmdb.status import Status
from quelmdb.values import ANY, Worker, WorkerFilter
from quelmdb.writes import Batch, OnConflict, OnDuplicate, Submit

Clock = Callable[[], int]
"""Tells the time in microseconds since 1970 (UTC)."""


class Persistence(ABC):
    """Que's contract.

    Listings are by ascending id, always. A worker of None is a worker like any
    other; `ANY` means all of them; an unknown worker has no jobs.
    """

    @abstractmethod
    def initialize(self) -> None:
        """Makes the store ready. On one that is ready it changes nothing."""

    @abstractmethod
    def insert(self, job: Job) -> Job:
        """Stores a new job and returns it as stored.

        Without an id it gets the next one: above every id that the store ever
        held or gave out, never given twice. created_at and updated_at become
        now, attempt, claim and owner 0; all else is taken from `job`, but that one which
        is queued and has a run_at to come is scheduled.

        Raises `JobExistsError` where the id is taken, `InvalidJobError` where
        it is above 2**62, `EncodeError` or `TooLargeError` where arguments or
        result cannot be carried. Nothing is stored then.
        """

    @abstractmethod
    def update(self, job: Job) -> Job:
        """Replaces the job with that id and returns it as stored.

        The whole record is taken from `job`, but: updated_at becomes now, an
        absent created_at keeps the stored one (or becomes now), and attempt is
        kept. A job that was and stays started keeps its claim and owner; one
        that becomes started has neither and is never rescued; any other has no
        owner and keeps the number of its last claim.

        An id that is not stored is inserted under that id; without an id it is
        inserted with the next one. Raises as `insert` does, but for
        `JobExistsError`.
        """

    @abstractmethod
    def destroy(self, job_or_id: Job | int | None) -> None:
        """Deletes the job with that id. Of a job only the id counts; an id that
        is not stored, or None, changes nothing."""

    @abstractmethod
    def find(self, job_or_id: Job | int | None) -> Job | None:
        """The job with that id, or None. Of a job only the id counts.

        Raises `CorruptRecordError` where its bytes are no record.
        """

    @abstractmethod
    def all(self, worker: WorkerFilter = ANY) -> Iterable[Job]:
        """Every job [of a worker]."""

    @abstractmethod
    def completed(self, worker: WorkerFilter = ANY) -> Iterable[Job]:
        """Every completed job [of a worker]."""

    @abstractmethod
    def failed(self, worker: WorkerFilter = ANY) -> Iterable[Job]:
        """Every failed job [of a worker]."""

    @abstractmethod
    def incomplete(self, worker: WorkerFilter = ANY) -> Iterable[Job]:
        """Every job that is scheduled, queued or started [of a worker]."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that `check` found: which rule is broken, for which job if for one."""

    rule: str
    message: str
    job_id: int | None = None

    def __str__(self) -> str:
        where = "" if self.job_id is None else f"job {self.job_id}: "
        return f"{where}{self.message} [{self.rule}]"


class JobStore(Reader, Persistence, Closable):
    """A store that runners can work on. Every method may be called from any thread.

    What takes several jobs is one transaction: all of it happens, or, where
    anything raises, nothing.
    """

    @abstractmethod
    def insert(self, job: Job, on_duplicate: OnDuplicate = "raise") -> Job:
        """As `Persistence.insert`. Where another job that has not ended has the same
        `unique_key`, `on_duplicate` says what becomes of it:

        "raise" raises `DuplicateJobError`; "skip" stores nothing and returns that other
        job; "replace" puts this one in its place, under its id, as new. One that is
        started cannot be replaced: it loses its key and goes on, and this one is stored
        beside it, so that what has changed since is worked on once more (as graphile-worker
        does with its job_key).
        """

    @abstractmethod
    def insert_many(self, jobs: Iterable[Job], on_duplicate: OnDuplicate = "raise") -> list[Job]:
        """`insert` of each, in order: of two with the same key the second is the duplicate."""

    @abstractmethod
    def update_many(self, jobs: Iterable[Job]) -> list[Job]:
        """`update` of each, in order."""

    @abstractmethod
    def destroy_many(self, jobs_or_ids: Iterable[Job | int | None]) -> None:
        """`destroy` of each."""

    @abstractmethod
    def restore(self, jobs: Iterable[Job], on_conflict: OnConflict = "error") -> list[Job]:
        """Stores jobs as they are, times, attempt and claim included, under their
        ids; returns those that were stored.

        Nobody holds them afterwards: owner becomes 0. Ids and claims that the
        store gives out later are above all restored ones; a job that is started has
        no claim afterwards. An id that is taken, also
        by an earlier one of these jobs, raises `JobExistsError`, or is skipped, or
        replaced. Raises `InvalidJobError` for a job without an id, and as `insert` does.
        """

    @abstractmethod
    def batch(self) -> Batch:
        """Writes that happen together, or not at all."""

    @property
    @abstractmethod
    def submit(self) -> Submit:
        """The same writes without waiting: each returns a future of its result."""

    @abstractmethod
    def snapshot(self) -> Snapshot:
        """The store as it is now, until the snapshot ends."""

    @abstractmethod
    def claim(self, *workers: Worker, limit: int = 1) -> list[Job]:
        """Takes up to `limit` queued jobs [of these workers] and returns them.

        By descending priority, then ascending id, over all named workers (of all workers
        where none is named), but those that are paused. Each becomes started, its attempt
        grows by one (up to 2**32 - 1), it gets a new claim number and this process as
        owner; result, error and progress stay. A job whose record is corrupt is logged and
        passed over. A limit of 0 claims nothing. A call that is interrupted gives back
        what it has claimed.

        Before that, what is scheduled and due becomes queued, some hundreds a call, by
        ascending run_at; and jobs that a dead process held were rescued: whenever there
        would be too few, and else at most once a second. O(limit · log n).
        """

    @abstractmethod
    def wait(self, *workers: Worker, timeout: float | None = None) -> bool:
        """Waits until there may be something to claim [for these workers], at most `timeout`
        seconds, and returns whether there may be.

        A job that is queued or falls due, in any process, a worker that is resumed and the
        death of a process that held jobs are seen. Others may claim it first.
        """

    @abstractmethod
    def next_due(self) -> datetime | None:
        """The earliest run_at of what is scheduled; None where nothing is. O(log n)."""

    @abstractmethod
    def complete(self, job: Job, result: Any = None) -> Job:
        """Ends a claimed job as completed, with a result and no error, and returns it.

        Raises `StaleClaim` where it is no longer started under the claim that `job`
        carries, `JobNotFoundError` where it is no longer stored,
        `InvalidTransitionError` where `job` was never claimed, `EncodeError` or
        `TooLargeError` where the result cannot be carried. Nothing is changed then.
        O(log n).
        """

    @abstractmethod
    def complete_many(self, jobs: Iterable[Job], results: Iterable[Any] | None = None) -> list[Job]:
        """`complete` of each, with the result at its place; without one where there are no
        `results`. Where one raises, none is completed. Raises `ValueError` where there are
        more jobs than results, or fewer."""

    @abstractmethod
    def fail(self, job: Job, error: str | BaseException, retry_at: datetime | None = None) -> Job:
        """Ends the attempt of a claimed job with an error and no result, and returns the job.

        It is failed; or, with `retry_at`, scheduled for that time again, unless its
        cancellation was asked for (it is cancelled then), or it has used up its
        `max_attempts`. The attempt is put behind its `failures`.

        An exception is kept as its traceback. The text is never refused: of more than
        65,536 characters the middle is left out, and lone surrogates are escaped.
        Raises as `complete` does, and `InvalidJobError` where the error is neither.
        """

    @abstractmethod
    def release(self, job: Job) -> Job:
        """Puts a claimed job back into the queue; the attempt does not count. Result
        and error stay. Where its cancellation was asked for it is cancelled. Raises as
        `complete` does."""

    @abstractmethod
    def progress(
        self, job: Job, done: int, total: int | None = None, note: str | None = None
    ) -> Job:
        """Stores how far a claimed job has got, and returns it. The claim stays. Of a note
        100 characters are kept. Raises as `complete` does, and `InvalidJobError` where
        `done` or `total` is no int from 0."""

    @abstractmethod
    def cancel(self, job_or_id: Job | int) -> Job:
        """Cancels a job that is scheduled or queued, and returns it. Of one that is started
        the cancellation is asked for: whoever holds it learns of it by `cancel_requested`,
        and it is not run again. One that was started without a claim is cancelled at once.

        Raises `JobNotFoundError` where it is not stored, `InvalidTransitionError` where it
        has ended.
        """

    @abstractmethod
    def cancel_many(self, jobs_or_ids: Iterable[Job | int]) -> list[Job]:
        """`cancel` of each that is stored and has not ended; returns these."""

    @abstractmethod
    def cancel_requested(self, job: Job) -> bool:
        """Whether who holds a claimed job should stop: its cancellation was asked for, or
        the claim that `job` carries is no longer its own. O(log n)."""

    @abstractmethod
    def retry(self, job_or_id: Job | int) -> Job:
        """Puts a job that is failed, cancelled or scheduled into the queue, to be claimed
        at once, and returns it. Attempts, failures and error stay; run_at becomes None.

        Raises `JobNotFoundError` where it is not stored, `InvalidTransitionError` where it
        is queued, started or completed, `DuplicateJobError` where another job has its
        `unique_key` by now.
        """

    @abstractmethod
    def retry_many(self, jobs_or_ids: Iterable[Job | int]) -> list[Job]:
        """`retry` of each that is stored and would not raise; returns these."""

    @abstractmethod
    def pause(self, worker: Worker) -> None:
        """No job of that worker is claimed until it is resumed, by any process. What is
        started goes on. Paused again it stays paused."""

    @abstractmethod
    def resume(self, worker: Worker) -> None:
        """Ends `pause`. One that is not paused stays so."""

    @abstractmethod
    def paused(self) -> list[str | None]:
        """The workers that are paused: None first, then by name."""

    @abstractmethod
    def rescue(self) -> list[Job]:
        """Takes back what dead processes held, and returns it. The attempt counts, and is
        put behind the job's `failures`.

        A job whose cancellation was asked for is cancelled; one that has used up its
        `max_attempts` is failed, with an error that says so; all others are queued. What a living
        process holds is never touched, however slow it is. O(1) for each process that ever
        claimed and is not yet known as dead; only where one is dead, O(started jobs).
        """

    @abstractmethod
    def prune(
        self,
        *statuses: Status | str,
        worker: WorkerFilter = ANY,
        older_than: timedelta | None = None,
        keep: int | None = None,
    ) -> int:
        """Deletes jobs that have ended, in any of these statuses (of none named: completed,
        failed or cancelled) [of a worker]; returns how many.

        Only those whose updated_at is `older_than` that ago; and never the `keep` latest
        of them by id. In batches, each a transaction of a few ms, so that others write
        in between. Raises `InvalidJobError` for a status that has not ended. O(n).
        """

    @abstractmethod
    def listen(self, hook: Hook) -> Callable[[], None]:
        """Has `hook` called with an `Event` for each job that this process claims, ends,
        releases or rescues, behind the commit. Returns what ends that.

        It is called in the thread that wrote, or in that which commits for others, outside
        of transactions; what it raises is logged. Nothing is paid where nobody listens.
        """

    @abstractmethod
    def check(self) -> list[Problem]:
        """Every rule of the store's format that does not hold. O(n)."""

    @abstractmethod
    def close(self) -> None:
        """Ends the use of the store; what this process holds can be rescued from
        now on. A second time changes nothing."""
