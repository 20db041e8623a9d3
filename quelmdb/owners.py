"""Which processes are alive: a number for each that claims, and a lock that dies with it.

An owner holds an exclusive OS record lock on the byte of its number in the owners
file. However a process ends, the kernel drops the lock. (LMDB tells live readers
in the same way.) POSIX record locks belong to the pair of process and file, and
*any* close of the file by the process drops them all: the file is opened once a
process and store, and nothing else ever opens it. They are not inherited by fork.
"""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from typing import Final, NamedTuple

from quelmdb.environment import Databases, Transaction, put_new
from quelmdb.job import MAX_OWNER
from quelmdb.layout import (
    MAINTENANCE_BYTE,
    pack_number,
    pack_owner,
    unpack_number,
    unpack_owner,
)

_HELD: Final = (errno.EACCES, errno.EAGAIN)


class Owner(NamedTuple):
    """A process that claimed, and whether it lives."""

    number: int
    pid: int
    alive: bool


class Owners:
    """This process's place among the owners of a store."""

    def __init__(self, path: Path, *, readonly: bool) -> None:
        flags = os.O_RDONLY if readonly else os.O_RDWR | os.O_CREAT
        self._descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
        self._own: int | None = None

    @property
    def own(self) -> int | None:
        """This process's number, None before its first claim."""
        return self._own

    def lock_maintenance(self) -> None:
        """Waits for, and takes, the lock under which a store is created. Held until
        `unlock_maintenance`, or the end of the process."""
        fcntl.lockf(self._descriptor, fcntl.LOCK_EX, 1, MAINTENANCE_BYTE)

    def unlock_maintenance(self) -> None:
        fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, MAINTENANCE_BYTE)

    def hold(self, number: int) -> None:
        """Takes the lock of a number, before the commit that registers it. Taken again
        it changes nothing, or mends what a foreign close of the file has dropped. 1 us."""
        fcntl.lockf(self._descriptor, fcntl.LOCK_EX, 1, number)
        self._own = number

    def let_go(self, number: int) -> None:
        """Undoes `hold`, where the registering transaction did not commit."""
        fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, number)
        self._own = None

    def is_alive(self, number: int) -> bool:
        """Whether the process with that number lives. 1 us."""
        if number == self._own:
            return True  # a process cannot see its own lock, and would drop it below
        try:
            # Shared: it fails only where the owner holds its byte, and two processes
            # that look at the same time do not take each other for the owner.
            fcntl.lockf(self._descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB, 1, number)
        except OSError as error:
            if error.errno in _HELD:
                return True
            raise
        fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, number)
        return False

    def close(self) -> None:
        """Ends ownership: every lock of this process on the file is dropped."""
        os.close(self._descriptor)
        self._own = None


def register(transaction: Transaction, databases: Databases, number: int) -> None:
    """Writes down who a number is, for people; its lock must be held."""
    value = pack_owner(os.getpid(), _started_at(), _boot_id())
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


def _boot_id() -> bytes:
    """Tells one run of the machine from the next; empty where it is not known."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_bytes().strip()
    except OSError:
        return b""


def _started_at() -> int:
    """When this process started, in clock ticks after boot; 0 where it is not known."""
    try:
        stat = Path("/proc/self/stat").read_text()
    except OSError:
        return 0
    return int(stat.rpartition(")")[2].split()[19])  # proc(5): field 22
