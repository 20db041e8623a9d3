"""Group commit in tests: who holds it up, who asks at the same time, who is interrupted."""

from __future__ import annotations

import gc
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest

import quelmdb

THREADS = 16


@contextmanager
def held(store: quelmdb.Store) -> Iterator[threading.Event]:
    """Somebody else writes, to the end of the block or until the event is set: what is
    asked for meanwhile has to wait."""
    committer = store._committer
    taken, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        with committer._turn:
            committer._busy = threading.get_ident()
            taken.set()
            let_go.wait()
            committer._busy = 0

    with ThreadPoolExecutor(1) as pool:
        holding = pool.submit(hold)
        taken.wait()
        try:
            yield let_go
        finally:
            let_go.set()
            holding.result()


def wait_for(condition: Callable[[], object]) -> None:
    while not condition():
        time.sleep(0.001)


@pytest.fixture
def transactions(store: quelmdb.Store, monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """One item for each write transaction that was begun."""
    begun: list[None] = []
    begin_write = store._opened.environment.begin_write

    def count() -> Any:
        begun.append(None)
        return begin_write()

    monkeypatch.setattr(store._opened.environment, "begin_write", count)
    return begun


def at_once(store: quelmdb.Store, calls: list[Callable[[], Any]]) -> list[Future[Any]]:
    """The calls, made by threads of their own while somebody else writes."""
    pool = ThreadPoolExecutor(len(calls))
    with pool, held(store):
        waiting = store._committer._requests
        futures = [pool.submit(call) for call in calls]
        wait_for(lambda: waiting.qsize() >= len(calls) - 1)  # the committer has the first
    return futures


@contextmanager
def alarm(
    seconds: float, handler: signal._HANDLER | None = None, *, again: bool = False
) -> Iterator[None]:
    """Has `handler` called after so many seconds, and again and again; else a
    KeyboardInterrupt."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, handler or interrupt)
    # Other tests leave callbacks of the collector behind, in which an exception is ignored.
    gc.disable()
    signal.setitimer(signal.ITIMER_REAL, seconds, seconds if again else 0)
    try:
        yield
    finally:
        try:
            signal.setitimer(signal.ITIMER_REAL, 0)
        finally:  # one may have come before that
            gc.enable()
            signal.signal(signal.SIGALRM, before)
