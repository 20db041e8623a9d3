"""Those who listen to what becomes of jobs, and what they have yet to be told."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from queue import Empty, SimpleQueue

from quelmdb.events import Event, Hook

log = logging.getLogger("quelmdb")


class Listeners:
    """Of one store in this process. Any thread may use it."""

    def __init__(self) -> None:
        self.hooks: list[Hook] = []
        self._events: SimpleQueue[Event] = SimpleQueue()  # committed, and not told yet

    def listen(self, hook: Hook) -> Callable[[], None]:
        """As `JobStore.listen`. The same hook may listen twice."""
        listener = [hook]

        def end() -> None:
            if listener:
                self.hooks.remove(listener.pop())

        self.hooks.append(hook)
        return end

    def note(self, events: Iterable[Event]) -> None:
        """Takes what was committed, to be told when its transaction is over."""
        for event in events:
            self._events.put(event)

    def tell(self) -> None:
        """Tells all that was noted, outside of transactions: hooks are code of the caller."""
        while not self._events.empty():
            try:
                event = self._events.get_nowait()
            except Empty:
                return
            for hook in list(self.hooks):
                try:
                    hook(event)
                except Exception:
                    log.exception("a hook has raised, which was told that a job is %s", event.kind)
