"""How the committer, in its thread, tells an event loop what became of writes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from quelmdb.claiming import Claim
from quelmdb.job import Job
from quelmdb.requests import Request, Verb


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
