"""Claiming and rescuing: what takes several transactions, step by step.

Each is a generator of the writes to be committed, and is sent what they return. Whoever
drives it decides how to wait for them: a thread by waiting, an event loop by awaiting.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from typing import Any, Final, TypeVar

from quelmdb import index, owners
from quelmdb.engine import Transaction
from quelmdb.errors import CorruptRecordError, InvalidJobError
from quelmdb.job import ANY, Job, Status, Worker, worker_name
from quelmdb.layout import STATUS_CODES
from quelmdb.owners import Owner, Owners
from quelmdb.reading import StoreReader
from quelmdb.requests import Verb
from quelmdb.verbs import Claim, Verbs, rescue

T = TypeVar("T")

Steps = Generator[Verb[Any], Any, T]

_RESCUE_SECONDS: Final = 1.0
_RESCUE_PAGE: Final = 1000  # jobs a transaction
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


class Claims:
    """What this process takes from a store, and takes over from dead ones."""

    def __init__(self, store: StoreReader, verbs: Verbs, owners: Owners) -> None:
        self._store = store
        self._verbs = verbs
        self._owners = owners
        self._next_rescue = 0.0
        self._was_full = False  # the last claim: there is probably more, and no need to look

    def claim(self, workers: Sequence[Worker], limit: int) -> Steps[list[Job]]:
        """As `JobStore.claim`."""
        self._store._environment.raise_if_readonly()
        if type(limit) is not int or limit < 0:
            raise InvalidJobError(f"a limit is an int of 0 or more, not {limit!r}", found=limit)
        names = list(dict.fromkeys(map(worker_name, workers)))
        return self._claim(names, limit)

    def _claim(self, names: Sequence[str | None], limit: int) -> Steps[list[Job]]:
        if time.monotonic() >= self._next_rescue:
            yield from self.rescue()
        claimed: list[Job] = []
        damaged: list[CorruptRecordError] = []
        try:
            if limit and (self._was_full or self._is_queued(names)):
                claimed = yield Claim(names, limit, damaged.append)
                self._was_full = len(claimed) == limit
            if len(claimed) < limit and (yield from self.rescue()):
                claimed += yield Claim(names, limit - len(claimed), damaged.append)
                claimed.sort(key=lambda job: job._id or 0)
            if damaged:
                self._store._report_all(damaged)
        except BaseException:  # nobody will ever hear of them
            if claimed:
                yield self._verbs.give_back(claimed)
            raise
        return claimed

    def rescue(self) -> Steps[list[Job]]:
        """As `JobStore.rescue`."""
        self._store._environment.raise_if_readonly()
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

        def work(transaction: Transaction) -> list[Owner]:
            databases = self._store._environment.databases
            return [
                Owner(number, pid, self._owners.is_alive(number))
                for number, pid in owners.registered(transaction, databases)
            ]

        return self._store._read(work)

    def _is_queued(self, names: Sequence[str | None]) -> bool:
        """Whether any is queued: a look that needs no turn to write."""

        def work(transaction: Transaction) -> bool:
            return any(
                index.count(transaction, self._store._keys(transaction, _QUEUED, worker))
                for worker in names or (ANY,)
            )

        return self._store._read(work)
