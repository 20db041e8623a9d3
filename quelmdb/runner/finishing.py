"""Finished work gets into the store: many jobs a transaction, none held back for long.

Who finishes a job puts its outcome here. Whoever has nothing better to do flushes: a
thread that has run out of jobs, one that finds the oldest outcome `HELD_SECONDS` old, or
the main thread, which looks after what the others cannot since their next job is long.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from quelmdb.errors import JobError, StaleClaim, StoreClosedError, StoreError, StoreFullError
from quelmdb.job import Job
from quelmdb.persistence import JobStore
from quelmdb.runner.backoff import seconds_after
from quelmdb.runner.performing import Discard, Retry, Running
from quelmdb.status import Status
from quelmdb.writes import Batch

log = logging.getLogger("quelmdb.runner")

HELD_SECONDS: Final = 0.004
REFUSED_SECONDS: Final = 1.0  # between attempts, where the store cannot be written to
_NEVER: Final = float("inf")


@dataclass(slots=True)
class Counts:
    """What came of the jobs of a process, or of several."""

    completed: int = 0
    failed: int = 0
    retried: int = 0
    cancelled: int = 0
    lost: int = 0
    """Finished, but no longer held under their claim."""

    def as_tuple(self) -> tuple[int, ...]:
        return astuple(self)

    def __add__(self, other: Counts) -> Counts:
        pairs = zip(astuple(self), astuple(other), strict=True)
        return Counts(*(a + b for a, b in pairs))

    def __sub__(self, other: Counts) -> Counts:
        pairs = zip(astuple(self), astuple(other), strict=True)
        return Counts(*(a - b for a, b in pairs))

    @property
    def total(self) -> int:
        return sum(astuple(self))


class Finisher:
    """The outcomes of a process on their way into its store."""

    def __init__(self, store: JobStore, watch: Callable[[float], None]) -> None:
        """`watch` is told when, by `time.monotonic`, something will have to be flushed."""
        self._store = store
        self._watch = watch
        self._done: list[Running] = []
        self._lock = threading.Lock()  # of what is held, and when it is due
        self._flushing = threading.Lock()
        self.due = _NEVER
        """When what is held is to be flushed by whoever comes first; infinite where nothing is."""
        self.is_refused = False
        """Whether the store took nothing the last time: no more should be begun."""
        self.counts = Counts()

    def put(self, outcome: Running, now: float, hurry: bool = False) -> bool:
        """Takes a job that was run; returns whether it is time to flush. Never waits for
        the store."""
        self._done.append(outcome)
        due = self.due
        # A flush sets `due` before it looks at what there is: whoever reads the old one has
        # appended early enough.
        if due != _NEVER and not hurry:
            return now >= due
        with self._lock:
            self.due = due = now if hurry else now + HELD_SECONDS
        self._watch(due)
        return hurry

    def flush(self, wait: bool = False) -> None:
        """Writes all that is held, in one transaction; where another thread is about it,
        that is waited for, or left to the next flush. Where the store cannot be written to,
        everything is kept, and tried again after `REFUSED_SECONDS`."""
        if not self._flushing.acquire(blocking=wait):
            return
        try:
            with self._lock:  # what is put from here on belongs to the next flush
                self.due = _NEVER
                done = self._done[:]
                del self._done[: len(done)]
            if done:
                try:
                    self._write(done)
                except BaseException:  # Ctrl-C, and they are not to be lost
                    with self._lock:
                        self._done[:0] = done
                        self.due = time.monotonic()
                    raise
        finally:
            self._flushing.release()

    def release(self, jobs: Sequence[Job]) -> None:
        """Puts claimed jobs back into the queue; those that are not held any more are left
        as they are. What the store does not take goes back when the process ends."""
        try:
            self._apply([(job, job) for job in jobs], lambda batch, job: batch.release(job))
        except StoreError as error:
            log.warning("%d claimed jobs could not be released: %s", len(jobs), error)

    def _write(self, done: list[Running]) -> None:
        try:
            try:
                self._write_all(done)
            except StoreFullError:
                if all(outcome.error is not None or outcome.result is None for outcome in done):
                    raise
                self._write_singly(done)
        except StoreClosedError:
            log.error("%d finished jobs are lost to a closed store", len(done))
        except StoreError as error:
            log.error("%d finished jobs wait, the store refuses them: %s", len(done), error)
            with self._lock:
                self._done[:0] = done
                self.due = time.monotonic() + REFUSED_SECONDS
                self.is_refused = True
            self._watch(self.due)
        else:
            self.is_refused = False

    def _write_all(self, done: Sequence[Running]) -> None:
        jobs = self._complete(done)
        if jobs is not None:
            self.counts.completed += len(jobs)
        else:
            jobs = self._apply([(outcome.job, outcome) for outcome in done], self._record)
            self._count(jobs, len(done))
        if log.isEnabledFor(logging.DEBUG):
            _log_each(done, jobs)

    def _write_singly(self, done: list[Running]) -> None:
        """Where the store is full: first what takes no room for a result, and then one after
        the other. A job whose own result finds no room is failed for good. Takes what is
        written out of `done`."""
        small = [one for one in done if one.error is not None or one.result is None]
        if small:
            self._write_all(small)
            done[:] = [one for one in done if one not in small]
        while done:
            outcome = done[0]
            try:
                self._write_all([outcome])
            except StoreFullError as full:
                outcome.error = _not_stored(full)
                try:
                    self._write_all([outcome])
                except BaseException:
                    outcome.error = None  # its result may find room later
                    raise
            del done[0]

    def _complete(self, done: Sequence[Running]) -> list[Job] | None:
        """All of them as completed, the quick way; None where one stands against it."""
        if any(outcome.error is not None for outcome in done):
            return None
        results = [outcome.result for outcome in done]
        is_plain = results.count(None) == len(results)
        try:
            return self._store.complete_many(
                [outcome.job for outcome in done], None if is_plain else results
            )
        except StoreError:
            raise
        except BaseException as raised:  # of one of them: a claim, a result, or code of the result
            if _is_ctrl_c(raised):
                raise
            return None

    def _apply(
        self, pending: Sequence[tuple[Job, Any]], record: Callable[[Batch, Any], None]
    ) -> list[Job]:
        """One transaction for all; those who cannot take part are left out. Returns the jobs
        as they are stored now."""
        before: list[Job] = []
        while pending:
            try:
                with self._store.batch() as batch:
                    for _, what in pending:
                        record(batch, what)
            except JobError as error:
                rest = [one for one in pending if one[0].id != error.job_id]
                stale = next((what for job, what in pending if job.id == error.job_id), None)
                completed = isinstance(error, StaleClaim) and self._completed_itself(stale)
                if completed:
                    before.append(completed)
                else:
                    log.warning("job %s is left as it is: %s", error.job_id, error)
                if len(rest) == len(pending):
                    raise StoreError(f"who is to blame is not known: {error}") from error
                pending = rest
            else:
                return [*batch.results, *before]
        return before

    def _completed_itself(self, outcome: Running | Job | None) -> Job | None:
        """A job that has completed itself, with its follow-ups, as it is stored."""
        if not isinstance(outcome, Running) or outcome.error is not None:
            return None
        stored = self._store.find(outcome.job)
        if stored is None or stored.status is not Status.COMPLETED:
            return None
        return stored if stored.claim == outcome.job.claim else None

    def _record(self, batch: Batch, outcome: Running) -> None:
        job, error = outcome.job, outcome.error
        if error is None:
            try:
                batch.complete(job, outcome.result)
                return
            except (StoreError, JobError):
                raise
            except BaseException as raised:  # an EncodeError, or what the result itself raises
                if _is_ctrl_c(raised):
                    raise
                outcome.error = error = _not_stored(raised)
        told = _text(error) if isinstance(error, Discard) else error
        retry_at = self._retry_at(outcome)
        try:
            batch.fail(job, told, retry_at)
        except (StoreError, JobError):
            raise
        except BaseException as raised:  # by the error, when asked for its text
            if _is_ctrl_c(raised):
                raise
            batch.fail(job, f"{type(error).__name__} (it has no text)", retry_at)

    def _retry_at(self, outcome: Running) -> datetime | None:
        job, error = outcome.job, outcome.error
        most = outcome.definition.max_attempts if job.max_attempts is None else job.max_attempts
        if isinstance(error, Discard) or (most is not None and job.attempt >= most):
            # The store makes a job that is to run again a cancelled one, where that was
            # asked for; it is what should become of this one, too.
            return datetime.now(UTC) if self._store.cancel_requested(job) else None
        backoff = error.backoff if isinstance(error, Retry) else outcome.definition.backoff
        return datetime.now(UTC) + timedelta(seconds=seconds_after(backoff, job.attempt))

    def _count(self, jobs: Sequence[Job], expected: int) -> None:
        counts = self.counts
        counts.lost += expected - len(jobs)
        for job in jobs:
            status = job.status
            if status is Status.COMPLETED:
                counts.completed += 1
            elif status is Status.FAILED:
                counts.failed += 1
            elif status is Status.CANCELLED:
                counts.cancelled += 1
            else:
                counts.retried += 1


def _not_stored(why: BaseException) -> Discard:
    return Discard(f"its result cannot be stored: {type(why).__name__}: {_text(why)}")


def _text(error: BaseException) -> str:
    """Never raises, as the error of a worker might."""
    try:
        return str(error)
    except BaseException:
        return f"{type(error).__name__} (it has no text)"


def _repr(error: BaseException) -> str:
    try:
        return repr(error)
    except BaseException:
        return type(error).__name__


def _is_ctrl_c(raised: BaseException) -> bool:
    """Whether it came from outside, and not from a job."""
    return (
        isinstance(raised, KeyboardInterrupt)
        and threading.current_thread() is threading.main_thread()
    )


def _log_each(done: Sequence[Running], jobs: Sequence[Job]) -> None:
    stored = {job.id: job for job in jobs}
    for outcome in done:
        job = stored.get(outcome.job.id)
        log.debug(
            "job %d of %s %s in %.3f s (attempt %d)%s",
            outcome.job.id,
            outcome.job.worker,
            "lost" if job is None else job.status,
            outcome.seconds,
            outcome.job.attempt,
            "" if outcome.error is None else f": {_repr(outcome.error)}",
        )
