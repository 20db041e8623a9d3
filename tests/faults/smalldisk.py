"""Disks that are small and full to the page, and stores whose file is."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

import quelmdb
from quelmdb import StoreError
from quelmdb.reader import Snapshot
from tests.children import Child
from tests.mounts import enter_private_mounts, mount_tmpfs

T = TypeVar("T")

PAGE: Final = 4096

_PATIENCE: Final = 3600.0  # seconds

_BALLAST: Final = b"ballast"  # a database, and a key in it
_A_TRANSACTION: Final = 3  # pages that one changes at least


def run_on_disk(place: Path, mebibytes: int, test: Callable[[Path], T]) -> T:
    """What `test(path of a store)` returns, in a child, on a disk of its own at `place`. The
    store that it leaves, if any, is checked."""

    def in_namespace() -> T:
        enter_private_mounts()
        mount_tmpfs(place, mebibytes)
        path = place / "jobs.qdb"
        result = test(path)
        if path.exists():
            with quelmdb.open(path, create=False) as store:
                assert store.check() == []
        return result

    with Child(lambda pipe: in_namespace()) as child:
        child.pipe.poll(_PATIENCE)
        result: T = child.receive()
        child.join()
        return result


class Ballast:
    """A file beside the store that takes the space that is left, but for some pages."""

    def __init__(self, path: Path) -> None:
        self._path = path.with_name("ballast")
        self._size = 0

    def leave(self, pages: int) -> None:
        """From here on so many are free, as long as nobody takes them. Raises `OSError` where
        somebody does meanwhile."""
        with self._path.open("ab") as file:
            free = free_pages(self._path.parent)
            size = os.fstat(file.fileno()).st_size
            if free > pages:
                os.posix_fallocate(file.fileno(), size, (free - pages) * PAGE)
            else:
                os.truncate(file.fileno(), size - (pages - free) * PAGE)

    def give(self, pages: int = 1) -> None:
        """Frees so many more."""
        self.leave(free_pages(self._path.parent) + pages)

    def remove(self) -> None:
        with suppress(FileNotFoundError):
            self._path.unlink()


def assert_tells(error: StoreError, place: Path | str, what: str) -> None:
    """That it says what was wrong, and where: below `place`."""
    assert what in str(error).lower()
    assert error.path is not None
    assert error.path.startswith(str(place))
    assert error.path in str(error)


def free_pages(place: Path) -> int:
    space = os.statvfs(place)
    return space.f_bavail * space.f_frsize // PAGE


def burn(store: quelmdb.Store, pages: int) -> Snapshot:
    """Has so many pages of the file, and a few more, kept by a snapshot that sees something
    which is not there any more: until it ends nobody can use them. The store takes them for
    as good as free, and lets inserts in. No other page of the file is free, and that of a full
    store is cut behind its used part: the next transaction needs space of the disk."""
    engine = store._opened.environment._lmdb
    with engine.begin(write=True) as transaction:
        database = engine.open_db(_BALLAST, transaction)
        transaction.put(_BALLAST, _value_of(pages), db=database)
    snapshot = store.snapshot()
    used = [0]
    while len(used) < 4 or used[-4] == used[-3] or used[-3] == used[-2] or used[-2] == used[-1]:
        with engine.begin(write=True) as transaction:
            transaction.put(_BALLAST, b"%d" % len(used), db=database)
        used.append(engine.info()["last_pgno"])
    if store.info().durability == "full":
        os.truncate(store._opened.environment._data, store.info().used_bytes)
    return snapshot


def fill_to(store: quelmdb.Store, left: int) -> None:
    """Behind `burn`, in an ephemeral store: leaves so many pages that can be used."""
    engine = store._opened.environment._lmdb
    with engine.begin(write=True) as transaction:
        database = engine.open_db(_BALLAST, transaction)
        # Beside it a leaf of its database, the roots of the main one and of the free pages,
        # and a leaf for those that this transaction frees.
        pages = unused_pages(store) - left - _A_TRANSACTION
        transaction.put(b"filler", _value_of(pages), db=database)
    assert unused_pages(store) == left


def _value_of(pages: int) -> bytes:
    return bytes(pages * PAGE - 16)  # 16: of the first page's head


def unused_pages(store: quelmdb.Store) -> int:
    """Those behind the used part of an ephemeral store's file that LMDB would use: it leaves
    the last one alone (mdb_page_alloc)."""
    info = store.info()
    return (info.file_bytes - info.used_bytes) // PAGE - 1


def limit_file_size(limit: int) -> None:
    """Of the files that this process writes, in bytes."""
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
