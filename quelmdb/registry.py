"""What is open in this process: each store once, shared by all who open it, not inherited
by forks, and finished when the interpreter ends."""

from __future__ import annotations

import atexit
import errno
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from quelmdb.directory import Opened, no_store
from quelmdb.durability import EPHEMERAL, Wanted
from quelmdb.engine_errors import mapped_error
from quelmdb.errors import (
    DiskError,
    ForkedStoreError,
    NotAStoreError,
    ReadOnlyStoreError,
    StoreBusyError,
    StoreError,
    StoreFullError,
    StoreNotFoundError,
    StorePermissionError,
)
from quelmdb.filesystem import (
    exists,
    has_no_space,
    refuse_copy_on_write,
    refuse_network_file_system,
)
from quelmdb.opening import Verify

# What is open in this process, by device and inode of the directory. POSIX locks and
# LMDB both need that a process opens a store once.
_open: dict[tuple[int, int], Opened] = {}
_inherited: set[tuple[int, int]] = set()  # what was open when this process was forked
_kept_closed: set[tuple[int, int]] = set()
_opening = threading.RLock()


def acquire(
    path: str | os.PathLike[str], *, create: bool, readonly: bool, wanted: Wanted, verify: Verify
) -> Opened:
    """The store at `path`, opened or shared; to be given back by `release`. An ephemeral
    one of another run of the machine is served only where `verify` finds nothing.

    Raises the errors of the branch `StoreError`.
    """
    place = Path(os.path.abspath(os.fsdecode(path)))
    try:
        with _opening:
            opened = _acquire(place, create=create, readonly=readonly, wanted=wanted, verify=verify)
            try:
                opened.refuse_other(wanted)
            except BaseException:
                release(opened)
                raise
            return opened
    except OSError as error:
        if isinstance(error, StoreError):
            raise
        raise mapped(error, place) from error


def release(opened: Opened) -> None:
    """Ends one use, once what was submitted is committed; the last one closes the store. In
    the child of a fork, nothing."""
    opened.committer.finish()  # first: an interrupt of this wait has ended nothing
    with _opening:
        if opened not in _open.values():
            return
        if opened.users > 1:
            opened.users -= 1
        else:
            _close(opened)


@contextmanager
def kept_closed(path: Path) -> Iterator[bool]:
    """Keeps this process from opening the store in a directory that exists, which other
    processes are kept from by locks. Gives whether it is closed, and is for this caller alone."""
    key, is_closed = _key(path.stat()), False
    try:
        with _opening:
            is_closed = key not in _open and key not in _kept_closed
            if is_closed:
                _kept_closed.add(key)
        yield is_closed
    finally:
        if is_closed:
            _kept_closed.discard(key)


def _key(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _close(opened: Opened) -> None:
    """Interrupted, it is to be called again: it is forgotten last."""
    opened.close()
    for key in [key for key, value in _open.items() if value is opened]:
        del _open[key]


def _acquire(path: Path, *, create: bool, readonly: bool, wanted: Wanted, verify: Verify) -> Opened:
    if not exists(path):
        if not create or readonly:
            raise no_store(path)
        refuse_network_file_system(path.parent)
        if wanted.for_new()[0] == EPHEMERAL:
            refuse_copy_on_write(path.parent)
        path.mkdir(0o700, exist_ok=True)
    status = path.stat()
    if not stat.S_ISDIR(status.st_mode):
        raise NotAStoreError(f"{path} is a file; a store is a directory", path=str(path))
    key = _key(status)
    if key in _kept_closed:
        raise StoreBusyError(f"{path} is being repaired in this process", path=str(path))
    opened = _open.get(key)
    if opened is not None and opened.environment.is_gone:  # its closing was interrupted
        _close(opened)
        opened = None
    if opened is None:
        refuse_network_file_system(path)
        try:
            opened = _open[key] = Opened(
                path, create=create, readonly=readonly, wanted=wanted, verify=verify
            )
        except StoreBusyError as error:
            if key not in _inherited:
                raise
            raise ForkedStoreError(
                f"{path} was open when this process was forked, and something here still holds "
                "it (a snapshot, or a thread of the parent): it cannot be opened again in this "
                "process; start processes with spawn or forkserver",
                path=str(path),
            ) from error
    elif opened.readonly != readonly:
        raise StoreBusyError(
            f"{path} is open in this process already, {_mode(opened.readonly)}; it cannot be "
            f"opened {_mode(readonly)} beside that: close it first",
            path=str(path),
        )
    else:
        opened.users += 1
    return opened


def _mode(readonly: bool) -> str:
    return "read-only" if readonly else "for writing"


def mapped(error: OSError, path: Path) -> StoreError:
    """The library's error for one of the system's, met at a store, or at what is to be one."""
    where, reason = str(path), error.strerror or str(error)
    if isinstance(error, PermissionError):
        return StorePermissionError(f"{where}: {reason}", path=where)
    if isinstance(error, FileNotFoundError):
        return StoreNotFoundError(f"{where}: {error.filename}: {reason}", path=where)
    if isinstance(error, NotADirectoryError):
        return NotAStoreError(f"{where}: {error.filename} is a file", path=where)
    if error.errno in (errno.EMFILE, errno.ENFILE, errno.EFBIG):  # limits of the process
        return mapped_error(error, path)
    if has_no_space(error):
        return StoreFullError(f"{where}: {reason}", path=where)
    if error.errno == errno.EROFS:
        return ReadOnlyStoreError(
            f"{where}: {reason}; a store there can only be looked at (readonly=True, or a command "
            "that changes nothing)",
            path=where,
        )
    return DiskError(f"{where}: {reason}", path=where)


# --- Forks, and the end ------------------------------------------------------


# What each thread that forks has paused: by then it may be closed by another one.
_paused: dict[int, list[Opened]] = {}


def _before_fork() -> None:
    _paused[threading.get_ident()] = paused = list(_open.values())
    for opened in paused:
        opened.committer.pause()


def _after_fork_in_parent() -> None:
    for opened in _paused.pop(threading.get_ident(), []):
        opened.committer.resume()


def _after_fork_in_child() -> None:
    global _opening
    _opening = threading.RLock()  # another thread of the parent may have held it
    for opened in {*_open.values(), *_paused.pop(threading.get_ident(), [])}:
        opened.forget()
    _paused.clear()
    _kept_closed.clear()
    _inherited.update(_open)
    _open.clear()


def _finish_all() -> None:
    """At the end of the interpreter: what was submitted is committed."""
    for opened in list(_open.values()):
        opened.committer.finish()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)
atexit.register(_finish_all)
