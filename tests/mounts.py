"""Private mounts and namespaces for tests, made in a child and gone with it (Linux)."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.children import in_child

# sched.h, sys/mount.h
_CLONE_NEWNS: Final = 0x00020000
_CLONE_NEWUSER: Final = 0x10000000
_CLONE_NEWPID: Final = 0x20000000
_MS_RDONLY: Final = 1
_MS_REMOUNT: Final = 32
_MS_BIND: Final = 4096
_MS_REC: Final = 16384
_MS_PRIVATE: Final = 1 << 18


def enter_private_mounts() -> None:
    """From here on this process (a child, with one thread) has mounts of its own, and may
    make some. Raises `OSError` where the system does not let it."""
    if os.geteuid() == 0:
        _unshare(_CLONE_NEWNS)
    else:  # root in a user namespace may mount, too
        user = os.geteuid()
        _unshare(_CLONE_NEWNS | _CLONE_NEWUSER)
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    _mount("none", Path("/"), "", _MS_REC | _MS_PRIVATE)


def enter_pid_namespace() -> None:
    """From here on the children of this process count process ids from 1."""
    _unshare(_CLONE_NEWPID)


def mount_tmpfs(place: Path, mebibytes: int) -> None:
    _mount("tmpfs", place, "tmpfs", 0, f"size={mebibytes}m")


def mount_overlay(place: Path, lower: Path, upper: Path, work: Path) -> None:
    _mount("overlay", place, "overlay", 0, f"lowerdir={lower},upperdir={upper},workdir={work}")


def mount_read_only(place: Path) -> None:
    """What is there, mounted on itself for reading only."""
    _mount(str(place), place, "", _MS_BIND)
    _mount("none", place, "", _MS_BIND | _MS_REMOUNT | _MS_RDONLY)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _unshare(flags: int) -> None:
    _check(_libc().unshare(flags), "unshare")


def _mount(source: str, place: Path, kind: str, flags: int, options: str = "") -> None:
    arguments = (source.encode(), bytes(place), kind.encode(), flags, options.encode())
    _check(_libc().mount(*arguments), f"mounting {kind or source} on {place}")


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _why_not() -> str | None:
    if sys.platform != "linux":
        return "mounts are made in the way of Linux"
    try:
        in_child(_try)
    except OSError as error:
        return f"no private mounts here: {error}"
    return None


def _try() -> None:
    enter_private_mounts()
    mount_tmpfs(Path("/tmp"), 1)


_reason: Final = _why_not()

needs_mounts: Final = pytest.mark.skipif(_reason is not None, reason=_reason or "")
"""Marks a test that makes mounts, where it may."""

needs_root: Final = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
