"""What a process does to the files of a directory, recorded, call by call."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple
from unittest.mock import patch

from tests.faults.calls import Handler, failed, iovecs, replaced

Kind = Literal[
    "create", "mkdir", "rename", "remove", "write", "size", "sync", "told", "not synced", "doubtful"
]
"""Not synced: a sync failed. Doubtful: a write that is durable on return has failed."""


class Event(NamedTuple):
    """Something that was done, and had returned when it was recorded."""

    kind: Kind
    path: str = ""
    """Relative to what is recorded, at that moment."""
    data: Any = None
    """What was written; the new name; the new size; what was told."""
    offset: int = 0
    is_durable: bool = False
    """Of what is written: it was synced by itself (O_DSYNC)."""


class Recorder:
    """All that this process does to the files below a directory. To be used in a child."""

    def __init__(self, root: Path) -> None:
        self.events: list[Event] = []
        self.fails: Callable[[str], bool] = lambda kind: False
        """Whether the next call fails, which is a "sync" of LMDB's, the write of a "meta" page, or
        the library's "own" sync."""
        self._root = os.path.realpath(root)

    def tell(self, what: object) -> None:
        """Records what happened between two calls."""
        self.events.append(Event("told", data=what))

    @contextmanager
    def recording(self) -> Iterator[None]:
        lmdb: dict[str, Handler] = {
            "open": self._lmdb_open,
            "pwrite": self._lmdb_pwrite,
            "writev": self._lmdb_writev,
            "write": self._unexpected,
            "msync": self._unexpected,
            "fdatasync": self._lmdb_sync,
            "fsync": self._lmdb_sync,
            "ftruncate": self._lmdb_ftruncate,
        }
        python: dict[str, Callable[..., Any]] = {
            "open": self._open,
            "mkdir": self._mkdir,
            "rename": self._rename,
            "unlink": self._remove,
            "rmdir": self._remove,
            "pwrite": self._pwrite,
            "ftruncate": self._ftruncate,
            "posix_fallocate": self._fallocate,
            "fsync": self._fsync,
        }
        with ExitStack() as stack:
            for name, function in python.items():
                stack.enter_context(patch.object(os, name, _bound(function, getattr(os, name))))
            stack.enter_context(replaced(lmdb))
            yield

    def _note(self, kind: Kind, place: int | str, data: object = None, offset: int = 0) -> None:
        path = os.readlink(f"/proc/self/fd/{place}") if isinstance(place, int) else place
        path = os.path.abspath(path)
        if os.path.commonpath((path, self._root)) != self._root:
            return
        if kind == "rename":
            data = os.path.relpath(str(data), self._root)
        is_durable = isinstance(place, int) and bool(fcntl.fcntl(place, fcntl.F_GETFL) & os.O_DSYNC)
        relative = os.path.relpath(path, self._root)
        self.events.append(Event(kind, relative, data, offset, is_durable))

    def _lmdb_open(self, original: Callable[..., int], path: bytes, flags: int, mode: int) -> int:
        is_new = flags & os.O_CREAT and not os.path.exists(path)
        descriptor = original(path, flags, mode)
        if is_new and descriptor >= 0:
            self._note("create", os.fsdecode(path))
        return descriptor

    def _lmdb_pwrite(
        self, original: Callable[..., int], to: int, data: int, size: int, offset: int
    ) -> int:
        written = original(to, data, size, offset)
        if fcntl.fcntl(to, fcntl.F_GETFL) & os.O_DSYNC and self.fails("meta"):
            self._note("doubtful", to, ctypes.string_at(data, written), offset)
            return failed(errno.EIO)
        self._note("write", to, ctypes.string_at(data, written), offset)
        return written

    def _lmdb_writev(self, original: Callable[..., int], to: int, place: int, count: int) -> int:
        offset = os.lseek(to, 0, os.SEEK_CUR)
        data = b"".join(ctypes.string_at(*each) for each in iovecs(place, count))
        written = original(to, place, count)
        self._note("write", to, data[:written], offset)
        return written

    def _lmdb_sync(self, original: Callable[..., int], descriptor: int) -> int:
        if self.fails("sync"):
            self._note("not synced", descriptor)
            return failed(errno.EIO)
        result = original(descriptor)
        self._note("sync", descriptor)
        return result

    def _lmdb_ftruncate(self, original: Callable[..., int], descriptor: int, size: int) -> int:
        result = original(descriptor, size)
        self._note("size", descriptor, size)
        return result

    def _unexpected(self, original: Callable[..., int], *arguments: int) -> int:
        raise AssertionError(f"LMDB has made a call that is not recorded: {original}{arguments}")

    def _open(self, original: Any, path: Any, flags: int, *more: Any, **options: Any) -> int:
        is_new = flags & os.O_CREAT and not os.path.exists(path)
        descriptor: int = original(path, flags, *more, **options)
        if is_new:
            self._note("create", descriptor)
        return descriptor

    def _mkdir(self, original: Any, path: Any, *more: Any, **options: Any) -> None:
        original(path, *more, **options)
        self._note("mkdir", os.fspath(path))

    def _rename(self, original: Any, old: Any, new: Any) -> None:
        original(old, new)
        self._note("rename", os.fspath(old), os.path.abspath(new))

    def _remove(self, original: Any, path: Any, *, dir_fd: int | None = None) -> None:
        original(path, dir_fd=dir_fd)
        parent = "" if dir_fd is None else os.readlink(f"/proc/self/fd/{dir_fd}")
        self._note("remove", os.path.join(parent, path))

    def _pwrite(self, original: Any, to: int, data: bytes, offset: int) -> int:
        written: int = original(to, data, offset)
        self._note("write", to, bytes(data[:written]), offset)
        return written

    def _ftruncate(self, original: Any, descriptor: int, size: int) -> None:
        original(descriptor, size)
        self._note("size", descriptor, size)

    def _fallocate(self, original: Any, descriptor: int, start: int, size: int) -> None:
        before = os.fstat(descriptor).st_size
        original(descriptor, start, size)
        if start + size > before:
            self._note("size", descriptor, start + size)

    def _fsync(self, original: Any, descriptor: int) -> None:
        if self.fails("own"):
            self._note("not synced", descriptor)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        original(descriptor)
        self._note("sync", descriptor)


def _bound(function: Callable[..., Any], original: Any) -> Callable[..., Any]:
    return lambda *arguments, **options: function(original, *arguments, **options)
