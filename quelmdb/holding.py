"""Since when snapshots are held, told to other processes: LMDB's table of readers has no times.

Who takes a snapshot opens a file in memory (memfd_create(2), Linux) whose name says which
one it is. Others find it among the process's descriptors in /proc, with the time at which
it was made; it is gone when the process is, however that ended, and nothing is written to
the store. Where it cannot be had, or looked at (another user's process), nobody knows.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from typing import Final

from quelmdb.values import time_of

_PREFIX: Final = "/memfd:"  # of what a descriptor of it is a link to
_SUFFIX: Final = " (deleted)"


class Held:
    """Tells that this thread holds a snapshot, until it is closed. 10 us, and a descriptor."""

    def __init__(self, data_file: os.stat_result, transaction: int) -> None:
        self._descriptor: int | None = None
        if hasattr(os, "memfd_create"):
            name = _name(data_file, os.getpid(), f"{threading.get_ident():x}", transaction)
            with suppress(OSError):  # no descriptor left: the snapshot is worth more
                self._descriptor = os.memfd_create(name, os.MFD_CLOEXEC)

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def held_since(
    data_file: os.stat_result, pid: int, thread: str, transaction: int
) -> datetime | None:
    """When a thread (its number in LMDB's table, hexadecimal) took its snapshot of that
    transaction; None where it has none, or nobody knows. O(descriptors of the process)."""
    wanted = _PREFIX + _name(data_file, pid, thread, transaction) + _SUFFIX
    made = [when for target, when in _descriptors(pid) if target == wanted]
    return time_of(min(made) // 1000) if made else None


def _name(data_file: os.stat_result, pid: int, thread: str, transaction: int) -> str:
    """A child of a fork has its parent's descriptors: hence the process."""
    file = f"{data_file.st_dev:x}:{data_file.st_ino:x}"
    return f"quelmdb {file} {pid} {thread} {transaction}"


def _descriptors(pid: int) -> Iterator[tuple[str, int]]:
    """What each is a link to, and when that was changed last, in nanoseconds since 1970."""
    with suppress(OSError):  # the process has ended, or is another user's
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with suppress(OSError):  # closed meanwhile
                target = os.readlink(entry.path)
                if target.startswith(_PREFIX):
                    yield target, os.stat(entry.path).st_mtime_ns
