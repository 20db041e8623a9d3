"""Calls of the system that fail, for a store in this process: the N-th of a kind, once or from
then on. LMDB's calls are replaced by `calls`, those of the library in `os`."""

from __future__ import annotations

import ctypes
import errno
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple
from unittest.mock import patch

from tests.faults.calls import Handler, failed, iovecs, replaced

SHORT: Final = "short"
"""Half of it is written, and the call says so."""

LATE: Final = "late"
"""All is done, and EIO is told: as by O_DSYNC, where the file has the data and the disk failed."""

_WRITES: Final = frozenset({"lmdb.pwrite", "lmdb.writev", "lmdb.write", "os.pwrite"})

_TRIED_AGAIN: Final = frozenset({"lmdb.pwrite", "lmdb.writev"})  # where a signal came into it

SYNCS: Final = frozenset({"lmdb.fdatasync", "lmdb.fsync", "lmdb.msync", "os.fsync"})

_LMDB: Final = ("pread", "pwrite", "writev", "write", "fdatasync", "fsync", "msync", "ftruncate")
_OS: Final = ("open", "mkdir", "rename", "fsync", "pwrite", "ftruncate", "posix_fallocate")

NONE: Final = "none"
"""Nothing fails, but calls are counted."""

CALLS: Final = tuple(f"lmdb.{name}" for name in _LMDB) + tuple(f"os.{name}" for name in _OS)


class Fault(NamedTuple):
    """What is to go wrong."""

    call: str
    how: str
    """The name of an error, `SHORT` or `LATE`."""
    nth: int = 1
    lasts: bool = False
    """Whether all that follow fail, too, of whatever kind they are but reading."""

    def __str__(self) -> str:
        return f"{self.how} of {self.call} {self.nth}{' and all that follow' * self.lasts}"


def kinds_of(call: str) -> list[tuple[str, bool]]:
    """How a call may fail: `Fault.how` and `Fault.lasts`."""
    hows = ["EIO", "ENOSPC"] if call in _WRITES else ["EIO"]
    hows += [SHORT] if call in _WRITES else []
    hows += [LATE] if call in SYNCS or call == "lmdb.pwrite" else []
    hows += ["EROFS"] if call in ("os.open", "os.mkdir", "os.rename") else []
    hows += ["ENOSPC"] if call in ("os.posix_fallocate", "os.mkdir", "os.fsync") else []
    kinds = [(how, lasts) for how in hows for lasts in (False, True)]
    return [*kinds, ("EINTR", False)] if call in _TRIED_AGAIN else kinds


class Injector:
    """Lets calls that concern the files below a directory fail, while it is armed."""

    def __init__(self, root: Path) -> None:
        self._root = os.path.realpath(root)
        self._fault: Fault | None = None
        self._left = 0
        self.hits = 0
        """How many calls have failed since it was armed."""
        self.calls: Counter[str] = Counter()
        """How many there were of each kind."""

    def arm(self, fault: Fault) -> None:
        """The N-th call from here on."""
        self._fault, self._left, self.hits = fault, fault.nth, 0
        self.calls.clear()

    def disarm(self) -> None:
        self._fault = None

    @contextmanager
    def injecting(self) -> Iterator[None]:
        with ExitStack() as stack:
            for name in _OS:
                original = getattr(os, name)
                stack.enter_context(patch.object(os, name, self._python(f"os.{name}", original)))
            stack.enter_context(replaced({name: self._lmdb(f"lmdb.{name}") for name in _LMDB}))
            yield

    def _fails(self, call: str, place: Any) -> str | None:
        """How this call is to fail, if it is to."""
        fault = self._fault
        if fault is None or (place is not None and not self._is_inside(place)):
            return None
        self.calls[call] += 1
        if fault.lasts and self._left == 0 and call != "lmdb.pread":
            self.hits += 1
            return "EIO" if fault.how in (SHORT, LATE) else fault.how
        if call == fault.call and self._left:
            self._left -= 1
            if self._left == 0 and fault.how != NONE:
                self.hits += 1
                return fault.how
        return None

    def _is_inside(self, place: Any) -> bool:
        if isinstance(place, int):
            place = os.readlink(f"/proc/self/fd/{place}")
        return os.path.abspath(os.fsdecode(place)).startswith(self._root)

    def _python(self, call: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def function(place: Any, *arguments: Any, **options: Any) -> Any:
            how = None if options.get("dir_fd") else self._fails(call, place)
            if how is None:
                return original(place, *arguments, **options)
            if how == SHORT:
                data, offset = arguments
                return original(place, data[: len(data) // 2], offset)
            if how == LATE:
                original(place, *arguments, **options)
                how = "EIO"
            number = getattr(errno, how)
            raise OSError(number, os.strerror(number), place if isinstance(place, str) else None)

        return function

    def _lmdb(self, call: str) -> Handler:
        def handler(original: Callable[..., int], *arguments: int) -> int:
            how = self._fails(call, None if call == "lmdb.msync" else arguments[0])
            if how is None:
                return original(*arguments)
            if how == SHORT:
                return self._half(call, original, *arguments)
            if how == LATE:
                original(*arguments)
                how = "EIO"
            return failed(getattr(errno, how))

        return handler

    def _half(self, call: str, original: Callable[..., int], *arguments: int) -> int:
        if call == "lmdb.writev":
            descriptor, place, count = arguments
            data = b"".join(ctypes.string_at(*each) for each in iovecs(place, count))
            return os.write(descriptor, data[: len(data) // 2])
        descriptor, data_place, size, *offset = arguments
        return original(descriptor, data_place, size // 2, *offset)
