"""The directory of a store: made, recognised, and opened once a process.

    jobs.qdb/                mode 0700
      000001/data.mdb        a generation: an LMDB environment
      000001/lock.mdb
      owners.lock            see `owners`

A generation is made under a temporary name, synced, then renamed, by one process
at a time (the maintenance byte of the owners file): a crash leaves litter that the
next creator removes, and never half a store.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import threading
import uuid
from pathlib import Path
from typing import Final

from quelmdb import layout
from quelmdb.environment import Environment
from quelmdb.errors import (
    CorruptStoreError,
    DiskError,
    ForkedStoreError,
    NotAStoreError,
    ReadOnlyStoreError,
    StoreBusyError,
    StoreClosedError,
    StoreError,
    StoreFullError,
    StoreNotFoundError,
    StorePermissionError,
    UnsupportedFormatError,
)
from quelmdb.filesystem import has_no_space, refuse_network_file_system, sync_directory
from quelmdb.names import Names
from quelmdb.owners import Owners

DURABILITY: Final = "full"

_BEGUN: Final = layout.GENERATION + ".new"  # a generation that is being made
_LITTER: Final = frozenset((_BEGUN, layout.OWNERS_FILE))


class Opened:
    """A store that is open in this process, shared by everything that uses it."""

    def __init__(self, path: Path, *, create: bool, readonly: bool) -> None:
        self.path = path
        self.readonly = readonly
        self.users = 1
        generation = path / layout.GENERATION
        if generation.exists():
            if not (generation / layout.DATA_FILE).exists():
                raise _not_a_store(path)
            self.owners = Owners(path / layout.OWNERS_FILE, readonly=readonly)
        elif create and not readonly:
            _refuse_foreign_files(path)
            self.owners = Owners(path / layout.OWNERS_FILE, readonly=False)
        else:
            raise _no_store(path)
        try:
            if not generation.exists():
                self._create(generation)
            self.environment = Environment(generation, readonly=readonly, check=self._check)
        except BaseException:
            self.owners.close()
            raise
        self.names = Names(self.environment.databases)
        if not readonly:  # whoever made the store may have died before its name was durable
            sync_directory(path)
            sync_directory(path.parent)

    def _create(self, generation: Path) -> None:
        self.owners.lock_maintenance()  # waits for another creator
        try:
            if not generation.exists():
                begun = self.path / _BEGUN
                shutil.rmtree(begun, ignore_errors=True)
                begun.mkdir(0o700)
                Environment.create(begun, _new_meta())
                sync_directory(begun)
                begun.rename(generation)
        finally:
            self.owners.unlock_maintenance()

    def _check(self, meta: dict[bytes, bytes]) -> None:
        """Raises where this is no store, or none that this version can serve."""
        path = str(self.path)
        key, magic = layout.IDENTITY
        if meta.get(key) != magic:
            raise CorruptStoreError(f"{path} has no identity: it is not quelmdb's", path=path)
        version = layout.unpack_number(meta.get(layout.FORMAT_KEY, b""))
        if version != layout.FORMAT_VERSION:
            raise UnsupportedFormatError(
                f"{path} has format {version}, and this quelmdb knows {layout.FORMAT_VERSION}; "
                "use a version of quelmdb that knows it",
                path=path,
                expected=layout.FORMAT_VERSION,
                found=version,
            )
        needed = [
            ("byte order", layout.BYTE_ORDER[0], layout.BYTE_ORDER[1].decode()),
            ("features", layout.FEATURES_KEY, ""),
            ("durability", layout.DURABILITY_KEY, DURABILITY),
        ]
        if not self.readonly:
            needed.append(("features for writing", layout.WRITE_FEATURES_KEY, ""))
        for name, key, expected in needed:
            found = meta.get(key, b"").decode(errors="replace")
            if found != expected:
                raise UnsupportedFormatError(
                    f"{path} has the {name} {found!r}, and this quelmdb serves {expected!r} alone; "
                    "use a version of quelmdb that knows it",
                    path=path,
                    expected=expected,
                    found=found,
                )

    def close(self) -> None:
        path = str(self.path)
        self.environment.close(lambda: StoreClosedError(f"{path} was closed", path=path))
        self.owners.close()

    def forget(self) -> None:
        """In the child of a fork: lets go of everything without ending the parent's use."""
        path = str(self.path)
        self.environment.forget(
            lambda: ForkedStoreError(
                f"{path} was opened before a fork, and cannot be used in the child; open it "
                "again there, or start processes with spawn or forkserver",
                path=path,
            )
        )
        self.names.forget()
        self.owners.close()  # the child holds no locks yet, so none are dropped


# What is open in this process, by device and inode of the directory. POSIX locks and
# LMDB both need that a process opens a store once.
_open: dict[tuple[int, int], Opened] = {}
_inherited: set[tuple[int, int]] = set()  # what was open when this process was forked
_opening = threading.RLock()


def acquire(path: str | os.PathLike[str], *, create: bool, readonly: bool) -> Opened:
    """The store at `path`, opened or shared; to be given back by `release`.

    Raises the errors of the branch `StoreError`.
    """
    place = Path(os.path.abspath(os.fsdecode(path)))
    try:
        with _opening:
            return _acquire(place, create=create, readonly=readonly)
    except OSError as error:
        if isinstance(error, StoreError):
            raise
        raise _mapped(error, place) from error


def release(opened: Opened) -> None:
    """Ends one use; the last one closes the store. In the child of a fork, nothing."""
    with _opening:
        if opened not in _open.values():
            return
        opened.users -= 1
        if opened.users == 0:
            for key in [key for key, value in _open.items() if value is opened]:
                del _open[key]
            opened.close()


def _acquire(path: Path, *, create: bool, readonly: bool) -> Opened:
    if not path.exists():
        if not create or readonly:
            raise _no_store(path)
        refuse_network_file_system(path.parent)
        path.mkdir(0o700, exist_ok=True)
    status = path.stat()
    if not stat.S_ISDIR(status.st_mode):
        raise NotAStoreError(f"{path} is a file; a store is a directory", path=str(path))
    key = (status.st_dev, status.st_ino)
    opened = _open.get(key)
    if opened is None:
        refuse_network_file_system(path)
        try:
            opened = _open[key] = Opened(path, create=create, readonly=readonly)
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


def _no_store(path: Path) -> StoreError:
    if path.is_dir() and any(entry.name not in _LITTER for entry in path.iterdir()):
        return _not_a_store(path)
    return StoreNotFoundError(f"there is no store at {path}", path=str(path))


def _not_a_store(path: Path) -> NotAStoreError:
    return NotAStoreError(
        f"{path} is no store: it has other things in it, and no {layout.GENERATION}/"
        f"{layout.DATA_FILE}; give a new or an empty directory",
        path=str(path),
    )


def _refuse_foreign_files(path: Path) -> None:
    names = {entry.name for entry in path.iterdir()}
    if names - _LITTER and layout.GENERATION not in names:  # another creator may be faster
        raise _not_a_store(path)


def _new_meta() -> list[tuple[bytes, bytes]]:
    return [
        layout.IDENTITY,
        (layout.FORMAT_KEY, layout.pack_number(layout.FORMAT_VERSION)),
        (layout.FEATURES_KEY, b""),
        (layout.WRITE_FEATURES_KEY, b""),
        layout.BYTE_ORDER,
        (layout.DURABILITY_KEY, DURABILITY.encode()),
        (layout.UUID_KEY, uuid.uuid4().bytes),
        (layout.NEXT_ID, layout.pack_number(1)),
        (layout.NEXT_CLAIM, layout.pack_number(1)),
        (layout.NEXT_OWNER, layout.pack_number(1)),
        (layout.NEXT_WORKER, layout.pack_number(1)),
    ]


def _mapped(error: OSError, path: Path) -> StoreError:
    where, reason = str(path), error.strerror or str(error)
    if isinstance(error, PermissionError):
        return StorePermissionError(f"{where}: {reason}", path=where)
    if isinstance(error, FileNotFoundError):
        return StoreNotFoundError(f"{where}: {error.filename}: {reason}", path=where)
    if isinstance(error, NotADirectoryError):
        return NotAStoreError(f"{where}: {error.filename} is a file", path=where)
    if has_no_space(error):
        return StoreFullError(f"{where}: {reason}", path=where)
    if error.errno == errno.EROFS:
        return ReadOnlyStoreError(
            f"{where}: {reason}; open it with readonly=True to look at it", path=where
        )
    return DiskError(f"{where}: {reason}", path=where)


def _after_fork_in_child() -> None:
    global _opening
    _opening = threading.RLock()  # another thread of the parent may have held it
    for opened in _open.values():
        opened.forget()
    _inherited.update(_open)
    _open.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)
