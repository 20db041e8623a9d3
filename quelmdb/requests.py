"""Writes that are on their way to the committer, and who is told what became of them."""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final, Generic, TypeVar

from quelmdb.errors import StoreBusyError
from quelmdb.writer import Writer

T = TypeVar("T")

Verb = Callable[[Writer], T]
"""What is left of a write when its input is checked and encoded."""

Unreceived = Callable[[T], None]
"""Is given what was committed for a caller who was gone by then, outside of transactions."""

log = logging.getLogger("quelmdb")

_PATIENCE: Final = 10.0  # seconds of waiting, after which a log tells of it


class Request(ABC, Generic[T]):
    """A write, and what became of it: `error`, or else `result`."""

    __slots__ = ("_received", "_started", "error", "now", "result", "unreceived", "verb")

    result: T

    def __init__(self, verb: Verb[T], now: int, unreceived: Unreceived[T] | None = None) -> None:
        self.verb = verb
        self.now = now
        """The time that it writes, microseconds since 1970."""
        self.unreceived = unreceived
        self.error: BaseException | None = None
        # Who pops the item decides, in one step without a lock: the committer that it is
        # taken, or who withdraws it that it is not; and likewise at its end.
        self._started: list[None] = [None]
        self._received: list[None] = [None]

    def take(self) -> bool:
        """Asked by the committer once its transaction has begun. False: it was withdrawn, or
        is taken already."""
        return is_first(self._started)

    def deliver(self) -> None:
        """Called by the committer, if it was taken, when it is known what became of it."""
        if is_first(self._received):
            self._tell()
        else:
            self.give_back()

    def withdraw(self) -> None:
        """Called where there is nobody any more who waits for it. If it was not begun it does
        not happen; else what it has returned, or will, is given back."""
        if not is_first(self._started) and not is_first(self._received):
            self.give_back()

    def give_back(self) -> None:
        """There is nobody any more to whom it could be delivered."""
        if self.error is None and self.unreceived is not None:
            self.unreceived(self.result)

    @abstractmethod
    def _tell(self) -> None:
        """Tells who waits for it."""


class WaitingRequest(Request[T]):
    """Of a thread that waits for it."""

    __slots__ = ("_delivered",)

    def __init__(self, verb: Verb[T], now: int, unreceived: Unreceived[T] | None = None) -> None:
        super().__init__(verb, now, unreceived)
        self._delivered = threading.Lock()
        self._delivered.acquire()

    def wait(self, timeout: float | None) -> T:
        """What became of it. Raises `StoreBusyError` where it was not begun in `timeout`
        seconds. Where it raises, or is interrupted, the request is to be withdrawn."""
        begun = time.monotonic()
        waited = 0.0
        while not self._delivered.acquire(timeout=_next_wait(timeout, waited)):
            waited = time.monotonic() - begun
            if timeout is not None and waited >= timeout and is_first(self._started):
                raise StoreBusyError(
                    f"the store could not be written to for {waited:.1f} s: another "
                    "process, or a long write of this one, holds it; nothing was changed; "
                    "is that process stopped? else allow more time (write_timeout)",
                    expected=timeout,
                    found=waited,
                )
            if waited >= _PATIENCE:
                log.warning(
                    "waiting to write for %.0f s: is another process writing, or stopped?",
                    waited,
                )
        if self.error is not None:
            raise self.error
        return self.result

    def _tell(self) -> None:
        self._delivered.release()


class FutureRequest(Request[T]):
    """Of somebody who has a future of it."""

    __slots__ = ("future",)

    def __init__(self, verb: Verb[T], now: int, unreceived: Unreceived[T] | None = None) -> None:
        super().__init__(verb, now, unreceived)
        self.future: Future[T] = Future()

    def take(self) -> bool:
        try:
            return super().take() and self.future.set_running_or_notify_cancel()
        except RuntimeError:  # who has it has ended it by himself, which is none of our business
            return False

    def _tell(self) -> None:
        if self.error is None:
            self.future.set_result(self.result)
        else:
            self.future.set_exception(self.error)


def is_first(token: list[None]) -> bool:
    """Pops the item; whether nobody else had done so. One step: no lock is needed."""
    try:
        token.pop()
    except IndexError:
        return False
    return True


def _next_wait(timeout: float | None, waited: float) -> float:
    if timeout is None or waited >= timeout:
        return _PATIENCE
    return min(_PATIENCE, timeout - waited)
