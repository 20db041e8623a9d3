"""The file whose bytes are locks between processes.

POSIX record locks: the kernel drops them when a process ends, however it ends. They
belong to the pair of process and file, and *any* close of the file by the process drops
them all: the file is opened once a process and store, and nothing else ever opens it.
They are not inherited by fork, and threads of a process do not exclude each other by them.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

_HELD: Final = (errno.EACCES, errno.EAGAIN)
_PAUSE_SECONDS: Final = 0.001


class LockFile:
    """The bytes of a file, as locks."""

    def __init__(self, path: Path, *, readonly: bool) -> None:
        flags = os.O_RDONLY if readonly else os.O_RDWR | os.O_CREAT
        self._descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)

    def lock(self, byte: int, *, shared: bool = False) -> None:
        """Waits for a byte, and takes it. Taken again it changes nothing, or mends what a
        foreign close of the file has dropped. 1 us where it is free."""
        while True:
            try:
                fcntl.lockf(self._descriptor, _kind(shared), 1, byte)
                return
            except OSError as error:
                # The kernel takes the threads of a process for one: two processes that wait
                # for each other's locks of different stores look like a deadlock to it.
                if error.errno != errno.EDEADLK:
                    raise
                time.sleep(_PAUSE_SECONDS)

    def try_lock(self, byte: int, count: int = 1, *, shared: bool = False) -> bool:
        """Takes `count` bytes, beside others who share them too, or returns False where
        another process has one. 1 us."""
        try:
            fcntl.lockf(self._descriptor, _kind(shared) | fcntl.LOCK_NB, count, byte)
        except OSError as error:
            if error.errno in _HELD:
                return False
            raise
        return True

    def unlock(self, byte: int, count: int = 1) -> None:
        """Lets go of `count` bytes."""
        fcntl.lockf(self._descriptor, fcntl.LOCK_UN, count, byte)

    def unlocking(self, byte: int, count: int) -> Callable[[], object]:
        """What lets go of `count` bytes from `byte` on: one step, in which no exception of
        a signal handler has a place."""
        return partial(fcntl.lockf, self._descriptor, fcntl.LOCK_UN, count, byte)

    def close(self) -> None:
        """Drops every lock of this process on the file."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def _kind(shared: bool) -> int:
    return fcntl.LOCK_SH if shared else fcntl.LOCK_EX
