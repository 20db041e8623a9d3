"""The directory of a store: made, recognised, and open in this process.

    jobs.qdb/                mode 0700
      000001/data.mdb        see `generations`
      000001/lock.mdb
      owners.lock            see `lockfile`, `owners`, `gate`, `generations`
      boot                   of ephemeral stores: see `boot`
      wakeup                 see `wakeup`

A generation is made under a temporary name, synced, then renamed, by one process
at a time (the maintenance byte of the owners file): a crash leaves litter that the
next creator removes, and never half a store.
"""

from __future__ import annotations

import shutil
import threading
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from quelmdb import boot, layout
from quelmdb.commit import Committer
from quelmdb.durability import EPHEMERAL, FULL, Wanted
from quelmdb.engine import Transaction, create_engine
from quelmdb.engine_errors import is_foreign, mapped_error
from quelmdb.environment import Environment, Superseded, Work
from quelmdb.errors import (
    ForkedStoreError,
    NotAStoreError,
    StoreClosedError,
    StoreError,
    StoreNotFoundError,
)
from quelmdb.filesystem import exists, refuse_copy_on_write, sync_directory
from quelmdb.gate import Gate, LooseGate
from quelmdb.generations import Generations
from quelmdb.holding import Held
from quelmdb.identity import new_meta
from quelmdb.lockfile import LockFile
from quelmdb.opening import Opener, Verify
from quelmdb.owners import Owners
from quelmdb.wakeup import Wakeup

T = TypeVar("T")


class Opened:
    """A store that is open in this process, shared by everything that uses it."""

    def __init__(
        self, path: Path, *, create: bool, readonly: bool, wanted: Wanted, verify: Verify
    ) -> None:
        self.path = path
        self.readonly = readonly
        self.users = 1
        self._wanted = wanted
        self._mark = path / layout.BOOT_FILE
        if not is_store(path) and (not create or readonly):
            raise no_store(path)
        if _has_foreign_files(path):
            raise _not_a_store(path)
        self._locks = LockFile(path / layout.OWNERS_FILE, readonly=readonly)
        self.generations = Generations(path, self._locks)
        try:
            if not is_store(path):
                self._create()
            if not readonly:  # who made it may have died before its name was durable
                sync_directory(path)
                sync_directory(path.parent)
            self.ephemeral = exists(self._mark)
            self.opener = Opener(
                path,
                self._locks,
                self.generations,
                ephemeral=self.ephemeral,
                readonly=readonly,
                verify=verify,
            )
            with self.opener.at_gate():
                self.opener.delete_litter()
                self.environment = self.opener.open()
                self.wakeup = self._open_wakeup()
        except BaseException:
            self._locks.close()
            raise
        self._retired: list[Environment] = []  # superseded, and still read
        self._sweeping = threading.Lock()
        try:
            self.owners = Owners(self._locks)
            self.committer = Committer(
                self.environment, self.owners, self._gate(), self.wakeup, self._move_on
            )
        except BaseException:  # left open, it could not be opened again
            self.environment.close(self._gone)
            self._locks.close()
            raise

    def _open_wakeup(self) -> Wakeup:
        if self.readonly:
            return Wakeup(None)
        try:
            has_company = self.opener.has_company()
            return Wakeup(self.path / layout.WAKEUP_FILE, has_company=has_company)
        except BaseException:
            self.environment.close(self._gone)
            raise

    def _gate(self) -> Gate:
        if self.ephemeral:
            return LooseGate(self._locks, self.wakeup.has_company)
        return Gate(self._locks)

    @property
    def durability(self) -> str:
        """What the store promises of a write that has returned."""
        return EPHEMERAL if self.ephemeral else FULL

    def refuse_other(self, wanted: Wanted) -> None:
        """Raises `DurabilityError` where it is not what is asked for."""
        wanted.refuse_other(str(self.path), self.durability, self.environment.capacity)

    # --- Reading ------------------------------------------------------------

    def read(self, work: Work[T]) -> T:
        """Runs `work` in a read transaction of the generation that is the store."""
        while True:
            environment = self.environment
            try:
                return environment.read(work)
            except Superseded:
                self.committer.move_on(environment)
            finally:
                if self._retired:
                    self.sweep()

    def snapshot(self) -> tuple[Environment, Transaction, Held]:
        """A read transaction that stays open, to be ended by `end_snapshot`; and what has to be
        kept as long."""
        while True:
            environment = self.environment
            try:
                return environment, *environment.begin_snapshot()
            except Superseded:
                self.committer.move_on(environment)

    def end_snapshot(self, environment: Environment, transaction: Transaction, held: Held) -> None:
        """In the thread that began it."""
        environment.end_snapshot(transaction, held)
        if self._retired:
            self.sweep()

    # --- The next generation --------------------------------------------------

    def _move_on(self) -> Environment:
        """Opens the generation that has superseded the one that is open. Called by the
        committer, in its turn and at the gate. Raises `StoreError`; it is tried again then by
        who comes next."""
        old = self.environment
        try:
            new = self.opener.open_above(old.number)
        except OSError as error:
            if is_foreign(error):
                raise mapped_error(error, self.path) from error
            raise
        old.supersede()
        self._retired.append(old)
        self.environment = new
        self.sweep()  # who only writes comes to it nowhere else
        return new

    def sweep(self) -> None:
        """Closes what is superseded and not read any more by this process, and deletes what
        nobody reads: what another process reads as yet is looked at again."""
        if not self._sweeping.acquire(blocking=False):
            return  # another thread is about it
        try:
            for environment in [one for one in self._retired if one.is_idle()]:
                environment.close(self._gone)
                self.generations.let_go(environment.number)
                with suppress(OSError):  # who opens the store tries again
                    if not (self.readonly or self.generations.delete_unread(environment.number)):
                        continue
                self._retired.remove(environment)
        finally:
            self._sweeping.release()

    # --- Creation and end -----------------------------------------------------

    def _create(self) -> None:
        durability, capacity = self._wanted.for_new()
        generation = self.generations.directory(layout.FIRST_GENERATION)
        begun = self.generations.new_directory(layout.FIRST_GENERATION)
        self._locks.lock(layout.MAINTENANCE_BYTE)  # waits for another creator
        try:
            if is_store(self.path):
                return
            shutil.rmtree(begun, ignore_errors=True)
            try:
                self._mark.unlink(missing_ok=True)
                begun.mkdir(0o700)
                if capacity is not None:
                    refuse_copy_on_write(self.path)
                    boot.record(self._mark)
                create_engine(begun, new_meta(durability), capacity)
                sync_directory(begun)
                begun.rename(generation)
            except BaseException:  # it may have taken all that was left of the disk
                shutil.rmtree(begun, ignore_errors=True)
                if not generation.exists():  # an interrupt may come behind the new name
                    self._mark.unlink(missing_ok=True)
                raise
        finally:
            self._locks.unlock(layout.MAINTENANCE_BYTE)

    def close(self) -> None:
        self.committer.close(self._gone)
        for environment in [self.environment, *self._retired]:
            environment.close(self._gone)
        for environment in self._retired:
            self.generations.let_go(environment.number)
            if not self.readonly:
                self.generations.delete_unread(environment.number)
        self._retired.clear()
        self.owners.end()
        self._locks.close()
        self.wakeup.close()

    def forget(self) -> None:
        """In the child of a fork: lets go of everything without ending the parent's use."""
        path = str(self.path)

        def gone() -> StoreError:
            return ForkedStoreError(
                f"{path} was opened before a fork, and cannot be used in the child; open it "
                "again there, or start processes with spawn or forkserver",
                path=path,
            )

        self.committer.forget(gone)
        for environment in [self.environment, *self._retired]:
            environment.forget(gone)
        self._retired.clear()
        self.owners.end()
        self.wakeup.close()
        self._locks.close()  # the child holds no locks yet, so none are dropped

    def _gone(self) -> StoreError:
        return StoreClosedError(f"{self.path} was closed", path=str(self.path))


def is_store(path: Path) -> bool:
    """Whether the directory has a generation. Raises `NotAStoreError` where it has one without
    its file."""
    # Twice: what gets its name while the directory is listed may not be in the list.
    return _lists_generation(path) or _lists_generation(path)


def _lists_generation(path: Path) -> bool:
    found = False
    for entry in path.iterdir():
        if layout.generation_number(entry.name) is not None:
            if not exists(entry / layout.DATA_FILE) and exists(entry):
                raise _not_a_store(path)
            found = True
    return found


def no_store(path: Path) -> StoreError:
    """The error for a path where no store is, or was a moment ago."""
    if path.is_dir() and _has_foreign_files(path):
        return _not_a_store(path)
    return StoreNotFoundError(f"there is no store at {path}", path=str(path))


def _not_a_store(path: Path) -> NotAStoreError:
    first = layout.generation_name(layout.FIRST_GENERATION)
    return NotAStoreError(
        f"{path} is no store: it has other things in it, and no {first}/"
        f"{layout.DATA_FILE}; give a new or an empty directory",
        path=str(path),
    )


def _has_foreign_files(path: Path) -> bool:
    """Whether something is there that is not a store's, and no store, which another process may
    be making."""
    return any(not layout.is_litter(entry.name) for entry in path.iterdir()) and not is_store(path)
