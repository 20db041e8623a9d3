"""Claiming, rescuing, pruning: what takes several transactions, step by step.

Each is a generator of the writes to be committed, and is sent what they return. Whoever
drives it decides how to wait for them: a thread by waiting, an event loop by awaiting.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Generator, Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, Final, TypeVar

from quelmdb import by_option, endings, index, owners
from quelmdb.claiming import Claim, rescue
from quelmdb.engine import Transaction
from quelmdb.environment import Environment
from quelmdb.errors import CorruptRecordError, InvalidJobError, StoreError
from quelmdb.job import Job
from quelmdb.layout import STATUS_CODES, pack_number
from quelmdb.owners import Owner, Owners
from quelmdb.reader import JobView
from quelmdb.reading import StoreReader, keys_of
from quelmdb.recordlayout import CANCEL_REQUESTED
from quelmdb.requests import Verb
from quelmdb.status import ENDED, Status, status_of
from quelmdb.stored import verified
from quelmdb.values import ANY, MAX_ID, Worker, WorkerFilter, time_of, worker_name
from quelmdb.verbs import Verbs

T = TypeVar("T")

Steps = Generator[Verb[Any], Any, T]

log = logging.getLogger("quelmdb")

_RESCUE_SECONDS: Final = 1.0
_PRUNE_PAGE: Final = 1000  # jobs that are looked at, at a time
_RESCUE_PAGE: Final = 1000  # jobs a transaction
_LAST: Final = 2**63 - 1
_QUEUED: Final = (STATUS_CODES[Status.QUEUED],)


def drive(
    steps: Steps[T], commit: Callable[[Verb[Any]], Any], give_back: Callable[[list[Job]], None]
) -> T:
    """What the steps return, each write committed by a call of `commit`. What was claimed
    goes to `give_back` where an interrupt comes before the steps have heard of it."""
    try:
        verb = next(steps)
        while True:
            try:
                result = commit(verb)
            except BaseException as error:
                verb = steps.throw(error)
                continue
            is_claim = type(verb) is Claim
            try:
                verb = steps.send(result)
            except Exception:  # the end of the steps among them
                raise
            except BaseException:
                if is_claim:
                    give_back(result)
                raise
    except StopIteration as end:
        returned: T = end.value
        return returned


def deadline(timeout: float | None) -> float:
    """When a wait ends that begins now, by `time.monotonic`. Raises `ValueError`."""
    if timeout is None:
        return math.inf
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout >= 0:
        raise ValueError(f"a timeout is None or a number of seconds from 0, not {timeout!r}")
    return time.monotonic() + timeout


class Claims:
    """What this process takes from a store, and takes over from dead ones."""

    def __init__(
        self, store: StoreReader, verbs: Verbs, owners: Owners, now: Callable[[], int]
    ) -> None:
        self._store = store
        self._verbs = verbs
        self._owners = owners
        self._now = now
        self._next_rescue = 0.0
        self._was_full = False  # the last claim: there is probably more, and no need to look
        # How many queued jobs of some workers the last claim could not read, and until when that
        # is believed: they are nothing to wake up for.
        self._damaged: dict[tuple[str | None, ...], tuple[float, int]] = {}

    def claim(self, workers: Sequence[Worker], limit: int) -> Steps[list[Job]]:
        """As `JobStore.claim`."""
        if type(limit) is not int or limit < 0:
            raise InvalidJobError(f"a limit is an int of 0 or more, not {limit!r}", found=limit)
        return self._claim(self.names(workers), limit)

    def names(self, workers: Sequence[Worker]) -> list[str | None]:
        """Those of workers that are to be claimed for, each once."""
        self._store._raise_if_readonly()
        return list(dict.fromkeys(map(worker_name, workers)))

    def _claim(self, names: Sequence[str | None], limit: int) -> Steps[list[Job]]:
        yield from self.rescue_in_time()
        claimed: list[Job] = []
        damaged: list[CorruptRecordError] = []
        try:
            if limit and (self._was_full or not self.idle_seconds(names)):
                claimed = yield Claim(names, limit, damaged.append)
                self._was_full = len(claimed) == limit
                self._remember_damage(names, 0 if self._was_full else len(damaged))
            if len(claimed) < limit:
                try:
                    if (yield from self.rescue()):
                        claimed += yield Claim(names, limit - len(claimed), damaged.append)
                        claimed.sort(key=lambda job: (-job.priority, job._id or 0))
                except StoreError as error:
                    if not claimed:
                        raise
                    # To give them back may fail for the same reason, a full disk.
                    log.warning("claimed fewer than were asked for: %s", error)
            if damaged:
                self._store._report_all(damaged)
        except BaseException:  # nobody will ever hear of them
            if claimed:
                yield self._verbs.give_back(claimed)
            raise
        return claimed

    def rescue_in_time(self) -> Steps[None]:
        """A rescue, where the last one is some time ago."""
        if time.monotonic() >= self._next_rescue:
            yield from self.rescue()

    def rescue(self) -> Steps[list[Job]]:
        """As `JobStore.rescue`."""
        self._store._raise_if_readonly()
        self._next_rescue = time.monotonic() + _RESCUE_SECONDS
        dead = {owner.number for owner in self.owners() if not owner.alive}
        rescued: list[Job] = []
        damaged: list[CorruptRecordError] = []
        if dead:
            started = list(self._store.jobs(Status.STARTED).ids())
            for first in range(0, len(started), _RESCUE_PAGE):
                ids = started[first : first + _RESCUE_PAGE]
                rescued += yield rescue(ids, dead, damaged.append)
            self._store._report_all(damaged)
            if not damaged:  # which may be theirs, and readable again one day
                yield lambda writer: writer.strike_out(dead)
        return rescued

    def owners(self) -> list[Owner]:
        """Every process that claimed and is not struck out, dead or alive."""

        def work(environment: Environment, transaction: Transaction) -> list[Owner]:
            return [
                Owner(number, pid, self._owners.is_alive(number))
                for number, pid in owners.registered(transaction, environment.databases)
            ]

        return self._store._read(work)

    def prune(
        self,
        statuses: Sequence[Status | str],
        worker: WorkerFilter,
        older_than: timedelta | None,
        keep: int | None,
    ) -> Steps[int]:
        """As `JobStore.prune`."""
        self._store._raise_if_readonly()
        chosen = frozenset(map(status_of, statuses)) or frozenset(ENDED)
        if not chosen <= frozenset(ENDED):
            raise InvalidJobError(
                f"what has ended is pruned ({', '.join(ENDED)}), not {', '.join(sorted(chosen))}"
            )
        if keep is not None and (type(keep) is not int or keep < 0):
            raise InvalidJobError(f"keep is None or an int from 0, not {keep!r}", found=keep)
        before = _LAST
        if older_than is not None:
            if not isinstance(older_than, timedelta) or older_than < timedelta(0):
                raise InvalidJobError(
                    f"older_than is a timedelta of 0 or more, not {older_than!r}", found=older_than
                )
            before = self._now() - older_than // timedelta(microseconds=1)
        view = self._store.jobs(*chosen, worker=worker)  # raises for what is no worker
        return self._prune(chosen, view, worker, before, keep)

    def _prune(
        self,
        statuses: frozenset[Status],
        view: JobView,
        worker: WorkerFilter,
        before: int,
        keep: int | None,
    ) -> Steps[int]:
        end = MAX_ID + 1
        if keep:
            latest = list(
                self._store.jobs(*statuses, worker=worker, limit=keep, reverse=True).ids()
            )
            end = latest[-1] if len(latest) == keep else 0
        deleted = 0
        jobs = iter(view)
        while page := list(islice(jobs, _PRUNE_PAGE)):
            ids = [job._id or 0 for job in page if (job._updated_at or 0) <= before]
            left = [job_id for job_id in ids if job_id < end]
            while left:
                came_to, count = yield endings.prune(left, statuses, before)
                left = left[came_to:]
                deleted += count
            if (page[-1]._id or 0) >= end:
                break
        return deleted

    def idle_seconds(self, names: Sequence[str | None]) -> float:
        """How long nothing will fall due, one second at most; 0 where there may be something
        to claim for these workers. A look that needs no turn to write."""
        now = self._now()
        until, unreadable = self._damaged.get(tuple(names), (0.0, 0)) if self._damaged else (0.0, 0)
        if time.monotonic() > until:
            unreadable = 0

        def work(environment: Environment, transaction: Transaction) -> float:
            databases = environment.databases
            queued = _count_queued(environment, transaction, names or (ANY,))
            if not by_option.is_used(transaction, databases):
                return 0 if queued > unreadable else _RESCUE_SECONDS
            due = by_option.next_due(transaction, databases)
            if due is not None and due <= now:
                return 0
            if queued:
                paused = _paused(environment, transaction, names)
                queued -= _count_queued(environment, transaction, paused)
            if queued > unreadable:
                return 0
            return _RESCUE_SECONDS if due is None else min((due - now) / 1e6, _RESCUE_SECONDS)

        return self._store._read(work)

    def _remember_damage(self, names: Sequence[str | None], count: int) -> None:
        if count:
            self._damaged[tuple(names)] = time.monotonic() + _RESCUE_SECONDS, count
        elif self._damaged:
            self._damaged.pop(tuple(names), None)

    def cancel_requested(self, job: Job) -> bool:
        """As `JobStore.cancel_requested`."""
        job_id, claim = endings.held("cancel_requested", job)

        def work(environment: Environment, transaction: Transaction) -> bool:
            key = pack_number(job_id)
            record = transaction.get(key, db=environment.databases.jobs)
            if record is None:
                return True
            stored = verified(job_id, key, record)
            is_held = stored.status is Status.STARTED and stored.claim == claim
            return not is_held or bool(stored.flags & CANCEL_REQUESTED)

        return self._store._read(work)

    def next_due(self) -> datetime | None:
        """As `JobStore.next_due`."""

        def work(environment: Environment, transaction: Transaction) -> int | None:
            return by_option.next_due(transaction, environment.databases)

        due = self._store._read(work)
        return None if due is None else time_of(due)

    def paused(self) -> list[str | None]:
        """As `JobStore.paused`."""
        names = self._store._read(_paused)
        return sorted(names, key=lambda name: (name is not None, name or ""))


def _count_queued(
    environment: Environment, transaction: Transaction, workers: Sequence[WorkerFilter]
) -> int:
    return sum(
        index.count(transaction, keys_of(environment, transaction, _QUEUED, worker))
        for worker in workers
    )


def _paused(
    environment: Environment, transaction: Transaction, names: Sequence[str | None] = ()
) -> list[str | None]:
    """The workers that are paused, of these where there are names."""
    numbers = by_option.paused(transaction, environment.databases)
    paused = [environment.names.name(transaction, number) for number in numbers]
    return [name for name in paused if not names or name in names]
