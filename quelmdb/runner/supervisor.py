"""Running workers: in this process (`work`), or in several that are looked after (`run`)."""

from __future__ import annotations

import logging
import multiprocessing
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, Final

import quelmdb.store
from quelmdb.errors import QuelmdbError
from quelmdb.persistence import JobStore
from quelmdb.runner.backoff import exponential
from quelmdb.runner.finishing import Counts
from quelmdb.runner.process import Process
from quelmdb.runner.report import Summaries, log_to_stderr
from quelmdb.runner.targets import Target, load, reference
from quelmdb.runner.watch import Watch
from quelmdb.runner.workers import define

log = logging.getLogger("quelmdb.runner")

DONE: Final = 0
CUT_SHORT: Final = 1  # stopped at once, or given up
EARLY: Final = 75  # ended in order, though there may be more to do

SWITCH_SECONDS: Final = 0.0001
"""Python's switch interval in the processes. With the usual 5 ms a transaction beside a
thread that computes takes seconds (measured: 100 jobs claimed in 2 s, in 10 ms with this),
and has the store's only write lock for as long."""
MOST_FALSE_STARTS: Final = 5
_RESTART: Final = exponential(first=0.1, factor=2.0, limit=3.0, jitter=0.2)
_LAST_WORDS: Final = 5.0  # seconds that a process has to give back what it holds
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)

_STOP, _NOW = "stop", "now"  # to a process
_READY, _COUNTS, _RETIRING, _OVER = "ready", "counts", "retiring", "over"  # from it


def work(
    store: JobStore, targets: Iterable[Target], *, threads: int = 1, until_empty: bool = True
) -> Counts:
    """Runs workers on an open store in this process, and returns what came of the jobs.

    For tests and small programs; `run` does more. With `until_empty` it ends when no job
    of these workers is scheduled, queued or started any more, but of those that are
    paused. Ctrl-C ends it when the running jobs have ended, and is raised then; a second
    one gives them back at once. A thread that cannot be stopped goes on behind it. Raises
    `TargetError`.
    """
    process = Process(
        store, [define(one) for one in load(targets)], threads=threads, until_empty=until_empty
    )
    interrupted = False
    process.start()
    try:
        while not process.is_over():
            try:
                process.look_around()
            except KeyboardInterrupt:
                if interrupted:
                    process.abandon()
                    raise
                interrupted = True
                process.stop()
        process.finish()
    finally:
        process.watch.close()
    if interrupted:
        raise KeyboardInterrupt
    return process.counts


def run(
    store_path: str | os.PathLike[str],
    targets: Iterable[Target],
    *,
    processes: int = 1,
    threads: int = 1,
    until_empty: bool = False,
    log_level: int | str | None = None,
) -> int:
    """Runs workers in `processes` processes, each with `threads` threads for plain jobs and
    an event loop for async ones; returns 0 where it ended in order, else 1.

    A process that dies is replaced, and what it held is claimed again by the others. A job
    that has died with three processes is failed. SIGTERM and SIGINT stop it: nothing more
    is claimed, what is not begun goes back into the queue, and it returns when the running
    jobs have ended, however long that takes; a second signal gives these back, too, and
    stops at once. (Signals are heard where this is called in the main thread.) With
    `until_empty` it ends by itself, as `work` does. `log_level` sends the logs of all its
    processes to stderr.

    The processes are spawned and import what the targets name, so a script that calls this
    needs its ``if __name__ == "__main__":``. Raises `TargetError`, `ValueError` for numbers
    below 1, and what `quelmdb.open` raises where there is no store.
    """
    for name, number in (("processes", processes), ("threads", threads)):
        if type(number) is not int or number < 1:
            raise ValueError(f"{name} is 1 or more, not {number!r}")
    names = [reference(one) for one in load(targets)]
    quelmdb.store.open(store_path, create=False).close()
    if log_level is not None:
        log_to_stderr(log_level)
    order = (os.fspath(store_path), names, threads, until_empty, log_level)
    return _Supervisor(order, processes, until_empty).run()


class _Child:
    """A process, as its supervisor sees it."""

    def __init__(self, order: tuple[Any, ...]) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process: SpawnProcess = context.Process(
            target=_main, args=(theirs, *order), name="quelmdb-runner"
        )
        self.process.start()
        theirs.close()
        self.counts = Counts()
        self.is_ready = False
        self.is_leaving = False  # it has a successor already
        self.is_over = False  # it says so itself: a job that ends its process does not

    def hear(self) -> None:
        """Takes in what it has said."""
        with suppress(EOFError, OSError):
            while self.pipe.poll():
                kind, *values = self.pipe.recv()
                if kind == _READY:
                    self.is_ready = True
                elif kind == _COUNTS:
                    self.counts = Counts(*values)
                elif kind == _RETIRING:
                    self.is_leaving = True
                elif kind == _OVER:
                    self.is_over = True

    def say(self, what: str) -> None:
        with suppress(OSError):
            self.pipe.send(what)


class _Supervisor:
    """Starts the processes, replaces those that end before their time, and passes signals on."""

    def __init__(self, order: tuple[Any, ...], size: int, until_empty: bool) -> None:
        self._order = order
        self._size = size  # how many there are to be
        self._until_empty = until_empty
        self._watch = Watch()
        self._children: list[_Child] = []
        self._starts: list[float] = []  # when to start those that are missing
        self._signals = 0  # that have come
        self._heard = 0  # of these
        self._ended = Counts()  # of the processes that are gone
        self._crashes = 0  # in a row, of processes that had finished nothing
        self._false_starts = 0  # in a row
        self._kill_at = float("inf")
        self._code = DONE

    def run(self) -> int:
        summaries = Summaries()
        try:
            with self._signal_handlers():
                while self._children or self._size:
                    self._start_what_is_due()
                    self._sleep(summaries.next)
                    for child in list(self._children):
                        child.hear()
                        if not child.process.is_alive():
                            self._bury(child)
                    self._hear_signals()
                    summaries.tell(self._counts())
        finally:
            for child in self._children:
                child.process.kill()
                child.process.join()
            self._watch.close()
        summaries.end(self._counts())
        return self._code

    def _counts(self) -> Counts:
        return sum((child.counts for child in self._children), self._ended)

    def _start_what_is_due(self) -> None:
        now = time.monotonic()
        staying = sum(not child.is_leaving for child in self._children)
        self._starts += [now] * (self._size - staying - len(self._starts))
        for when in [when for when in self._starts if when <= now]:
            self._starts.remove(when)
            # Ctrl-C in a terminal goes to all its processes: the new one hears no signal
            # until it has said what they mean.
            before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
            try:
                self._children.append(_Child(self._order))
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _sleep(self, until: float) -> None:
        until = min(until, self._kill_at, *self._starts)
        things: list[Any] = [self._watch]
        for child in self._children:
            things.append(child.process.sentinel)
            if not child.pipe.closed:
                things.append(child.pipe)
        wait(things, timeout=max(0.0, until - time.monotonic()))
        self._watch.clear()

    def _bury(self, child: _Child) -> None:
        """Of a process that has ended: counts what it did, and sees to a successor."""
        child.process.join()
        child.hear()
        child.pipe.close()
        self._children.remove(child)
        self._ended = self._ended + child.counts
        code = child.process.exitcode or 0
        if code in (DONE, EARLY) and child.is_over:
            self._crashes = 0
            if code == DONE and self._until_empty and self._size:
                self._size -= 1  # nothing is left to do
            return
        reason = signal.strsignal(-code) if code < 0 else f"exit code {code}"
        log.warning("process %d died (%s); what it held is run again", child.process.pid, reason)
        self._false_starts = 0 if child.is_ready else self._false_starts + 1
        self._crashes = 1 if child.counts.total else self._crashes + 1
        if self._false_starts >= MOST_FALSE_STARTS:
            log.error("%d processes could not even start: giving up", self._false_starts)
            self._code = CUT_SHORT
            self._stop(_STOP)
        elif self._size and not child.is_leaving:
            self._starts.append(time.monotonic() + _RESTART(self._crashes))

    def _hear_signals(self) -> None:
        if time.monotonic() >= self._kill_at:
            for child in self._children:
                child.process.kill()
        while self._heard < self._signals:
            self._heard += 1
            if self._heard == 1:
                log.info("stopping: %d processes finish what they run", len(self._children))
                self._stop(_STOP)
            elif self._heard == 2:
                log.info("stopping at once: what is running goes back into the queue")
                self._code = CUT_SHORT
                self._kill_at = time.monotonic() + _LAST_WORDS
                self._stop(_NOW)
            else:
                self._kill_at = 0.0

    def _stop(self, how: str) -> None:
        self._size = 0
        self._starts.clear()
        for child in self._children:
            child.say(how)

    @contextmanager
    def _signal_handlers(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._on_signal) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: object) -> None:
        self._signals += 1
        self._watch.wake()


# --- In a process of the supervisor -------------------------------------------


def _main(
    pipe: Connection,
    store_path: str,
    names: Sequence[str],
    threads: int,
    until_empty: bool,
    log_level: int | str | None,
) -> None:
    asked = 0
    process: Process | None = None

    def on_signal(number: int, frame: object) -> None:
        nonlocal asked
        asked += 1
        if process is not None:
            process.watch.wake()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the supervisor hears it, and tells us
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    sys.setswitchinterval(SWITCH_SECONDS)
    if log_level is not None:
        log_to_stderr(log_level)

    def tell(*what: Any) -> None:
        # A supervisor that is stopped must not stop us.
        with suppress(OSError):
            if _can_write(pipe):
                pipe.send(what)

    try:
        definitions = [define(one) for one in load(names)]
        store = quelmdb.store.open(store_path, create=False)
    except QuelmdbError as error:
        log.error("%s", error)
        sys.exit(2)
    with store:
        process = Process(
            store,
            definitions,
            threads=threads,
            until_empty=until_empty,
            tell=lambda counts: tell(_COUNTS, *counts.as_tuple()),
            retiring=lambda: tell(_RETIRING),
        )
        process.watch.also(pipe.fileno())
        process.start()
        tell(_READY)
        in_order = _until_over(process, pipe, lambda: asked)
        code = DONE
        if not in_order:
            code = CUT_SHORT
        elif process.is_retiring or asked:
            code = EARLY
        if process.is_retiring or not in_order:  # threads are left, and are not waited for
            logging.shutdown()
            if not process.is_retiring:
                store.close()
            tell(_OVER)
            os._exit(code)
    tell(_OVER)
    sys.exit(code)


def _until_over(process: Process, pipe: Connection, asked: Callable[[], int]) -> bool:
    """Runs a process until all is over; False where it is to end at once."""
    orders = 0  # of the supervisor, which repeats none
    is_heard = True
    while not process.is_over():
        if pipe.fileno() in process.look_around() and is_heard:
            try:
                orders = 2 if pipe.recv() == _NOW else max(orders, 1)
            except (EOFError, OSError):  # the supervisor is gone
                orders = max(orders, 1)
                is_heard = False
                process.watch.without(pipe.fileno())
        if max(asked(), orders) >= 2:
            process.abandon()
            return False
        if asked() or orders:
            process.stop()
    return process.finish()


def _can_write(pipe: Connection) -> bool:
    poll = select.poll()
    poll.register(pipe.fileno(), select.POLLOUT)
    return bool(poll.poll(0))
