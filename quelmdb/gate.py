"""Where the processes that want to write to a store stand in line.

LMDB's own lock for writers cannot be waited for with a timeout, no signal is heard by
who waits for it, and it goes to whoever comes first: a process that writes one transaction
after the other keeps it from all others. And where three use it and one of them is killed,
others may sleep for ever: the kernel wakes one of those who wait, and if that one is killed
before it has the lock, and another has taken it in the meantime, nobody wakes the rest (a
robust futex has no remedy). Whoever passes this gate first finds that lock free, and there
are never three.

Two bytes of the lock file: who writes holds the one; who is next holds the other, and so
cannot be overtaken by the one who has just written.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from quelmdb.layout import WRITER_BYTE
from quelmdb.lockfile import LockFile

_NEXT_BYTE: Final = WRITER_BYTE + 1
_TRIES: Final = 20
_PAUSE_SECONDS: Final = 50e-6  # about what a transaction without a sync takes


class Gate:
    """This process's place in the line. One thread at a time uses it."""

    def __init__(self, locks: LockFile) -> None:
        self._locks = locks
        self.leave: Callable[[], object] = locks.unlocking(WRITER_BYTE, 2)
        """Lets the next one in; harmless where it was not entered."""

    def is_needed(self) -> bool:
        """Whether there may be others to stand in line with."""
        return True

    def try_enter(self) -> bool:
        """Enters where nobody writes or waits. 3 us, with `leave`."""
        if not self._locks.try_lock(_NEXT_BYTE):
            return False
        entered = self._locks.try_lock(WRITER_BYTE)
        self._locks.unlock(_NEXT_BYTE)
        return entered

    def enter(self) -> bool:
        """Waits for its turn, and returns True."""
        self._locks.lock(_NEXT_BYTE)
        self._locks.lock(WRITER_BYTE)
        self._locks.unlock(_NEXT_BYTE)
        return True


class LooseGate(Gate):
    """The gate of a store whose transactions are so short that to stand in line would take
    longer than they do: whoever comes first enters, and a process that writes alone passes by."""

    def __init__(self, locks: LockFile, has_company: Callable[[], bool]) -> None:
        super().__init__(locks)
        self.is_needed = has_company  # type: ignore[method-assign]
        self.leave = locks.unlocking(WRITER_BYTE, 1)

    def try_enter(self) -> bool:
        """Enters where nobody writes, or soon will not. 2 us, with `leave`."""
        for _ in range(_TRIES):
            if self._locks.try_lock(WRITER_BYTE):
                return True
            time.sleep(_PAUSE_SECONDS)
        return False

    def enter(self) -> bool:
        self._locks.lock(WRITER_BYTE)
        return True
