"""How processes that wait learn that there is something to claim.

A small file in the store's directory, which every process that has the store open for
writing maps into its memory. Its first four bytes are a number. Every commit behind which
there may be something to claim replaces it, after the commit, and wakes whoever waits for
that (futex(2), on Linux). A waiter reads the number, then looks whether there is anything,
in a transaction that begins behind the reading, and then waits for another number than it
has read: a commit that its look has not seen has yet to replace the number, or has done so
since, and then there is no waiting.

The numbers are those of transactions, so that no two commits leave the same. With a counter
that each writer reads and raises, one that is stopped between the two would later put back
a number that was there before; a waiter that has read that one would take the store for
unchanged, and sleep through what was committed meanwhile. Of numbers that are all different
none comes back, in whatever order they are stored.

The next four bytes tell whether more than one process has the store open for writing (`gate`),
the four behind them whether something that failed is to be made good before anybody writes
(`transactions`): these survive who has stored them, and a later opening.

A waiter looks by itself, too, once a second: what it does not hear of, since the file cannot
be had, or whoever committed was killed before the next step, it only finds later.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import platform
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

_SIZE: Final = 4096  # more than any file system keeps beside the file's name, without a block
_NUMBER_SIZE: Final = 4

# uapi/linux/futex.h. Not FUTEX_PRIVATE_FLAG: waiters are in other processes, too.
_FUTEX_WAIT: Final = 0
_FUTEX_WAKE: Final = 1
_ALL: Final = 2**31 - 1

# The size of a pointer, and the number of the call futex with a time of two C longs. A
# process of 32 bits has other numbers than the kernel of 64 bits on which it runs, and
# whose machine it is told: it is not taken for one of these.
_CALLS: Final = {
    "x86_64": (8, 202),
    "aarch64": (8, 98),
    "riscv64": (8, 98),
    "loongarch64": (8, 98),
    "ppc64": (8, 221),
    "ppc64le": (8, 221),
    "s390x": (8, 238),
    "armv6l": (4, 240),
    "armv7l": (4, 240),
    "i586": (4, 240),
    "i686": (4, 240),
}

_WOKEN: Final = frozenset((errno.EAGAIN, errno.EINTR, errno.ETIMEDOUT))
_LONGEST_WAIT: Final = 3600.0

# Where there is no futex: a look costs up to 50 us (of a virtual machine), an idle second
# some 55 of them, while a busy store is heard after one or two milliseconds.
_FIRST_PAUSE: Final = 0.001
_LAST_PAUSE: Final = 0.02


class _Time(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Futex:
    """The call futex(2), made up as far as it can be."""

    def __init__(self, number: int) -> None:
        wait, wake = ctypes.CDLL(None, use_errno=True).syscall, ctypes.PyDLL(None).syscall
        wake.restype = None
        # `argtypes` would take three times as long. `PyDLL` keeps the lock of the interpreter:
        # given away for a call as short, it does not come back before others had their turn.
        self._wait = partial(wait, number)
        self._wake = partial(wake, number)

    def waking(self, word: ctypes.c_uint32) -> Callable[[], object]:
        """What wakes all who wait for `word`."""
        return partial(self._wake, ctypes.byref(word), _FUTEX_WAKE, _ALL)

    def wait(self, word: ctypes.c_uint32, seen: int, seconds: float) -> bool:
        """Sleeps until it is woken, unless `word` is not `seen`: the kernel looks, and no
        waking comes between that and the sleep. False where that is not to be had."""
        longest = _Time(int(seconds), int(seconds % 1 * 1e9))
        result: int = self._wait(
            ctypes.byref(word), _FUTEX_WAIT, ctypes.c_uint32(seen), ctypes.byref(longest)
        )
        return result == 0 or ctypes.get_errno() in _WOKEN


class _NoFutex:
    """What is done where there is no such call."""

    def waking(self, word: ctypes.c_uint32) -> Callable[[], object]:
        return _nothing

    def wait(self, word: ctypes.c_uint32, seen: int, seconds: float) -> bool:
        return False


def _nothing() -> None:
    """Who polls need not be told."""


def _futex() -> _Futex | _NoFutex:
    size, number = _CALLS.get(platform.machine(), (0, 0))
    fits = sys.platform == "linux" and size == ctypes.sizeof(ctypes.c_void_p)
    return _Futex(number) if fits else _NoFutex()


_FUTEX = _futex()


class _Words(NamedTuple):
    """All that is in the file."""

    number: ctypes.c_uint32
    company: ctypes.c_uint32
    doubt: ctypes.c_uint32


_OF_ITS_OWN: Final = (0, 1, 0)  # where the file is not to be had


class Wakeup:
    """The number in the file at `path`. Any thread may use it at any time."""

    def __init__(self, path: Path | None, *, has_company: bool = True) -> None:
        """Tells all who have the file whether several processes write; called at the gate. Without
        a path, and where the file cannot be had (no space, no permission), the threads of this
        process alone wake each other. 70 us, with `close`."""
        self._use(_mapped(path, has_company) if path else None)
        self._closed = False

    def _use(self, words: _Words | None) -> None:
        words = words or _Words(*map(ctypes.c_uint32, _OF_ITS_OWN))
        self._word, self._company, self._doubt = words
        self._wake_all = _FUTEX.waking(self._word)

    def has_company(self) -> bool:
        """What was said by whoever opened the file last; True where it is not to be had. 0.1 us."""
        return self._company.value != 0

    def is_doubtful(self) -> bool:
        """What `doubt` has said last, in whichever process. 0.1 us."""
        return self._doubt.value != 0

    def doubt(self, is_doubtful: bool) -> None:
        """Tells all who have the file whether something is to be made good before anybody
        writes. To be called at the gate."""
        self._doubt.value = is_doubtful

    def seen(self) -> int:
        """The number; to be read before the look. 0.1 us."""
        return self._word.value

    def wake(self, number: int) -> None:
        """Stores `number`, of which the low 32 bits count, and wakes all who wait. It is
        another one at every call: that of a transaction, after its commit. 1 us."""
        self._word.value = number
        self._wake_all()

    def disturb(self) -> None:
        """Wakes all who wait, though nothing was committed: they look, and wait again. 2 us."""
        self.wake(int.from_bytes(_unlike_any()))

    def wait(self, seen: int, seconds: float) -> None:
        """Returns when the number is another one than `seen`, after `seconds` at the latest,
        when a handler has run for a signal, and sometimes for no reason. 0.3 us where the
        number has changed; asleep, it costs nothing."""
        word = self._word  # stays mapped while it is waited for
        if self._closed or word.value != seen:
            return
        seconds = min(max(seconds, 0.0), _LONGEST_WAIT)
        # A filter of system calls may refuse this one, at any time.
        if not _FUTEX.wait(word, seen, seconds):
            _poll(word, seen, seconds)

    def close(self) -> None:
        """Lets go of the file, and wakes who waits: from here on nobody does, nor is woken."""
        if not self._closed:
            self._closed = True  # first: who reads the number behind the next line won't sleep
            self.disturb()
            self._use(None)  # the last thread that waits unmaps the file


def _mapped(path: Path, has_company: bool) -> _Words | None:
    """The words in the file, which is made where it is missing; None where it cannot be."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # A store into a page that has no place on the disk, since the file is short or
            # has a hole there and the disk is full, would be the end of the process (SIGBUS).
            # The number of an earlier life of the store goes: its data may since have been
            # put back to a state before that transaction, which then happens once more.
            words = _unlike_any() + has_company.to_bytes(_NUMBER_SIZE, sys.byteorder)
            words += os.pread(descriptor, _NUMBER_SIZE, len(words))  # a doubt stays
            if os.pwrite(descriptor, words.ljust(_SIZE, b"\0"), 0) == _SIZE:
                page = mmap.mmap(descriptor, _SIZE)
                places = range(0, _NUMBER_SIZE * len(_Words._fields), _NUMBER_SIZE)
                return _Words(*(ctypes.c_uint32.from_buffer(page, place) for place in places))
        finally:
            os.close(descriptor)
    return None


def _unlike_any() -> bytes:
    """A number that most likely was not there, nor is the one of the next commit."""
    return os.urandom(_NUMBER_SIZE)


def _poll(word: ctypes.c_uint32, seen: int, seconds: float) -> None:
    end = time.monotonic() + seconds
    pause = _FIRST_PAUSE
    while word.value == seen and (left := end - time.monotonic()) > 0:
        time.sleep(min(pause, left))
        pause = min(2 * pause, _LAST_PAUSE)
