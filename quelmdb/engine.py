"""LMDB as this store uses it: how its files are made, opened and verified, which databases
are in them, how items are put.

The only module that knows lmdb, but for its exceptions, which `engine_errors` maps.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import count, islice
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

import lmdb
import lmdb.verify as lmdb_verify

from quelmdb import layout
from quelmdb.engine_errors import MAX_READERS, mapped_error
from quelmdb.errors import StoreFullError
from quelmdb.filesystem import allocate_all, fill_holes, sync_directory, sync_file
from quelmdb.layout import NUMBER_BYTES
from quelmdb.pages import HEAD, META_BYTES

Transaction: TypeAlias = "lmdb.Transaction[bytes]"
Cursor: TypeAlias = "lmdb.Cursor[bytes]"
Database = lmdb._Database
Engine = lmdb.Environment

_LOCK_MAGIC: Final = 0xBEEFC0DE  # its first four bytes, once it is made (mdb.c)
_ATTEMPTS: Final = 1000
_PAUSE_SECONDS: Final = 0.001
_LOCK_BYTES: Final = 128 + 64 * MAX_READERS  # of the lock file: a head and the slots (mdb.c)

# Virtual size: without writemap a map costs nothing until it is used, and what is
# chosen here bounds the file for as long as this process has it open. The smaller
# ones are for processes whose address space is limited.
_MAP_SIZES: Final = tuple(2**power for power in (40, 38, 36, 34, 32, 30, 28, 26))

_COPIED_AT_A_TIME: Final = 10_000  # items

# LMDB 0.9.36 forgets to take the pages of a key's duplicates from its statistics when
# the last of them is deleted. They are statistics only: nothing is found by them.
_MISCOUNT: Final = re.compile(r"main/by_\w+ DB: walked \d+ (branch|leaf) pages")


class Databases(NamedTuple):
    """The handles of every sub-database."""

    jobs: Database
    payloads: Database
    by_status: Database
    by_worker_status: Database
    workers: Database
    worker_names: Database
    owners: Database
    meta: Database
    by_option: Database | None
    """None in a store of before there were options, opened for reading."""


# --- Files ------------------------------------------------------------------


def create_engine(
    directory: Path, meta: list[tuple[bytes, bytes]], capacity: int | None = None
) -> None:
    """Makes a new environment in an existing empty directory, synced; an ephemeral
    one, with all of its file allocated, where it gets a capacity in bytes.

    Raises `OSError` where there is no space for it.
    """
    path = directory / layout.DATA_FILE
    try:
        with (
            lmdb.open(
                str(directory),
                map_size=capacity or 64 * 2**20,
                max_dbs=16,
                mode=0o600,
                lock=False,
                lib_version=0,
            ) as engine,
            engine.begin(write=True) as transaction,
        ):
            databases = databases_of(engine, transaction, create=True)
            for key, value in meta:
                transaction.put(key, value, db=databases.meta)
    except lmdb.MemoryError as error:
        raise _no_address_space(path) from error
    except lmdb.Error as error:
        raise mapped_error(error, path) from error
    if capacity is not None:
        allocate_all(path, capacity)
    _make_lock_file(directory)


def open_engine(directory: Path, *, ephemeral: bool, readonly: bool) -> Engine:
    """Opens what exists, and nothing else.

    Raises what `mapped_error` makes of LMDB's errors, and `StoreFullError` where the
    address space is too small.
    """
    data = directory / layout.DATA_FILE
    if os.access(data, os.W_OK):
        # On overlayfs the first writable open copies the file up, and who had it open
        # before goes on with the old one: done before LMDB maps it, also for reading.
        os.close(os.open(data, os.O_RDWR))
        _make_lock_file(directory)
    # An ephemeral store has the size that it was made with: LMDB would resize the file
    # under other processes where it is opened with another.
    for map_size in (0,) if ephemeral else _MAP_SIZES:
        try:
            return _open(directory, map_size, ephemeral=ephemeral, readonly=readonly)
        except lmdb.MemoryError:
            continue
        except lmdb.Error as error:
            raise mapped_error(error, data) from error
    raise _no_address_space(data)


def _open(directory: Path, map_size: int, *, ephemeral: bool, readonly: bool) -> Engine:
    for attempt in count(1):
        lacked_content = _lacks_content(directory / layout.LOCK_FILE)
        try:
            return lmdb.open(
                str(directory),
                map_size=map_size,
                max_dbs=16,
                max_readers=MAX_READERS,
                create=False,
                mode=0o600,
                readonly=readonly,
                sync=not ephemeral,
                writemap=ephemeral and not readonly,
                lib_version=0,
            )
        except lmdb.InvalidError:
            # Whoever is the first to open it makes the content of the lock file. Where that one
            # is killed, who waited for it within LMDB raises this; who tries again is the first.
            if not lacked_content or attempt == _ATTEMPTS:
                raise
        time.sleep(_PAUSE_SECONDS)
    raise AssertionError


def _lacks_content(lock_file: Path) -> bool:
    """To be asked only while this process has it not open: to close it drops its locks."""
    try:
        descriptor = os.open(lock_file, os.O_RDONLY)
    except OSError:
        return False
    try:
        return int.from_bytes(os.pread(descriptor, 4, 0), sys.byteorder) != _LOCK_MAGIC
    finally:
        os.close(descriptor)


def _make_lock_file(directory: Path) -> None:
    """With every slot for a reader. Together with the data file, since what is made on a disk
    that is full then could not be opened."""
    fill_holes(directory / layout.LOCK_FILE, _LOCK_BYTES)


def _no_address_space(data: Path) -> StoreFullError:
    return StoreFullError(
        f"the address space of this process is too small to map {data}; raise its limit "
        "(ulimit -v)",
        path=str(data),
    )


def copy_compacted(
    transaction: Transaction, databases: Databases, directory: Path, capacity: int | None
) -> None:
    """Copies all that a transaction sees into an empty directory: pages filled to the brim, none
    of them free, synced. An ephemeral store's copy gets `capacity` bytes, all allocated.

    Item by item, since LMDB's own compacting copy (0.9.36) crashes on databases with duplicates of
    a fixed size that have more than a page of them. O(items), about a million a second.
    Raises what `mapped_error` makes of LMDB's errors, and `OSError`.
    """
    data = directory / layout.DATA_FILE
    try:
        with _opened(directory, (capacity,) if capacity else _MAP_SIZES) as engine:
            with engine.begin(write=True) as begun:
                copies = databases_of(engine, begun, create=True)
            for source, copy in zip(databases, copies, strict=True):
                if source is not None and copy is not None:
                    _copy_items(transaction, source, engine, copy)
            engine.sync(True)
    except lmdb.Error as error:
        raise mapped_error(error, data) from error
    if capacity is not None:
        allocate_all(data, capacity)
    _make_lock_file(directory)
    sync_file(data)
    sync_directory(directory)


def _copy_items(transaction: Transaction, source: Database, engine: Engine, copy: Database) -> None:
    with transaction.cursor(source) as cursor:
        items = iter(cursor)
        while some := list(islice(items, _COPIED_AT_A_TIME)):
            with engine.begin(write=True) as writing:
                append_new(writing, copy, some)


def _opened(directory: Path, map_sizes: Sequence[int]) -> Engine:
    """A new environment that nobody else has open, not synced by its commits."""
    for map_size in map_sizes:
        try:
            return lmdb.open(
                str(directory),
                map_size=map_size,
                max_dbs=16,
                mode=0o600,
                lock=False,
                sync=False,
                lib_version=0,
            )
        except lmdb.MemoryError:
            continue
    raise _no_address_space(directory / layout.DATA_FILE)


def settle(engine: Engine, directory: Path) -> None:
    """Makes the last transaction the last one also on the disk, where a meta page of a later one
    may stand whose sync has failed.

    A meta page is written in the place of the last but one, and who reads finds the one that was
    committed last by its number in the lock file. So the content of that one is put into the other
    place, too, as of the transaction before it, and is synced: written anew, since the kernel may
    take what it could not sync for synced. To be called at the gate, outside of transactions, with
    an engine that has not failed. Raises `OSError`, and LMDB's errors.
    """
    with engine.begin() as transaction:
        last = transaction.id()
    size = engine.stat()["psize"]
    descriptor = os.open(directory / layout.DATA_FILE, os.O_RDWR | os.O_CLOEXEC)
    try:
        meta = os.pread(descriptor, META_BYTES - HEAD, last % 2 * size + HEAD)
        meta = meta[:-NUMBER_BYTES] + layout.pack_number(last - 1)
        os.pwrite(descriptor, meta, (last - 1) % 2 * size + HEAD)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def structural_problems(directory: Path) -> list[str]:
    """What is wrong with the pages of a generation, read as bytes: LMDB itself never
    sees a file that could crash it. O(pages), some 10,000 a second.

    Sound beside writers while a read transaction is open: it keeps every page that
    this walk can reach from being recycled.
    """
    try:
        problems: list[str] = lmdb_verify.verify(str(directory))  # type: ignore[no-untyped-call]
    except lmdb_verify.VerifyError as error:
        return [str(error)]
    return [problem for problem in problems if not _MISCOUNT.match(problem)]


# --- Databases --------------------------------------------------------------


def opened_databases(
    engine: Engine, check: Callable[[dict[bytes, bytes]], None], *, readonly: bool
) -> Databases:
    """The databases of what is open, once `check` was given the content of `meta`. One that
    was made before there were options gets the database for them, where it may be written."""
    if readonly:
        meta = engine.open_db(layout.META, create=False)
        with engine.begin() as transaction:
            check(dict(transaction.cursor(meta)))
        return databases_of(engine, None, create=False)
    try:
        # All at once and within a transaction: opened on their own while another
        # thread writes, LMDB would wait for the write lock with the GIL held.
        with engine.begin(write=True) as transaction:
            meta = engine.open_db(layout.META, transaction, create=False)
            content = dict(transaction.cursor(meta))
            check(content)
            if content.get(layout.FEATURES_KEY) != layout.OPTIONS_FEATURE:
                engine.open_db(layout.BY_OPTION, transaction)
                transaction.put(layout.FEATURES_KEY, layout.OPTIONS_FEATURE, db=meta)
            return databases_of(engine, transaction, create=False)
    except lmdb.Error:
        with suppress(OSError):  # as `transactions` does: its meta page may be on the disk
            sync_file(Path(engine.path()) / layout.DATA_FILE)
        raise


def databases_of(engine: Engine, transaction: Transaction | None, *, create: bool) -> Databases:
    """The handles of every sub-database, which are made where `create`."""

    def database(name: bytes, *, integerkey: bool = False) -> Database:
        return engine.open_db(name, transaction, integerkey=integerkey, create=create)

    def index(name: bytes) -> Database:
        return engine.open_db(
            name,
            transaction,
            integerkey=True,
            dupsort=True,
            dupfixed=True,
            integerdup=True,
            create=create,
        )

    def options() -> Database | None:
        try:
            return database(layout.BY_OPTION)
        except lmdb.NotFoundError:
            if transaction is not None:  # what is opened to be written has it, or is damaged
                raise
            return None

    return Databases(
        jobs=database(layout.JOBS, integerkey=True),
        payloads=database(layout.PAYLOADS),
        by_status=index(layout.BY_STATUS),
        by_worker_status=index(layout.BY_WORKER_STATUS),
        workers=database(layout.WORKERS),
        worker_names=database(layout.WORKER_NAMES, integerkey=True),
        owners=database(layout.OWNERS, integerkey=True),
        meta=database(layout.META),
        by_option=options(),
    )


# --- Items and transactions -------------------------------------------------


def put_new(transaction: Transaction, database: Database, key: bytes, value: bytes) -> None:
    """Puts what stands under a number that was just given out. Raises `Damaged` where
    something stands there already: a counter is damaged."""
    if not transaction.put(key, value, overwrite=False, db=database):
        raise layout.Damaged("a number that was just given out is taken: its counter is too low")


def not_the_largest() -> layout.Damaged:
    """The error for an item that could not be appended: LMDB passes over it."""
    return layout.Damaged("a number that was just given out is not the largest: damaged")


def put_all(
    transaction: Transaction, database: Database, items: Sequence[tuple[bytes, bytes]]
) -> None:
    """Puts items, in the place of what is there, in one call."""
    with transaction.cursor(database) as cursor:
        cursor.putmulti(items)


def append_new(
    transaction: Transaction, database: Database, items: Sequence[tuple[bytes, bytes]]
) -> None:
    """Puts items behind all others [of their key]. Raises `Damaged` where some are not."""
    with transaction.cursor(database) as cursor:
        _, added = cursor.putmulti(items, append=True)
    if added < len(items):
        raise not_the_largest()


def is_open(transaction: Transaction) -> bool:
    """Whether a transaction was neither committed nor aborted."""
    with suppress(lmdb.Error):
        transaction.id()
        return True
    return False
