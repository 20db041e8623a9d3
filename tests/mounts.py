"""Private mounts and namespaces for tests, made in a child and gone with it (Linux)."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import pytest

from tests.children import in_child

# sched.h, sys/mount.h
_CLONE_NEWNS: Final = 0x00020000
_CLONE_NEWUSER: Final = 0x10000000
_CLONE_NEWPID: Final = 0x20000000
_MS_RDONLY: Final = 1
_KEPT: Final = 2 | 4 | 8 | 1024  # nosuid, nodev, noexec, noatime
_MS_REMOUNT: Final = 32
_MS_BIND: Final = 4096
_MS_REC: Final = 16384
_MS_PRIVATE: Final = 1 << 18


def enter_private_mounts() -> None:
    """From here on this process (a child, with one thread) has mounts of its own, and may
    make some. Raises `OSError` where the system does not let it."""
    _enter(_CLONE_NEWNS)
    _mount("none", Path("/"), "", _MS_REC | _MS_PRIVATE)


def enter_pid_namespace() -> None:
    """From here on the children of this process count process ids from 1."""
    _enter(_CLONE_NEWPID)


def _enter(namespace: int) -> None:
    user, group = os.geteuid(), os.getegid()
    if user == 0:
        _check(_libc().unshare(namespace), "unshare")
    else:  # root in a user namespace may do the same
        _check(_libc().unshare(namespace | _CLONE_NEWUSER), "unshare")
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")


def mount_tmpfs(place: Path, mebibytes: int) -> None:
    _mount("tmpfs", place, "tmpfs", 0, f"size={mebibytes}m")


def mount_overlay(place: Path, lower: Path, upper: Path, work: Path) -> None:
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    if Path("/proc/self/uid_map").read_text().split() != ["0", "0", str(2**32 - 1)]:
        options += ",userxattr"
    _mount("overlay", place, "overlay", 0, options)


def mount_read_only(place: Path) -> None:
    """What is there, mounted on itself for reading only."""
    kept = os.statvfs(place).f_flag & _KEPT  # a user namespace may not drop them
    _mount(str(place), place, "", _MS_BIND)
    _mount("none", place, "", _MS_BIND | _MS_REMOUNT | _MS_RDONLY | kept)


def remount(place: Path, *, read_only: bool) -> None:
    """The file system that is mounted there, while no file in it is open for writing."""
    _mount("none", place, "", _MS_REMOUNT | (_MS_RDONLY if read_only else 0))


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _mount(source: str, place: Path, kind: str, flags: int, options: str = "") -> None:
    arguments = (source.encode(), bytes(place), kind.encode(), flags, options.encode())
    _check(_libc().mount(*arguments), f"mounting {kind or source} on {place}")


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _mark(mount: Callable[[Path], None]) -> pytest.MarkDecorator:
    """Marks a test that makes such a mount: skips it where that is not possible."""

    def work(place: Path) -> None:
        enter_private_mounts()
        mount(place)

    reason = ""
    if sys.platform != "linux":
        reason = "mounts are made in the way of Linux"
    else:
        try:
            with TemporaryDirectory() as name:
                in_child(work, Path(name))
        except OSError as error:
            reason = f"no private mounts here: {error}"
    return pytest.mark.skipif(bool(reason), reason=reason)


def _mount_some_overlay(place: Path) -> None:
    mount_tmpfs(place, 1)
    places = [place / name for name in ("merged", "lower", "upper", "work")]
    for each in places:
        each.mkdir()
    mount_overlay(*places)


needs_mounts: Final = _mark(lambda place: mount_tmpfs(place, 1))
needs_overlay: Final = _mark(_mount_some_overlay)
needs_root: Final = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
