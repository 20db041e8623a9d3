"""Since when snapshots are held, told to other processes: LMDB's table of readers has no times.

Who takes a snapshot opens a file in memory (memfd_create(2), Linux) whose name says which
one it is. Others find it among the process's descriptors in /proc, with the time at which
it was made; it is gone when the process is, however that ended, and nothing is written to
the store. Where it cannot be had, or looked at (another user's process), nobody knows.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from datetime import datetime

from quelmdb.values import time_of


class Held:
    """Tells that this thread holds a snapshot, until it is closed or forgotten. 10 us, and a
    descriptor."""

    _descriptor: int | None = None  # also where an interrupt came before `__init__` began

    def __init__(self, data_file: os.stat_result, transaction: int) -> None:
        if hasattr(os, "memfd_create"):
            # With the process: a child of a fork has its parent's descriptors.
            name = f"{_file_name(data_file)} {os.getpid()} {threading.get_ident():x} {transaction}"
            with suppress(OSError):  # no descriptor left: the snapshot is worth more
                self._descriptor = os.memfd_create(name, os.MFD_CLOEXEC)

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __del__(self) -> None:
        self.close()


def held_by(pid: int, data_file: os.stat_result) -> dict[tuple[str, int], datetime]:
    """The snapshots of a data file that a process holds, by thread (its number in LMDB's table,
    hexadecimal) and transaction, with the time at which each was taken. Nothing where nobody
    knows. O(descriptors of the process)."""
    prefix = f"/memfd:{_file_name(data_file)} {pid} "
    found: dict[tuple[str, int], datetime] = {}
    with suppress(OSError):  # the process has ended, or is another user's
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with suppress(OSError):  # closed meanwhile
                target = os.readlink(entry.path)
                if target.startswith(prefix):
                    thread, transaction, _ = target.removeprefix(prefix).split(" ", 2)
                    made = time_of(os.stat(entry.path).st_mtime_ns // 1000)
                    key = (thread, int(transaction))
                    found[key] = min(made, found.get(key, made))
    return found


def _file_name(data_file: os.stat_result) -> str:
    return f"quelmdb {data_file.st_dev:x}:{data_file.st_ino:x}"
