"""Group commit: how the writes of a process get into `transactions`.

Who finds nobody else writing writes by itself. All others put a request into the queue,
and a thread, the committer, takes whatever has come into one transaction: they share
its commit, which in a full store is two waits for the disk. The thread ends when there
is nothing to do for a while, and is started again.

A request whose verb raises fails alone. Where it had changed something by then, or the
transaction itself fails, all is undone, and each request gets a transaction of its own.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from functools import partial
from queue import Empty, SimpleQueue
from threading import get_ident
from typing import Any, Final, TypeVar

from quelmdb.engine_errors import is_foreign
from quelmdb.environment import Environment
from quelmdb.errors import QuelmdbError, StoreError
from quelmdb.gate import Gate
from quelmdb.owners import Owners
from quelmdb.requests import Request, Unreceived, Verb, WaitingRequest
from quelmdb.transactions import Transactions
from quelmdb.wakeup import Wakeup

T = TypeVar("T")

log = logging.getLogger("quelmdb")

_IDLE_SECONDS: Final = 0.5
_PAUSE_SECONDS: Final = 1.0
_MOST: Final = 4096  # requests a transaction


class Committer:
    """The writes of all threads of this process to one store."""

    def __init__(
        self,
        environment: Environment,
        owners: Owners,
        gate: Gate,
        wakeup: Wakeup,
        next_generation: Callable[[], Environment],
    ) -> None:
        """`gate`: where this process stands in line with others. The rest as `Transactions`."""
        self._transactions = Transactions(
            environment, owners, wakeup, next_generation, self._raise_if_gone
        )
        self.listeners = self._transactions.listeners
        # None where nobody writes: its file is open for reading only, or closed.
        self._gate = None if environment.readonly else gate
        self._leave: Callable[[], object] = gate.leave
        self._requests: SimpleQueue[Request[Any] | None] = SimpleQueue()
        # Those whose transaction has not begun: the committer may have taken one out of the
        # queue already, and the thread that submitted it must not overtake it.
        self._unserved: set[Request[Any]] = set()
        self._turn = threading.RLock()  # of the thread that writes
        self._busy = 0  # that thread; a hint: whoever trusts it wrongly waits a little longer
        self._paused: set[int] = set()  # the threads that are about to fork
        self._committer = 0  # the thread of that name, 0 where there is none
        self._starting = threading.RLock()
        self._gone: Callable[[], StoreError] | None = None

    # --- For the threads that write -----------------------------------------

    def run(
        self,
        verb: Verb[T],
        now: int,
        timeout: float | None,
        unreceived: Unreceived[T] | None = None,
    ) -> T:
        """What `verb` returns, committed.

        Where it is interrupted behind the commit, `unreceived` gets the result. Raises
        what the verb raises, and `StoreBusyError` where it has to wait for others
        longer than `timeout` seconds (None: as long as it takes).
        """
        me = get_ident()
        busy = self._busy
        # A signal handler must not wait for the write that it has interrupted, nor what
        # the committer calls for itself.
        own = busy == me or self._committer == me
        if own or not (busy or self._unserved):
            outcome: list[T] = []
            try:
                with self._turn:
                    # A write within one of this thread stands where that one does.
                    gate = None if busy == me else self._needed_gate()
                    self._busy = me
                    try:
                        if gate is None or gate.try_enter() or (own and gate.enter()):
                            self._transactions.alone(verb, now, outcome)
                    finally:  # without a place for interrupts up to the end of `leave`
                        self._busy = busy if busy == me else 0
                        if gate is not None:
                            self._leave()
                if outcome:
                    self.listeners.tell()
                    return outcome[0]
            except BaseException as error:
                if outcome and unreceived is not None:
                    unreceived(outcome[0])
                if isinstance(error, ValueError) and not isinstance(error, QuelmdbError):
                    self._raise_if_gone()  # a signal handler has closed the gate's file
                if is_foreign(error):  # of the gate
                    raise self._transactions.environment.error_for(error) from error
                raise
        request = WaitingRequest(verb, now, unreceived)
        try:
            self.submit(request)
            return request.wait(timeout)
        except BaseException:
            request.withdraw()
            raise

    def submit(self, request: Request[Any]) -> None:
        """Has a request committed, and delivered, by the committer."""
        self._raise_if_gone()
        self._transactions.environment.raise_if_readonly()
        try:
            self._unserved.add(request)
            self._requests.put(request)
            if not self._committer:
                self._start()
        except BaseException as error:
            self._unserved.discard(request)  # it may not be in the queue
            request.withdraw()
            if isinstance(error, RuntimeError):
                where = str(self._transactions.environment.directory.parent)
                raise StoreError(
                    f"{where}: a thread for the write could not be started; nothing was changed; "
                    f"end some threads, or raise their limit (ulimit -u) ({error})",
                    path=where,
                ) from error
            raise
        if self._gone is not None and request.take():  # closed meanwhile: nobody else takes it
            raise self._gone()

    def finish(self) -> None:
        """Waits until all is committed that was submitted before; within a write of this
        thread, or a callback of the committer, which would wait for themselves, it does not."""
        if self._gone is not None or get_ident() in (self._busy, self._committer):
            return
        if self._committer or self._unserved:
            request = WaitingRequest(_nothing, 0)
            self.submit(request)
            with suppress(StoreError):  # of the transaction: those before it were told theirs
                request.wait(None)

    def close(self, gone: Callable[[], StoreError]) -> None:
        """Finishes what was submitted before. Every later use raises `gone()`."""
        self.finish()
        self._gone = gone
        with self._turn:  # whoever comes to it now sees that it is closed
            self._gate, self._leave = None, _nothing
            late: list[Request[Any]] = []
            self._take_waiting(None, late)
            self._requests.put(None)  # ends the thread
        for request in late:
            request.error = gone()
            _deliver(request)

    def pause(self) -> None:
        """Before a fork: lets a transaction of another thread end. Its stack goes into the
        child, where nobody ends it, and keeps the store from being opened again there."""
        if self._turn.acquire(timeout=_PAUSE_SECONDS):
            self._paused.add(get_ident())

    def resume(self) -> None:
        """After a fork, in the parent."""
        if get_ident() in self._paused:
            self._paused.remove(get_ident())
            self._turn.release()

    def forget(self, gone: Callable[[], StoreError]) -> None:
        """In the child of a fork: its threads and locks are the parent's."""
        self._gone = gone
        self._gate, self._leave = None, _nothing
        self._turn = threading.RLock()
        self._starting = threading.RLock()
        self._busy = self._committer = 0
        self._paused = set()
        self._requests = SimpleQueue()
        self._unserved = set()
        self._transactions.forget()
        self.listeners = self._transactions.listeners

    def _raise_if_gone(self) -> None:
        if self._gone is not None:
            raise self._gone()

    def _needed_gate(self) -> Gate | None:
        gate = self._gate
        return gate if gate is not None and gate.is_needed() else None

    def _enter(self) -> None:
        """Waits for this process's turn. `_leave` is harmless where there was no need to."""
        if (gate := self._needed_gate()) is not None:
            gate.enter()

    # --- Generations --------------------------------------------------------

    def move_on(self, environment: Environment) -> None:
        """Opens the next generation, unless that was done: `environment` is superseded."""
        with self._turn:
            try:
                if self._gone is None and self._transactions.environment is environment:
                    self._enter()
                    self._transactions.use_next()
            finally:
                self._leave()

    def exclusively(
        self, verb: Verb[T], now: int, within: Callable[[], AbstractContextManager[object]]
    ) -> T:
        """What `verb` returns, committed in a transaction that it shares with no other, for long:
        also who writes alone is at the gate, where those who open the store can wait. `within` is
        entered at the gate, before the transaction."""
        outcome: list[T] = []
        with self._turn:
            self._busy = get_ident()
            try:
                if self._gate is not None:
                    self._gate.enter()
                with within():
                    self._transactions.once(verb, now, outcome)
            finally:
                self._busy = 0
                self._leave()
        return outcome[0]

    # --- The committer ------------------------------------------------------

    def _start(self) -> None:
        with self._starting:
            if not self._committer:
                ready = threading.Event()
                ran: list[None] = []
                # A daemon, since it may be waiting for a process that is stopped.
                threading.Thread(
                    target=self._work, args=(ready, ran), name="quelmdb-committer", daemon=True
                ).start()
                ready.wait()
                if not ran:
                    raise RuntimeError("it has ended at once")

    def _work(self, ready: threading.Event, ran: list[None]) -> None:
        try:
            me = self._committer = get_ident()
            ran.append(None)
        finally:
            ready.set()
        while True:
            try:
                first = self._requests.get(timeout=_IDLE_SECONDS)
            except Empty:
                self._committer = 0
                if self._requests.empty() or self._committer:
                    return
                self._committer = me  # something was put before this was seen to end
                continue
            except MemoryError:  # who waits is still in the queue
                continue
            if first is not None:
                self._serve(first)
            elif self._gone is not None:
                self._committer = 0
                return

    def _serve(self, first: Request[Any]) -> None:
        """Commits and delivers what waits."""
        taken: list[Request[Any]] = []
        try:
            self._commit_waiting(first, taken)
        except BaseException as error:  # memory has ended: the thread goes on
            if first not in taken and self._take(first):
                taken.append(first)
            for request in taken:  # of some it may not be true
                request.error = request.error or error
        for request in taken:
            _deliver(request)
        try:
            self.listeners.tell()
        except BaseException:  # of a hook; this thread goes on
            log.exception("a hook has raised")

    def _commit_waiting(self, first: Request[Any], taken: list[Request[Any]]) -> None:
        """Commits what waits, and puts it into `taken`, each with what became of it."""
        with self._turn:
            self._busy = get_ident()
            try:
                self._enter()
                try:
                    self._transactions.together(partial(self._take_waiting, first), taken)
                except BaseException:  # told to each whom it concerns
                    if not taken:
                        self._take_waiting(first, taken)
                    for request in taken:
                        self._separately(request)
            except OSError as error:  # of the gate
                self._take_waiting(first, taken)
                for request in taken:
                    request.error = self._transactions.environment.error_for(error)
            finally:
                self._busy = 0
                self._leave()

    def _separately(self, request: Request[Any]) -> None:
        outcome: list[Any] = []
        request.error = None
        try:
            self._transactions.alone(request.verb, request.now, outcome)
            request.result = outcome[0]
        except BaseException as error:
            request.error = error

    def _take_waiting(self, first: Request[Any] | None, taken: list[Request[Any]]) -> None:
        """Puts into `taken` what waits and is not withdrawn, `first` before all; at most what a
        transaction is to have."""
        request = first
        with suppress(Empty):
            while True:
                if request is not None:
                    taken.append(request)  # first: there may be no memory for it
                    if not self._take(request):
                        taken.pop()
                if len(taken) == _MOST:
                    return
                request = self._requests.get_nowait()

    def _take(self, request: Request[Any]) -> bool:
        self._unserved.discard(request)
        try:
            return request.take()
        except MemoryError as error:  # it can be taken once
            request.error = error
            _deliver(request)
            return False


def _deliver(request: Request[Any]) -> None:
    try:
        request.deliver()
    except BaseException:  # a callback's too: the others are to be told, and the thread goes on
        log.exception("what became of a write could not be delivered")


def _nothing(*ignored: object) -> None:
    """Of a committer that is closed; and a verb that waits for others alone."""
