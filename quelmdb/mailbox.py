"""How other threads tell an event loop: the committer what became of writes, and another one
that there may be something to claim."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from quelmdb.claiming import Claim
from quelmdb.job import Job
from quelmdb.requests import Request, Verb
from quelmdb.wakeup import Wakeup

_LOOK_SECONDS: Final = 1.0  # after which the thread looks whether anybody waits still


class Mailbox:
    """Where the committer leaves what an event loop is to be told: one call a transaction."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._answered: deque[AwaitedRequest] = deque()
        self._called = False

    def put(self, request: AwaitedRequest) -> None:
        """In the committer."""
        self._answered.append(request)
        if self.loop.is_closed():
            self.return_all()
        elif not self._called:
            self._called = True  # first: `open` may be done before the call returns
            try:
                self.loop.call_soon_threadsafe(_Call(self))
            except RuntimeError:  # closed meanwhile
                self.return_all()

    def open(self) -> None:
        """In the event loop."""
        self._called = False  # first: what is put from here on calls again
        answered = self._answered
        while answered:
            answered.popleft().answer()

    def return_all(self) -> None:
        """Where nobody will ever be told."""
        while self._answered:
            self._answered.popleft().give_back()


class _Call:
    """Has a mailbox opened by its loop. One that is closed drops what it was to call."""

    __slots__ = ("_mailbox",)

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox

    def __call__(self) -> None:
        self._mailbox.open()

    def __del__(self) -> None:
        if self._mailbox.loop.is_closed():
            self._mailbox.return_all()


class Waiter:
    """Waits for wake-ups for all tasks of an event loop, in one thread, which lives while
    somebody waits. (The threads of asyncio are for others.)"""

    def __init__(self, loop: asyncio.AbstractEventLoop, wakeup: Wakeup) -> None:
        self._loop = loop
        self._wakeup = wakeup
        self._waiting: set[asyncio.Future[None]] = set()
        self._is_watched = False

    async def wait(self, seen: int, seconds: float) -> None:
        """As `Wakeup.wait`."""
        if self._wakeup.seen() != seen:
            return
        woken = self._loop.create_future()
        self._waiting.add(woken)
        timer = self._loop.call_later(seconds, _wake, woken)
        try:
            if not self._is_watched:
                self._is_watched = True
                self._start(seen)
            await woken
        except BaseException:  # cancelled, or the loop is closed
            if self._waiting == {woken}:
                self._wakeup.disturb()  # the thread has nobody to wait for
            raise
        finally:
            timer.cancel()
            self._waiting.discard(woken)

    def _start(self, seen: int) -> None:
        watcher = threading.Thread(
            target=self._watch, args=(seen,), name="quelmdb-waiter", daemon=True
        )
        try:
            watcher.start()
        except RuntimeError:  # no thread is to be had: who waits looks by himself, a bit later
            self._is_watched = False

    def _watch(self, seen: int) -> None:
        while self._waiting and self._wakeup.seen() == seen and not self._loop.is_closed():
            self._wakeup.wait(seen, _LOOK_SECONDS)
        with suppress(RuntimeError):  # closed meanwhile
            self._loop.call_soon_threadsafe(self._wake_all)

    def _wake_all(self) -> None:
        self._is_watched = False  # first: who waits from here on has it watched anew
        for woken in self._waiting:
            _wake(woken)


def _wake(woken: asyncio.Future[None]) -> None:
    if not woken.done():
        woken.set_result(None)


class AwaitedRequest(Request[Any]):
    """Of a task that awaits it."""

    __slots__ = ("_mailbox", "future")

    def __init__(
        self,
        mailbox: Mailbox,
        give_back: Callable[[list[Job]], None],
        verb: Verb[Any],
        now: int,
    ) -> None:
        super().__init__(verb, now, give_back if type(verb) is Claim else None)
        self._mailbox = mailbox
        self.future: asyncio.Future[Any] = asyncio.Future(loop=mailbox.loop)

    def take(self) -> bool:
        return not self.future.cancelled() and super().take()

    def _tell(self) -> None:
        self._mailbox.put(self)

    def answer(self) -> None:
        """Tells the task, in its event loop. Who has cancelled a claim withdraws it."""
        if self.future.done():
            return
        if self.error is None:
            self.future.set_result(self.result)
        else:
            self.future.set_exception(self.error)
