"""What a store needs of the file system below it, and what it refuses."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from quelmdb.errors import StoreFullError, UnsupportedFileSystemError

MOUNTS = Path("/proc/self/mountinfo")

# Types on which LMDB's shared memory map or its locks do not hold (lmdb.h, "Do not
# have open an LMDB database ... on a remote filesystem").
_NETWORK_TYPES: Final = frozenset(
    "nfs nfs4 cifs smb smb2 smb3 smbfs 9p afs ceph glusterfs lustre gfs gfs2 ocfs2 gpfs "
    "beegfs pvfs2 orangefs coda ncpfs davfs fuse.sshfs fuse.s3fs fuse.rclone fuse.glusterfs "
    "fuse.ceph-fuse fuse.gcsfuse fuse.davfs2 fuse.juicefs fuse.cephfs fuse.moosefs".split()
)

_NO_FALLOCATE: Final = frozenset((errno.EOPNOTSUPP, errno.EINVAL))  # not on every system
_NO_SPACE: Final = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))

MIB: Final = 2**20


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
    """Whether the file system of `path` has no block left for this user."""
    space = os.statvfs(path)
    return space.f_bavail * space.f_frsize < MIB


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


def reserve(used: int) -> int:
    """The bytes that are kept back for claims and completions in a file that uses
    `used` bytes: 1/32 of it, at least 4 MiB and at most 64 MiB."""
    return min(max(used // 32, 4 * MIB), 64 * MIB)


class Room:
    """The space of a data file that is allocated ahead of its use.

    Inserts are let in while the reserve behind the used part is allocated, so that
    on a full disk inserts are refused and claims and completions, which need pages
    of their own for a while, still work. All calls are made under the write lock.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = os.open(path, os.O_RDWR)
        self._allocated = 0

    def ensure(self, used: int, growth: int, recyclable: Callable[[], int]) -> None:
        """Allocates what an insert of `growth` bytes needs, with the reserve behind it.

        Where the disk is full it is let in all the same while the file has as much that
        is unused: behind its used part, or inside of it (`recyclable()`, bytes). Raises
        `StoreFullError` otherwise.
        """
        kept = reserve(used)
        needed = used + growth + kept
        if needed <= self._allocated:
            return
        self._allocated = os.fstat(self._descriptor).st_size  # others allocate, too
        if needed <= self._allocated:
            return
        if self._allocate(needed + kept // 4) or self._allocate(needed):
            return
        if self._allocated - used + recyclable() < growth + kept:
            raise StoreFullError(
                f"no space left on the file system of {self._path}: {growth:,} bytes more, and "
                f"{kept:,} in reserve for claims and completions, do not fit; free some space, "
                "or destroy jobs and insert less at a time",
                path=str(self._path),
            )

    def _allocate(self, size: int) -> bool:
        """Makes the file `size` bytes (whole MiB) long, all of them allocated, if it can."""
        size = -(-size // MIB) * MIB
        try:
            allocate(self._descriptor, self._allocated, size)
        except OSError as error:
            if has_no_space(error):
                return False
            raise
        self._allocated = size
        return True

    def close(self) -> None:
        os.close(self._descriptor)
