"""Where the processes that want to write to a store stand in line.

LMDB's own lock for writers cannot be waited for with a timeout, no signal is heard by
who waits for it, and it goes to whoever comes first: a process that writes one transaction
after the other keeps it from all others. Whoever passes this gate first finds that lock
free. Two bytes of the lock file: who writes holds the one; who is next holds the other,
and so cannot be overtaken by the one who has just written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from quelmdb.layout import WRITER_BYTE
from quelmdb.lockfile import LockFile

_NEXT_BYTE: Final = WRITER_BYTE + 1


class Gate:
    """This process's place in the line. One thread at a time uses it."""

    def __init__(self, locks: LockFile) -> None:
        self._locks = locks
        self.leave: Callable[[], object] = locks.unlocking(WRITER_BYTE, 2)
        """Lets the next one in; harmless where it was not entered."""

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
