"""What figures depend on: the machine, its disk, and the versions of everything."""

from __future__ import annotations

import os
import platform
import sqlite3
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import lmdb

_IN_MEMORY = ("tmpfs", "ramfs")
_SYNCS = 200
_QUIET = 0.7  # a load above it is somebody else's


def machine(directory: Path) -> dict[str, str]:
    """The machine, as labels and values. O(a second): it measures what a sync costs."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "CPU": _cpu(),
        "cores": f"{len(os.sched_getaffinity(0))} of {os.cpu_count()}",
        "memory": f"{memory / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "file system": file_system(directory),
        "one fdatasync of 4 KiB, median": f"{_sync_seconds(directory) * 1e6:.0f} µs",
        "load before": f"{os.getloadavg()[0]:.1f}",
    }


def versions() -> dict[str, str]:
    """Of Python, of the libraries, and of this checkout."""
    return {
        "quelmdb": f"{_version('quelmdb')} ({_commit()})",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "lmdb": f"{lmdb.__version__} (LMDB {'.'.join(map(str, lmdb.version()))})",
        "cbor2": _version("cbor2"),
        "SQLite": sqlite3.sqlite_version,
        "huey": _version("huey"),
        "litequeue": _version("litequeue"),
        "persist-queue": _version("persist-queue"),
        "redis-py": _version("redis"),
        "redis-server": _redis_server(),
    }


def warnings(directory: Path) -> list[str]:
    """What makes figures that are measured here worth less."""
    found = []
    if file_system(directory).startswith(_IN_MEMORY):
        found.append("Measured in memory, where a sync does nothing: durable writes say nothing.")
    load = os.getloadavg()[0]
    if load > _QUIET:
        found.append(f"The machine was not quiet: its load was {load:.1f} before the run.")
    return found


def file_system(directory: Path) -> str:
    """Type and device of the mount that holds a directory; "unknown" where none is listed."""
    place = str(directory.resolve())
    found, longest = "unknown", -1
    try:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return found
    for line in lines:
        mount, _, behind = line.partition(" - ")
        point = mount.split()[4]
        if (place + "/").startswith(point.rstrip("/") + "/") and len(point) >= longest:
            kind, device = behind.split()[:2]
            found, longest = f"{kind} on {device}", len(point)
    return found


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _sync_seconds(directory: Path) -> float:
    """Overwriting a page of a file and waiting until it is on the disk."""
    path = directory / "sync"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.pwrite(descriptor, bytes(4096), 0)
        os.fsync(descriptor)
        spent = []
        for number in range(_SYNCS):
            os.pwrite(descriptor, bytes([number]) * 4096, 0)
            begun = time.perf_counter()
            os.fdatasync(descriptor)
            spent.append(time.perf_counter() - begun)
    finally:
        os.close(descriptor)
        path.unlink()
    return sorted(spent)[_SYNCS // 2]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _redis_server() -> str:
    try:
        text = subprocess.run(
            ["redis-server", "--version"], check=True, capture_output=True, text=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return "not installed"
    return text.partition("v=")[2].partition(" ")[0]


def _commit() -> str:
    """Of the checkout, and whether the library in it was changed since."""
    here = Path(__file__).parents[2]
    try:
        commit = _git(here, "rev-parse", "--short", "HEAD")
        changed = _git(here, "status", "--porcelain", "--", "quelmdb", "bench/**/*.py")
    except (OSError, subprocess.CalledProcessError):
        return "no git"
    return f"{commit}, with changes" if changed else commit


def _git(directory: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=directory, check=True, capture_output=True, text=True
    ).stdout.strip()
