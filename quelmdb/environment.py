"""One open LMDB environment: transactions, databases, room, errors.

The only module that knows lmdb (but for its exceptions, which `engine_errors` maps).
A transaction ends in the thread that began it: `read` begins one, runs a function
and ends it; of write transactions `commit` takes care. Only a snapshot's read
transaction lives longer.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple, NoReturn, TypeAlias, TypeVar

import lmdb
import lmdb.verify as lmdb_verify

from quelmdb import layout
from quelmdb.engine_errors import MAX_READERS, is_foreign, mapped_error
from quelmdb.errors import (
    CorruptStoreError,
    ReadOnlyStoreError,
    StoreClosedError,
    StoreError,
    StoreFullError,
)
from quelmdb.filesystem import FixedRoom, GrowingRoom, Room, allocate_all, fill_holes

T = TypeVar("T")
Transaction: TypeAlias = "lmdb.Transaction[bytes]"
Cursor: TypeAlias = "lmdb.Cursor[bytes]"
Database = lmdb._Database

_LOCK_BYTES: Final = 128 + 64 * MAX_READERS  # of the lock file: a head and the slots (mdb.c)
_READER_CHECK_SECONDS: Final = 30.0

# Virtual size: without writemap a map costs nothing until it is used, and what is
# chosen here bounds the file for as long as this process has it open. The smaller
# ones are for processes whose address space is limited.
_MAP_SIZES: Final = tuple(2**power for power in (40, 38, 36, 34, 32, 30, 28, 26))

_SMALLEST_PAGE: Final = 4096
_get_ident: Final = threading.get_ident


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


class Environment:
    """One generation of a store, open in this process."""

    def __init__(
        self,
        directory: Path,
        *,
        ephemeral: bool,
        readonly: bool,
        check: Callable[[dict[bytes, bytes]], None],
    ) -> None:
        """Opens what exists; creates and changes nothing. `check` is given the content
        of `meta`, and raises where this is nothing that can be served.

        Raises `CorruptStoreError` where the data file is incomplete, and what
        `mapped_error` makes of LMDB's errors.
        """
        self.directory = directory
        self.ephemeral = ephemeral
        self.readonly = readonly
        self._data = directory / layout.DATA_FILE
        self._refuse_incomplete(2 * _SMALLEST_PAGE)
        if ephemeral and not readonly:
            self._prepare(check)
        self._lmdb = self._open()
        self._begin = self._lmdb.begin
        self._uses: dict[object, int] = {}  # reads that are under way, with their threads
        self._use_ended = threading.Event()
        self._room: Room | None = None
        self._next_reader_check = 0.0
        self._gone: Callable[[], StoreError] | None = None
        self.is_gone = False
        """Whether it was closed, or left behind by a fork."""
        try:
            info = self._lmdb.info()
            self.page_size = self._lmdb.stat()["psize"]
            self._refuse_incomplete((info["last_pgno"] + 1) * self.page_size)
            self.capacity: int | None = info["map_size"] if ephemeral else None
            self.databases = self._open_databases(check)
            if not readonly:
                self._lmdb.reader_check()
                self._room = self._make_room()
        except BaseException as error:
            self._lmdb.close()
            if is_foreign(error):
                raise mapped_error(error, self._data) from error
            raise

    @staticmethod
    def create(
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
                ) as environment,
                environment.begin(write=True) as transaction,
            ):
                databases = _open_databases(environment, transaction, create=True)
                for key, value in meta:
                    transaction.put(key, value, db=databases.meta)
        except lmdb.MemoryError as error:
            raise _no_address_space(path) from error
        except lmdb.Error as error:
            raise mapped_error(error, path) from error
        if capacity is not None:
            allocate_all(path, capacity)

    def read(self, work: Callable[[Transaction], T]) -> T:
        """Runs `work` in a read transaction of its own: one point in time."""
        use = object()
        try:
            self._uses[use] = _get_ident()  # as `_begin_use`: here the calls would tell
            transaction = self.begin_read()
            try:
                return work(transaction)
            finally:
                transaction.abort()
        except Exception as error:
            if is_foreign(error):
                raise self._error(error) from error
            raise
        finally:
            self._uses.pop(use, None)  # as `_end_use`
            if self.is_gone:
                self._use_ended.set()

    def begin_write(self) -> Transaction:
        """A write transaction, which waits for those of other threads and processes. To be
        ended in this thread, by `commit()` or by `undo`."""
        if self.readonly or self._gone is not None:
            self.raise_if_readonly()
            self.raise_if_gone()
        now = time.monotonic()
        if now >= self._next_reader_check:  # the slots of killed readers keep pages alive
            self._next_reader_check = now + _READER_CHECK_SECONDS
            self._lmdb.reader_check()
        return self._begin(write=True)

    def undo(self, transaction: Transaction | None, error: BaseException) -> bool:
        """Ends a write transaction in which, or in whose commit, `error` was raised. Returns
        whether all was committed nevertheless: an interrupt came behind the commit."""
        if transaction is None:
            return False
        committed = not is_foreign(error) and not _is_open(transaction)
        _abort(transaction)  # which an interrupt would leave open
        return committed

    def error_for(self, error: BaseException) -> BaseException:
        """The library's error for one that came out of a transaction; or that one itself."""
        return self._error(error) if is_foreign(error) else error

    def ensure_room(self, transaction: Transaction, growth: int) -> int:
        """Within a write transaction, before jobs are added: sees to it that `growth`
        bytes, and a reserve for claims and completions behind them, are allocated. Returns
        how many more bytes may be used before it is asked again.

        Raises `StoreFullError` where they cannot be.
        """
        assert self._room is not None
        return self._room.ensure(growth, self.used_bytes, lambda: self._recyclable(transaction))

    def begin_read(self) -> Transaction:
        """A read transaction, to be aborted by the caller. 0.2 us."""
        try:
            return self._begin()
        except lmdb.ReadersFullError:
            self._lmdb.reader_check()
        except lmdb.Error as error:
            raise self._error(error) from error
        try:
            return self._begin()
        except lmdb.Error as error:
            raise self._error(error) from error

    def within(self, transaction: Transaction, work: Callable[[Transaction], T]) -> T:
        """Runs `work` in a read transaction that stays open: a snapshot's."""
        use = object()
        try:
            self._begin_use(use)
            self.raise_if_gone()
            return work(transaction)
        except Exception as error:
            if is_foreign(error):
                raise self._error(error) from error
            raise
        finally:
            self._end_use(use)

    def raise_if_gone(self) -> None:
        """Raises where the environment was closed, or left behind by a fork."""
        if self._gone is not None:
            raise self._gone()

    def raise_if_readonly(self) -> None:
        """Raises `ReadOnlyStoreError` where nothing may be written."""
        if self.readonly:
            raise ReadOnlyStoreError(f"{self._data} is open for reading only", path=str(self._data))

    def used_bytes(self) -> int:
        """The size of the data file up to its last page in use."""
        return (self._lmdb.info()["last_pgno"] + 1) * self.page_size

    def readers(self) -> str:
        """LMDB's table of readers, as it prints it."""
        return self._lmdb.readers()

    def close(self, gone: Callable[[], StoreError]) -> None:
        """Waits for reads that are under way in other threads, and closes. Nobody writes
        (LMDB would wait for a writer, and make it unable to end). Every later use raises
        `gone()`."""
        self._retire(gone)
        self._wait_for_uses()  # LMDB would take the map from under readers
        self._lmdb.close()
        if self._room is not None:
            self._room.close()

    def forget(self, gone: Callable[[], StoreError]) -> None:
        """In the child of a fork: lets go without closing, since the locks, the reader
        slots and the transactions are the parent's. Every later use raises `gone()`."""
        self._retire(gone)
        self._uses = {}
        del self._lmdb, self.databases
        if self._room is not None:
            self._room.close()

    def _begin_use(self, use: object) -> None:
        """To be called before anything is read, and looked at whether the environment is
        gone: from here on `close` waits."""
        self._uses[use] = threading.get_ident()  # one step: no lock is needed

    def _end_use(self, use: object) -> None:
        self._uses.pop(use, None)
        if self.is_gone:
            self._use_ended.set()

    def _wait_for_uses(self) -> None:
        """Not for those of this thread: they wait for it (in a signal handler)."""
        own = threading.get_ident()
        while any(thread != own for thread in list(self._uses.values())):
            self._use_ended.wait()
            self._use_ended.clear()

    def _retire(self, gone: Callable[[], StoreError]) -> None:
        def refuse(*args: object, **options: object) -> NoReturn:
            raise gone()

        self._gone = gone
        self.is_gone = True
        self._begin = refuse

    def _recyclable(self, transaction: Transaction) -> int:
        """How many bytes of the file hold nothing, about: free, or about to be."""
        pages = 0
        for database in self.databases:
            stat = transaction.stat(database)
            pages += stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
        return self.used_bytes() - pages * self.page_size

    def _prepare(self, check: Callable[[dict[bytes, bytes]], None]) -> None:
        """Before LMDB writes through its map: it gives the file the size of the map, whatever
        the file is, and a hole in it and a full disk would be the end of the process."""
        looked_at = Environment(self.directory, ephemeral=True, readonly=True, check=check)
        looked_at.close(lambda: StoreClosedError(f"{self._data} was looked at"))
        capacity = looked_at.capacity or 0
        if self._data.stat().st_blocks * 512 < capacity:  # a copy may have holes
            allocate_all(self._data, capacity)

    def _open(self) -> lmdb.Environment:
        if os.access(self._data, os.W_OK):
            # On overlayfs the first writable open copies the file up, and who had it open
            # before goes on with the old one: done before LMDB maps it, also for reading.
            os.close(os.open(self._data, os.O_RDWR))
            fill_holes(self.directory / layout.LOCK_FILE, _LOCK_BYTES)
        # An ephemeral store has the size that it was made with: LMDB would resize the file
        # under other processes where it is opened with another.
        for map_size in (0,) if self.ephemeral else _MAP_SIZES:
            try:
                return lmdb.open(
                    str(self.directory),
                    map_size=map_size,
                    max_dbs=16,
                    max_readers=MAX_READERS,
                    create=False,
                    mode=0o600,
                    readonly=self.readonly,
                    sync=not self.ephemeral,
                    writemap=self.ephemeral and not self.readonly,
                    lib_version=0,
                )
            except lmdb.MemoryError:
                continue
            except lmdb.Error as error:
                raise mapped_error(error, self._data) from error
        raise _no_address_space(self._data)

    def _make_room(self) -> Room:
        if self.capacity is None:
            return GrowingRoom(self._data)
        return FixedRoom(self._data, self.capacity)

    def _open_databases(self, check: Callable[[dict[bytes, bytes]], None]) -> Databases:
        if self.readonly:
            meta = self._lmdb.open_db(layout.META, create=False)
            with self._lmdb.begin() as transaction:
                check(dict(transaction.cursor(meta)))
            return _open_databases(self._lmdb, None, create=False)
        # All at once and within a transaction: opened on their own while another
        # thread writes, LMDB would wait for the write lock with the GIL held.
        with self._lmdb.begin(write=True) as transaction:
            meta = self._lmdb.open_db(layout.META, transaction, create=False)
            check(dict(transaction.cursor(meta)))
            return _open_databases(self._lmdb, transaction, create=False)

    def _refuse_incomplete(self, size: int) -> None:
        found = self._data.stat().st_size
        if found < size:
            raise CorruptStoreError(
                f"{self._data} is incomplete: {found:,} bytes of at least {size:,}; restore it "
                "from a backup",
                path=str(self._data),
                expected=size,
                found=found,
            )

    def _error(self, error: Exception) -> StoreError:
        if self._gone is not None:  # closed by another thread meanwhile
            return self._gone()
        if isinstance(error, lmdb.MapFullError) and self._room is not None:
            return self._room.full(error)
        return mapped_error(error, self._data)


def _no_address_space(data: Path) -> StoreFullError:
    return StoreFullError(
        f"the address space of this process is too small to map {data}; raise its limit "
        "(ulimit -v)",
        path=str(data),
    )


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


def _open_databases(
    environment: lmdb.Environment, transaction: Transaction | None, *, create: bool
) -> Databases:
    def database(name: bytes, *, integerkey: bool = False) -> Database:
        return environment.open_db(name, transaction, integerkey=integerkey, create=create)

    def index(name: bytes) -> Database:
        return environment.open_db(
            name,
            transaction,
            integerkey=True,
            dupsort=True,
            dupfixed=True,
            integerdup=True,
            create=create,
        )

    return Databases(
        jobs=database(layout.JOBS, integerkey=True),
        payloads=database(layout.PAYLOADS),
        by_status=index(layout.BY_STATUS),
        by_worker_status=index(layout.BY_WORKER_STATUS),
        workers=database(layout.WORKERS),
        worker_names=database(layout.WORKER_NAMES, integerkey=True),
        owners=database(layout.OWNERS, integerkey=True),
        meta=database(layout.META),
    )


def _abort(transaction: Transaction) -> None:
    with suppress(lmdb.Error):  # LMDB may have aborted it by itself
        transaction.abort()


def _is_open(transaction: Transaction) -> bool:
    with suppress(lmdb.Error):
        transaction.id()
        return True
    return False
