"""Which processes are alive: a number for each that claims, and a lock that dies with it.

An owner holds an exclusive lock on the byte of its number in the lock file
(`lockfile`), which the kernel drops however the process ends. (LMDB tells live
readers in the same way.)
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from quelmdb.boot import boot_id
from quelmdb.engine import Databases, Transaction, put_new
from quelmdb.layout import pack_number, pack_owner, unpack_number, unpack_owner
from quelmdb.lockfile import LockFile
from quelmdb.values import MAX_OWNER


class Owner(NamedTuple):
    """A process that claimed, and whether it lives."""

    number: int
    pid: int
    alive: bool


class Owners:
    """This process's place among the owners of a store."""

    def __init__(self, locks: LockFile) -> None:
        self._locks = locks
        self._own: int | None = None

    @property
    def own(self) -> int | None:
        """This process's number, None before its first claim."""
        return self._own

    def hold(self, number: int) -> None:
        """Takes the lock of a number, before the commit that registers it. 1 us."""
        self._locks.lock(number)
        self._own = number

    def let_go(self, number: int) -> None:
        """Undoes `hold`, where the registering transaction did not commit."""
        self._locks.unlock(number)
        self._own = None

    def is_alive(self, number: int) -> bool:
        """Whether the process with that number lives. 1 us."""
        if number == self._own:
            return True  # a process cannot see its own lock, and would drop it below
        # Shared: it fails only where the owner holds its byte, and two processes that
        # look at the same time do not take each other for the owner.
        if not self._locks.try_lock(number, shared=True):
            return True
        self._locks.unlock(number)
        return False

    def end(self) -> None:
        """Ends ownership; the lock goes with its file."""
        self._own = None


def register(transaction: Transaction, databases: Databases, number: int) -> None:
    """Writes down who a number is, for people; its lock must be held."""
    value = pack_owner(os.getpid(), _started_at(), boot_id())
    put_new(transaction, databases.owners, pack_number(number), value)


def unregister(transaction: Transaction, databases: Databases, number: int) -> None:
    """Strikes out an owner that is dead and holds nothing."""
    transaction.delete(pack_number(number), db=databases.owners)


def registered(transaction: Transaction, databases: Databases) -> list[tuple[int, int]]:
    """Number and process id (0 where that is damaged) of every owner that is not struck out."""
    with transaction.cursor(databases.owners) as cursor:
        found = [(unpack_number(key), _pid(value)) for key, value in cursor]
    # Larger ones were given to nobody, and are no offset of a lock: `check` tells of them.
    return [(number, pid) for number, pid in found if number <= MAX_OWNER]


def _pid(value: bytes) -> int:
    try:
        return unpack_owner(value)[0]
    except ValueError:
        return 0  # it is for people alone, and `check` tells of it


def _started_at() -> int:
    """When this process started, in clock ticks after boot; 0 where it is not known."""
    try:
        stat = Path("/proc/self/stat").read_text()
    except OSError:
        return 0
    return int(stat.rpartition(")")[2].split()[19])  # proc(5): field 22
