"""One generation of a store, open in this process: transactions, room, errors.

A transaction ends in the thread that began it: `read` begins one, runs a function
and ends it; of write transactions `commit` takes care. Only a snapshot's read
transaction lives longer.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Final, NoReturn, TypeVar
from weakref import WeakSet

from quelmdb import layout
from quelmdb.completeness import refuse_incomplete, refuse_incomplete_copy
from quelmdb.engine import (
    Engine,
    Transaction,
    copy_compacted,
    open_engine,
    opened_databases,
    settle,
)
from quelmdb.engine_errors import is_foreign, is_map_full, is_readers_full, mapped_error
from quelmdb.errors import (
    ReadOnlyStoreError,
    StoreClosedError,
    StoreError,
    StoreFullError,
)
from quelmdb.filesystem import FixedRoom, GrowingRoom, Room, allocate_all
from quelmdb.holding import Held, held_by
from quelmdb.names import Names

T = TypeVar("T")
Work = Callable[["Environment", Transaction], T]
"""What is done in a transaction of an environment, with its databases."""

_LOOK_SECONDS: Final = 1.0
_READER_CHECK_SECONDS: Final = 30.0
_SMALLEST_PAGE: Final = 4096
_FEW_PAGES: Final = 64  # more than transactions free that LMDB does not use again at once
_OWN_PAGES: Final = 3  # of LMDB: two meta pages, and the names of the databases

_get_ident: Final = threading.get_ident


class Superseded(Exception):
    """A generation was compacted into the next one: all is to be done there. Never leaves the
    library."""


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
        refuse_incomplete(self._data, 2 * _SMALLEST_PAGE)
        if ephemeral and not readonly:
            self._prepare(check)
        self.number = int(directory.name)
        """Of the generation."""
        self._uses: dict[object, int] = {}  # reads that are under way, with their threads
        self._snapshots: WeakSet[Held] = WeakSet()  # who forgets one holds it no more
        self._use_ended = threading.Event()
        self._room: Room | None = None
        self._next_reader_check = self._next_look = 0.0
        self._gone: Callable[[], StoreError] | None = None
        self.is_gone = False
        """Whether it was closed, or left behind by a fork."""
        engine: Engine | None = None
        try:
            self._lmdb = engine = open_engine(directory, ephemeral=ephemeral, readonly=readonly)
            self._begin = engine.begin
            info = self._lmdb.info()
            self.page_size = self._lmdb.stat()["psize"]
            size = (info["last_pgno"] + 1) * self.page_size
            refuse_incomplete(self._data, size, None if ephemeral else engine)
            self.capacity: int | None = info["map_size"] if ephemeral else None
            self.databases = opened_databases(self._lmdb, check, readonly=readonly)
            self.names = Names(self.databases)
            if not readonly:
                self._lmdb.reader_check()
                self._room = self._make_room()
        except BaseException as error:
            if engine is not None:
                engine.close()
            if is_foreign(error):
                raise mapped_error(error, self._data) from error
            raise

    def read(self, work: Work[T]) -> T:
        """Runs `work` in a read transaction of its own: one point in time. Raises
        `Superseded`."""
        use = object()
        try:
            self._uses[use] = _get_ident()  # as `_begin_use`: here the calls would tell
            transaction = self.begin_read()
            try:
                if self.is_sealed(transaction):
                    raise Superseded
                return work(self, transaction)
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
        ended in this thread."""
        if self.readonly or self._gone is not None:
            self.raise_if_readonly()
            self.raise_if_gone()
        now = time.monotonic()
        if now >= self._next_look:  # a file that was deleted would take all that is written
            self._next_look = now + _LOOK_SECONDS
            os.stat(self._data)
        if now >= self._next_reader_check:  # the slots of killed readers keep pages alive
            self._next_reader_check = now + _READER_CHECK_SECONDS
            self._lmdb.reader_check()
        return self._begin(write=True)

    def settle(self) -> bool:
        """As `engine.settle`; nothing where there is a next generation. Whether it did."""
        transaction = self.begin_read()
        try:
            if self.is_sealed(transaction):
                return False
        finally:
            transaction.abort()
        settle(self._lmdb, self.directory)
        return True

    def is_sealed(self, transaction: Transaction) -> bool:
        """Whether there is a next generation. 0.5 us."""
        return transaction.get(layout.SEAL_KEY, db=self.databases.meta) is not None

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
        return self._room.ensure(growth, self.used_bytes, lambda: self.recyclable(transaction))

    def begin_read(self) -> Transaction:
        """A read transaction, to be aborted by the caller. 0.2 us."""
        try:
            try:
                return self._begin()
            except Exception as error:
                if not is_readers_full(error):
                    raise
            self._lmdb.reader_check()
            return self._begin()
        except Exception as error:
            if is_foreign(error):
                raise self._error(error) from error
            raise

    def begin_snapshot(self) -> tuple[Transaction, Held]:
        """A read transaction that stays open, to be ended by `end_snapshot`; and what has to be
        kept as long. Raises `Superseded`."""
        use = object()
        transaction = None
        try:
            self._begin_use(use)
            transaction = self.begin_read()
            if self.is_sealed(transaction):
                raise Superseded
            held = Held(self._data.stat(), transaction.id())
            self._snapshots.add(held)
            return transaction, held
        except BaseException as error:
            if transaction is not None:
                transaction.abort()
            if isinstance(error, Exception) and is_foreign(error):
                raise self._error(error) from error
            raise
        finally:
            self._end_use(use)

    def end_snapshot(self, transaction: Transaction, held: Held) -> None:
        """In the thread that began it."""
        if not self.is_gone:
            transaction.abort()
            self._snapshots.discard(held)
            held.close()

    def is_idle(self) -> bool:
        """Whether nobody reads it in this process."""
        return not self._uses and not self._snapshots

    def supersede(self) -> None:
        """Of a generation that is sealed: what is open is read on, what begins raises
        `Superseded`, also when it is closed: who comes late to it goes on in the next one."""
        self._begin = _refuse_superseded

    def within(self, transaction: Transaction, work: Work[T]) -> T:
        """Runs `work` in a read transaction that stays open: a snapshot's."""
        use = object()
        try:
            self._begin_use(use)
            self.raise_if_gone()
            return work(self, transaction)
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

    def copy_compacted(
        self, transaction: Transaction, directory: Path, capacity: int | None
    ) -> None:
        """Copies all that a transaction sees into an empty directory, as `engine.copy_compacted`;
        an ephemeral store with this capacity, or its own. Raises `CorruptStoreError` where some of
        it cannot be reached."""
        try:
            copy_compacted(transaction, self.databases, directory, capacity or self.capacity)
            refuse_incomplete_copy(
                self._data, transaction, self.databases, directory, ephemeral=self.ephemeral
            )
        except OSError as error:
            if is_foreign(error):  # it is about the copy, which may be on another disk
                raise mapped_error(error, directory) from error
            raise

    def readers(self) -> str:
        """LMDB's table of readers, as it prints it."""
        return self._lmdb.readers()

    def held_by(self, pid: int) -> dict[tuple[str, int], datetime]:
        """The snapshots that a process holds, as `holding.held_by`."""
        return held_by(pid, self._data.stat())

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
        del self._lmdb, self.databases, self.names
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
        if self._begin is not _refuse_superseded:
            self._begin = refuse
        for held in self._snapshots:
            held.close()

    def recyclable(self, transaction: Transaction) -> int:
        """How many bytes of the file hold nothing, about: free, or about to be. (LMDB's
        statistics can be off by some pages.)"""
        pages = _OWN_PAGES
        for database in self.databases:
            if database is not None:
                stat = transaction.stat(database)
                pages += stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
        return max(self.used_bytes() - pages * self.page_size, 0)

    def pinned_bytes(self) -> int:
        """How many bytes hold nothing, and yet cannot be had: to be asked where there is no page.
        Some reader may still see them. 0 where they are few."""
        with suppress(Exception):  # who asks has an error to tell
            transaction = self.begin_read()
            try:
                found = self.recyclable(transaction)
                return found if found > _FEW_PAGES * self.page_size else 0
            finally:
                transaction.abort()
        return 0

    def _prepare(self, check: Callable[[dict[bytes, bytes]], None]) -> None:
        """Before LMDB writes through its map: it gives the file the size of the map, whatever
        the file is, and a hole in it and a full disk would be the end of the process."""
        looked_at = Environment(self.directory, ephemeral=True, readonly=True, check=check)
        try:
            looked_at.close(lambda: StoreClosedError(f"{self._data} was looked at"))
        finally:  # memory may have ended in it, and a process can have it open once
            looked_at._lmdb.close()
        capacity = looked_at.capacity or 0
        if self._data.stat().st_blocks * 512 < capacity:  # a copy may have holes
            allocate_all(self._data, capacity)

    def _make_room(self) -> Room:
        if self.capacity is None:
            return GrowingRoom(self._data, self.used_bytes())
        return FixedRoom(self._data, self.capacity)

    def _error(self, error: Exception) -> StoreError:
        if self._gone is not None:  # closed by another thread meanwhile
            return self._gone()
        if is_map_full(error) and self._room is not None:
            if pinned := self.pinned_bytes():
                return StoreFullError(
                    f"{self._data} is full: readers, or transactions that have just ended, keep "
                    f"{pinned:,} bytes of it that hold nothing any more; nothing was changed; try "
                    f"again, or see who reads for long: quelmdb readers {self.directory.parent} "
                    f"({error})",
                    path=str(self._data),
                )
            return self._room.full(error)
        return mapped_error(error, self._data)


def _refuse_superseded(*args: object, **options: object) -> NoReturn:
    raise Superseded
