"""The write transactions of a process: one verb in each, or all that waits.

One at a time: who uses it has the turn of the process (`commit`), and is at the gate.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import groupby
from typing import Any, Final, TypeVar, cast

from quelmdb.append import Append, append_all
from quelmdb.engine import Transaction, is_open
from quelmdb.engine_errors import is_foreign
from quelmdb.environment import Environment
from quelmdb.errors import QuelmdbError, StoreFullError
from quelmdb.filesystem import sync_file
from quelmdb.layout import DATA_FILE
from quelmdb.listeners import Listeners
from quelmdb.owners import Owners
from quelmdb.requests import Request, Verb
from quelmdb.wakeup import Wakeup
from quelmdb.writer import Writer

T = TypeVar("T")

log = logging.getLogger("quelmdb")

_PATIENCE_SECONDS: Final = 1.0  # with readers
_IMPATIENT_SECONDS: Final = 5.0  # behind a wait in vain
_PAUSE_SECONDS: Final = 0.002


class Transactions:
    """What begins, commits and undoes them, in the generation that is the store."""

    def __init__(
        self,
        environment: Environment,
        owners: Owners,
        wakeup: Wakeup,
        next_generation: Callable[[], Environment],
        raise_if_gone: Callable[[], None],
    ) -> None:
        """`wakeup` is given the number of each transaction behind which there may be something
        to claim. `next_generation` opens what has superseded the environment. `raise_if_gone`
        raises where the store was closed."""
        self.environment = environment
        self.listeners = Listeners()
        self._owners = owners
        self._wakeup = wakeup
        self._next_generation = next_generation
        self._raise_if_gone = raise_if_gone
        self._writer = Writer(environment, owners)
        self._patient_from = 0.0

    def use_next(self) -> None:
        """Goes on in the next generation."""
        self.environment = self._next_generation()
        self._writer = Writer(self.environment, self._owners)

    def forget(self) -> None:
        """In the child of a fork: lets go of the environment."""
        self.listeners = Listeners()
        del self._writer

    def alone(self, verb: Verb[T], now: int, outcome: list[T]) -> None:
        """As `once`. Where there is no page for it, but would be without readers, it waits a little
        for these: one that was stopped in the middle of a short look keeps every page from being
        used again that is freed meanwhile. Where one has waited in vain, nobody waits for a while:
        all of them would, one behind the other."""
        end = None
        while True:
            try:
                self.once(verb, now, outcome)
                return
            except StoreFullError as error:
                moment = time.monotonic()
                if end is None and moment >= self._patient_from:
                    end = moment + _PATIENCE_SECONDS
                if end is None or outcome or not self._is_for_readers(error):
                    raise
                if moment > end:
                    self._patient_from = moment + _IMPATIENT_SECONDS
                    raise
            time.sleep(_PAUSE_SECONDS)

    def _is_for_readers(self, error: StoreFullError) -> bool:
        """Whether it was LMDB that had no page, and readers may keep some."""
        cause = error.__cause__
        return cause is not None and is_foreign(cause) and self.environment.pinned_bytes() > 0

    def once(self, verb: Verb[T], now: int, outcome: list[T]) -> None:
        """One verb in a transaction of its own. What it returns is put into `outcome`
        where it is committed, which it may be although something is raised."""
        transaction = None
        try:
            self._raise_if_gone()  # asked in the turn, for which `close` waits
            transaction = self._begin(now)
            writer = self._writer
            result = verb(writer)
            writer.counters.finish()
            transaction.commit()
            outcome.append(result)
            self._committed(writer)
        except BaseException as error:
            if transaction is not None and self._undo(transaction, error) and not outcome:
                outcome.append(result)
            if is_foreign(error):
                raise self.environment.error_for(error) from error
            raise
        finally:  # without a place for an interrupt before it; harmless behind the end
            if transaction is not None:
                transaction.abort()

    def together(
        self, take: Callable[[list[Request[Any]]], None], taken: list[Request[Any]]
    ) -> None:
        """All that waits, in one transaction: `take` puts it into `taken` when that has begun.
        Raises where each must be run alone."""
        transaction, is_committed = None, False
        try:
            self._raise_if_gone()
            transaction = self._begin(0)
            writer = self._writer
            take(taken)
            for is_append, group in groupby(taken, _is_append):
                if is_append:
                    _append(writer, list(group))
                else:
                    for request in group:
                        _try(writer, request)
            writer.counters.finish()
            transaction.commit()
            is_committed = True
            self._committed(writer)
        except BaseException as error:
            if is_committed:
                self._finish_committed()
            elif transaction is None or not self._undo(transaction, error):
                raise
        finally:  # as in `once`
            if transaction is not None:
                transaction.abort()

    def _begin(self, now: int) -> Transaction:
        """A write transaction of the generation that is the store."""
        while True:
            if self._wakeup.is_doubtful() and self.environment.settle():
                self._wakeup.doubt(False)
            transaction = self.environment.begin_write()
            try:
                self._writer.begin(transaction, now, is_heard=bool(self.listeners.hooks))
                # Who has written the last transaction knows that it was no seal.
                known = self._writer.counters.are_known
                if known or not self.environment.is_sealed(transaction):
                    return transaction
            except BaseException:
                transaction.abort()
                raise
            transaction.abort()
            self.use_next()

    def _undo(self, transaction: Transaction, error: BaseException) -> bool:
        """Undoes a transaction that failed; whether it was committed nevertheless: an interrupt
        came behind the commit."""
        has_failed = is_foreign(error)
        if has_failed and not self.environment.ephemeral:
            self._wakeup.doubt(True)  # first: an interrupt may come into the rest
        committed = not has_failed and not is_open(transaction)
        transaction.abort()
        if committed:
            self._committed(self._writer)
        else:
            self._writer.give_up()
            if has_failed and not self.environment.ephemeral:
                self._sync_what_failed()
        return committed

    def _sync_what_failed(self) -> None:
        """Before anybody else writes to a full store (this process is at the gate still): where
        LMDB could not sync its meta page it has put the former one in its place, which the disk
        does not have yet. Without a sync the next transaction would overwrite pages that the
        disk, after a loss of power, would take for those of the one that failed.

        Where that sync fails, too, whoever writes next, in whichever process, has to settle it."""
        with suppress(OSError):  # the caller has an error already
            sync_file(self.environment.directory / DATA_FILE)
            self._wakeup.doubt(False)

    def _finish_committed(self) -> None:
        """Where something was raised behind the commit: what it had to do is done as far as it
        can be. What was committed must not be taken for undone."""
        try:
            self._committed(self._writer)
        except BaseException:
            self._writer.give_up()
            log.exception("behind a commit")

    def _committed(self, writer: Writer) -> None:
        """Behind a commit; called again where an interrupt came into it."""
        writer.counters.committed()
        if writer.has_learnt:
            writer.keep()
        if writer.awakens:
            writer.awakens = False
            self._wakeup.wake(writer.counters.number)
        if writer.events:
            self.listeners.note(writer.events)
        writer.events = None


def _try(writer: Writer, request: Request[Any]) -> None:
    """One of several verbs. Raises where it has left the transaction in a state that is none."""
    writer.go_on(request.now)
    try:
        request.result = request.verb(writer)
    except QuelmdbError as error:
        if writer.touched:
            raise
        request.error = error


def _append(writer: Writer, requests: Sequence[Request[Any]]) -> None:
    appends = [(cast(Append, request.verb), request.now) for request in requests]
    for request, result in zip(requests, append_all(writer, appends), strict=True):
        request.result = result


def _is_append(request: Request[Any]) -> bool:
    return isinstance(request.verb, Append)
