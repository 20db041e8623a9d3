"""What a store needs of the file system below it, and what it refuses."""

from __future__ import annotations

import errno
import math
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from quelmdb.errors import StoreFullError, UnsupportedFileSystemError

MOUNTS = Path("/proc/self/mountinfo")

# Types on which LMDB's shared memory map or its locks do not hold (lmdb.h, "Do not
# have open an LMDB database ... on a remote filesystem").
_NETWORK_TYPES: Final = frozenset(
    "nfs nfs4 cifs smb smb2 smb3 smbfs 9p afs ceph glusterfs lustre gfs gfs2 ocfs2 gpfs "
    "beegfs pvfs2 orangefs coda ncpfs davfs fuse.sshfs fuse.s3fs fuse.rclone fuse.glusterfs "
    "fuse.ceph-fuse fuse.gcsfuse fuse.davfs2 fuse.juicefs fuse.cephfs fuse.moosefs".split()
)

# Types that write to a new place what is in a file already: they cannot promise that there
# is one, however much of the file was allocated.
_COPY_ON_WRITE_TYPES: Final = frozenset("btrfs zfs bcachefs fuse.zfs nilfs2".split())

_NO_FALLOCATE: Final = frozenset((errno.EOPNOTSUPP, errno.EINVAL))  # not on every system
_NOT_THERE: Final = frozenset((errno.ENOENT, errno.ENOTDIR, errno.EBADF, errno.ELOOP))
_NO_SPACE: Final = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))

MIB: Final = 2**20

_GRANT: Final = 256  # the part of the reserve that is given out before the next look


def refuse_network_file_system(path: Path) -> None:
    """Raises `UnsupportedFileSystemError` where `path` lies on a network file system.

    Known on Linux alone: elsewhere there is no list of mounts, and nothing is refused.
    """
    kind = _file_system_type(path)
    if kind in _NETWORK_TYPES:
        raise UnsupportedFileSystemError(
            f"{path} is on {kind}, a network file system: its memory maps and locks do not hold "
            "between hosts; put the store on a local disk",
            path=str(path),
            found=kind,
        )


def refuse_copy_on_write(path: Path) -> None:
    """Raises `UnsupportedFileSystemError` where space in a file cannot be kept for it."""
    kind = _file_system_type(path)
    if kind in _COPY_ON_WRITE_TYPES:
        raise UnsupportedFileSystemError(
            f"{path} is on {kind}, which copies on write: it cannot promise the space that an "
            "ephemeral store has allocated, and a full disk would be the end of the process; "
            "put it on another file system (tmpfs, ext4, xfs), or make a full one",
            path=str(path),
            found=kind,
        )


def _file_system_type(path: Path) -> str | None:
    """The type of the innermost mount that holds `path` (proc(5), mountinfo)."""
    try:
        lines = MOUNTS.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return None
    place = os.path.realpath(path)
    found, longest = None, -1
    for line in lines:
        fields, _, behind = line.partition(" - ")
        point = _unescaped(fields.split(" ")[4])
        inside = place == point or place.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= longest:
            found, longest = behind.split(" ")[0], len(point)
    return found


def _unescaped(field: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(code, character)
    return field


def exists(path: Path) -> bool:
    """Whether there is such a file. Raises `OSError` where that cannot be told, of which
    `Path.exists` says, from Python 3.14 on, that there is none."""
    try:
        path.stat()
    except OSError as error:
        if error.errno in _NOT_THERE:
            return False
        raise
    except ValueError:  # no file has such a name
        return False
    return True


def sync_file(path: Path) -> None:
    """Makes the content of a file durable."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_directory(path: Path) -> None:
    """Makes the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def has_no_space(error: OSError) -> bool:
    """Whether the disk, a quota or a limit of size is used up."""
    return error.errno in _NO_SPACE


def is_full(path: Path) -> bool:
    """Whether the file system has no block left for this user, or the file at `path` is as
    large as this process may make one (`ulimit -f`), about."""
    limit = size_limit()
    if limit < math.inf and path.stat().st_size + MIB > limit:
        return True
    space = os.statvfs(path.parent)
    return space.f_bavail * space.f_frsize < MIB


def size_limit() -> float:
    """How large this process may make a file, in bytes (`ulimit -f`)."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    return math.inf if limit == resource.RLIM_INFINITY else limit


def allocate(descriptor: int, start: int, end: int) -> None:
    """Gives the bytes from `start` to `end` of a file their place on the disk. What is in
    the file stays; what is new is zeros. Raises `OSError`."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(descriptor, start, end - start)
            return
        except OSError as error:
            if error.errno not in _NO_FALLOCATE:
                raise
    for place in range(max(start, os.fstat(descriptor).st_size), end, MIB):
        os.pwrite(descriptor, bytes(min(MIB, end - place)), place)


def fill_holes(path: Path, size: int) -> None:
    """Allocates all of a file that others write to through a memory map, where a hole and
    a full disk are the end of the process (SIGBUS). A new one gets `size` bytes.

    Raises `OSError`. The file is not opened where it has no holes.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        status = None
    if status is None or status.st_blocks * 512 < (status.st_size or size):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            allocate(descriptor, 0, os.fstat(descriptor).st_size or size)
        finally:
            os.close(descriptor)


def allocate_all(path: Path, size: int) -> None:
    """Makes a file `size` bytes long, all of them allocated and durable. Raises `OSError`."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        allocate(descriptor, 0, size)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def allocate_reserve(path: Path) -> None:
    """Gives a file of which all is in use its reserve behind that. Raises `OSError`."""
    used = path.stat().st_size
    allocate_all(path, _whole(used + reserve(used)))


def reserve(used: int) -> int:
    """The bytes that are kept back for claims and completions in a file that uses
    `used` bytes: 1/32 of it, at least 4 MiB and at most 64 MiB."""
    return min(max(used // 32, 4 * MIB), 64 * MIB)


def _whole(size: int) -> int:
    """The next whole MiB."""
    return -(-size // MIB) * MIB


Measure = Callable[[], int]
"""Tells a number of bytes; to be asked only where it matters."""


class Room(Protocol):
    """The space that a store has. Inserts are let in while a reserve is left behind them,
    so that in a full store claims and completions, which need pages of their own for a
    while, still work. All calls are made under the write lock."""

    def ensure(self, growth: int, used: Measure, recyclable: Measure) -> int:
        """Sees to the room for `growth` bytes more, beside the reserve, in a file that is
        in use up to `used()`, where pages that hold nothing have `recyclable()` bytes.
        Returns how many bytes more may be used before it is asked again.

        Raises `StoreFullError` where there is none.
        """

    def full(self, reason: object) -> StoreFullError:
        """The error for a store without any room."""

    def close(self) -> None: ...


class GrowingRoom:
    """The room of a file that grows: its space is allocated ahead of its use."""

    def __init__(self, path: Path, used: int) -> None:
        """Of a file that is in use up to `used`."""
        self._path = path
        self._descriptor = os.open(path, os.O_RDWR)
        self._allocated = os.fstat(self._descriptor).st_size
        # A new file and a backup end with their last page. LMDB counts pages that it has taken and
        # freed in one transaction, without ever writing them: what is only deleted from then on
        # would leave a file that is shorter than it says.
        if self._allocated < used + reserve(used):
            self._allocate(used + reserve(used))

    def ensure(self, growth: int, used: Measure, recyclable: Measure) -> int:
        """Allocates what is needed. Where the disk is full, inserts are let in all the same
        while the file has as much that is unused, behind its used part or inside of it."""
        in_use = used()
        kept = reserve(in_use)
        needed = in_use + growth + kept
        if needed <= self._allocated:
            return 0
        self._allocated = os.fstat(self._descriptor).st_size  # others allocate, too
        if needed <= self._allocated:
            return 0
        if self._allocate(needed + kept // 4) or self._allocate(needed):
            return 0
        if self._allocated - in_use + recyclable() < growth + kept:
            limited = _whole(needed) > size_limit()
            where = "under the limit of a file's size for" if limited else "on the file system of"
            remedy = "raise that limit (ulimit -f)" if limited else "free some space"
            raise StoreFullError(
                f"no space left {where} {self._path}: {growth:,} bytes more, and {kept:,} in "
                f"reserve for claims and completions, do not fit; {remedy}, or destroy jobs and "
                "insert less at a time",
                path=str(self._path),
            )
        return 0

    def full(self, reason: object) -> StoreFullError:
        return StoreFullError(
            f"{self._path}: the map of this process is full; nothing was changed; raise its "
            f"limit of address space (ulimit -v) ({reason})",
            path=str(self._path),
        )

    def _allocate(self, size: int) -> bool:
        """Makes the file `size` bytes (whole MiB) long, all of them allocated, if it can."""
        size = _whole(size)
        try:
            allocate(self._descriptor, self._allocated, size)
        except OSError as error:
            if has_no_space(error):
                return False
            raise
        self._allocated = size
        return True

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class FixedRoom:
    """The room of a file that has a capacity, all of it allocated when it was made."""

    def __init__(self, path: Path, capacity: int) -> None:
        self._path = path
        self._capacity = capacity
        # A job that moves leaves some 16 bytes in half empty pages of the indexes, of the
        # hundred that the smallest takes: with a sixth all of a full store can be worked off.
        self._kept = max(capacity // 6, MIB)

    def ensure(self, growth: int, used: Measure, recyclable: Measure) -> int:
        free = self._capacity - used() - self._kept
        if growth > free:
            free += recyclable()
            if growth > free:
                raise self.full(f"{growth:,} bytes more were asked for")
        # To look costs as much as to insert. Other processes are granted as much meanwhile.
        return min(free - growth, self._kept) // _GRANT

    def full(self, reason: object) -> StoreFullError:
        return StoreFullError(
            f"{self._path} is full: it has a capacity of {self._capacity:,} bytes, of which "
            f"{self._kept:,} are kept for claims and completions; nothing was changed; destroy "
            f"jobs, or compact it into a larger one: quelmdb compact --capacity ({reason})",
            path=str(self._path),
        )

    def close(self) -> None:
        pass
