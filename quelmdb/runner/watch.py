"""What the main thread of a process sleeps on: a time that others bring forward."""

from __future__ import annotations

import os
import select
import time
from contextlib import suppress
from typing import Final

_NEVER: Final = float("inf")


class Watch:
    """The next time at which there is something to look after. `by` is for any thread, and
    for handlers of signals; all else is for the one that sleeps."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)
        self._poll = select.poll()
        self._poll.register(self._read, select.POLLIN)
        self._next = _NEVER

    def by(self, when: float) -> None:
        """Has the sleeper look around at `when` (monotonic) at the latest. Costs nothing
        where it will anyway."""
        if when < self._next:
            self._next = when
            self.wake()

    def wake(self) -> None:
        with suppress(OSError):  # full: it is awake; closed: it is all over
            os.write(self._write, b".")

    def also(self, descriptor: int) -> None:
        """Wakes up, too, where there is something to read from it."""
        self._poll.register(descriptor, select.POLLIN)

    def without(self, descriptor: int) -> None:
        """Ends `also`."""
        self._poll.unregister(descriptor)

    def fileno(self) -> int:
        """Can be read when it is woken: for those who sleep on more than this."""
        return self._read

    def clear(self) -> None:
        """Forgets that it was woken."""
        with suppress(BlockingIOError):
            os.read(self._read, 4096)

    def begin(self) -> None:
        """To be called before looking around: what is asked for from now on is not missed."""
        self._next = _NEVER

    def sleep(self, until: float) -> set[int]:
        """Sleeps until then, or until what `by` was told, or until it is woken. Returns the
        descriptors of `also` that can be read."""
        self._next = until = min(until, self._next)
        seconds = until - time.monotonic()
        wait = None if until == _NEVER else max(0, int(seconds * 1000) + 1) if seconds > 0 else 0
        ready = {descriptor for descriptor, _ in self._poll.poll(wait)}
        if self._read in ready:
            ready.discard(self._read)
            self.clear()
        return ready

    def close(self) -> None:
        """Threads may be left that wake it: what they write to must not become another file."""
        read, write, self._read, self._write = self._read, self._write, -1, -1
        os.close(read)
        os.close(write)
