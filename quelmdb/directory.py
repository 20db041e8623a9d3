"""The directory of a store: made, recognised, opened, verified.

    jobs.qdb/                mode 0700
      000001/data.mdb        a generation: an LMDB environment
      000001/lock.mdb
      owners.lock            see `lockfile`, `owners`, `gate`
      boot                   of ephemeral stores: see `boot`
      wakeup                 see `wakeup`

A generation is made under a temporary name, synced, then renamed, by one process
at a time (the maintenance byte of the owners file): a crash leaves litter that the
next creator removes, and never half a store.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from quelmdb import boot, layout
from quelmdb.commit import Committer
from quelmdb.durability import EPHEMERAL, FULL, Wanted
from quelmdb.engine import create_engine, structural_problems
from quelmdb.environment import Environment
from quelmdb.errors import (
    CorruptStoreError,
    ForkedStoreError,
    NotAStoreError,
    StoreClosedError,
    StoreError,
    StoreNotFoundError,
    UnsupportedFormatError,
)
from quelmdb.filesystem import (
    refuse_copy_on_write,
    sync_directory,
)
from quelmdb.gate import Gate
from quelmdb.lockfile import LockFile
from quelmdb.names import Names
from quelmdb.owners import Owners
from quelmdb.persistence import Problem
from quelmdb.wakeup import Wakeup

_BEGUN: Final = layout.GENERATION + ".new"  # a generation that is being made
_LITTER: Final = frozenset((_BEGUN, layout.OWNERS_FILE, layout.BOOT_FILE, layout.WAKEUP_FILE))
_SHOWN: Final = 3  # problems in a message

Verify = Callable[[Environment], list[Problem]]
"""Every rule of the format that does not hold."""


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
        generation = path / layout.GENERATION
        if not generation.exists():
            if not create or readonly:
                raise no_store(path)
            _refuse_foreign_files(path)
        elif not (generation / layout.DATA_FILE).exists():
            raise _not_a_store(path)
        self._locks = LockFile(path / layout.OWNERS_FILE, readonly=readonly)
        try:
            if not generation.exists():
                self._create(generation)
            self.ephemeral = self._mark.exists()
            self.environment = self._open(generation, verify)
        except BaseException:
            self._locks.close()
            raise
        self.names = Names(self.environment.databases)
        self.owners = Owners(self._locks)
        gate = None if self.ephemeral else Gate(self._locks)
        self.wakeup = Wakeup(None if readonly else path / layout.WAKEUP_FILE)
        self.committer = Committer(
            self.environment, self.names, self.owners, gate, self.wakeup.wake
        )
        if not readonly:  # whoever made the store may have died before its name was durable
            sync_directory(path)
            sync_directory(path.parent)

    @property
    def durability(self) -> str:
        """What the store promises of a write that has returned."""
        return EPHEMERAL if self.ephemeral else FULL

    def refuse_other(self, wanted: Wanted) -> None:
        """Raises `DurabilityError` where it is not what is asked for."""
        wanted.refuse_other(str(self.path), self.durability, self.environment.capacity)

    def _create(self, generation: Path) -> None:
        durability, capacity = self._wanted.for_new()
        with self._maintenance():  # waits for another creator
            if generation.exists():
                return
            begun = self.path / _BEGUN
            shutil.rmtree(begun, ignore_errors=True)
            try:
                self._mark.unlink(missing_ok=True)
                begun.mkdir(0o700)
                if capacity is not None:
                    refuse_copy_on_write(self.path)
                    boot.record(self._mark)
                create_engine(begun, _new_meta(durability), capacity)
                sync_directory(begun)
                begun.rename(generation)
            except BaseException:  # it may have taken all that was left of the disk
                shutil.rmtree(begun, ignore_errors=True)
                if not generation.exists():  # an interrupt may come behind the new name
                    self._mark.unlink(missing_ok=True)
                raise

    def _open(self, generation: Path, verify: Verify) -> Environment:
        if not self.ephemeral:
            return self._open_in_turn(generation)
        if not self.readonly:
            refuse_copy_on_write(self.path)
        if boot.is_recorded(self._mark):
            return self._open_environment(generation)
        with self._maintenance():  # nobody writes to it before it is verified
            if boot.is_recorded(self._mark) or self._is_served():
                return self._open_environment(generation)
            environment = self._open_verified(generation, verify)
            if not self.readonly:
                boot.record(self._mark)
            return environment

    def _open_in_turn(self, generation: Path) -> Environment:
        """LMDB's lock for writers is taken to open for writing: waited for where signals
        are heard."""
        if self.readonly:
            return self._open_environment(generation)
        gate = Gate(self._locks)
        try:
            gate.enter()
            return self._open_environment(generation)
        finally:
            gate.leave()

    def _is_served(self) -> bool:
        """Whether another process writes to it, as it may in this run of the machine alone."""
        place = layout.SERVER_BYTES, layout.MAX_PROCESS_ID
        if not self._locks.try_lock(*place, shared=True):
            return True
        self._locks.unlock(*place)
        return False

    def _open_verified(self, generation: Path, verify: Verify) -> Environment:
        """As another run of the machine left it: nothing of it is trusted."""
        self._refuse_damaged(structural_problems(generation))  # before LMDB sees it
        environment = self._open_environment(generation)
        try:
            self._refuse_damaged(verify(environment))
        except BaseException:
            environment.close(lambda: StoreClosedError(f"{self.path} was closed"))
            raise
        return environment

    def _refuse_damaged(self, problems: Sequence[object]) -> None:
        if problems:
            raise CorruptStoreError(
                f"{self.path} is ephemeral, and did not survive the end of the machine's last run: "
                f"{'; '.join(map(str, problems[:_SHOWN]))}"
                f"{f' and {len(problems) - _SHOWN:,} more' if len(problems) > _SHOWN else ''}; "
                "delete the directory, and fill a new store from where its jobs came from",
                path=str(self.path),
            )

    def _open_environment(self, generation: Path) -> Environment:
        if self.ephemeral and not self.readonly:
            # Not waited for: who has it lives in another PID namespace, which LMDB refuses.
            self._locks.try_lock(layout.SERVER_BYTES + os.getpid())
        return Environment(
            generation, ephemeral=self.ephemeral, readonly=self.readonly, check=self._check
        )

    @contextmanager
    def _maintenance(self) -> Iterator[None]:
        """Keeps out other processes that create or verify; but for other readers, a reader."""
        self._locks.lock(layout.MAINTENANCE_BYTE, shared=self.readonly)
        try:
            yield
        finally:
            self._locks.unlock(layout.MAINTENANCE_BYTE)

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
        known = layout.OPTIONS_FEATURE.decode()
        served = [
            ("byte order", layout.BYTE_ORDER[0], [layout.BYTE_ORDER[1].decode()]),
            ("features", layout.FEATURES_KEY, [known, ""]),
        ]
        if not self.readonly:
            served.append(("features for writing", layout.WRITE_FEATURES_KEY, [""]))
        for name, key, expected in served:
            found = meta.get(key, b"").decode(errors="replace")
            if found not in expected:
                raise UnsupportedFormatError(
                    f"{path} has the {name} {found!r}, and this quelmdb serves {expected[0]!r} "
                    "alone; use a version of quelmdb that knows it",
                    path=path,
                    expected=expected[0],
                    found=found,
                )
        durability = meta.get(layout.DURABILITY_KEY, b"").decode(errors="replace")
        if durability not in (FULL, EPHEMERAL):
            raise UnsupportedFormatError(
                f"{path} has the durability {durability!r}, and this quelmdb knows {FULL!r} and "
                f"{EPHEMERAL!r}; use a version of quelmdb that knows it",
                path=path,
                expected=(FULL, EPHEMERAL),
                found=durability,
            )
        if durability != self.durability:
            raise CorruptStoreError(
                f"{path} is {durability}, and an ephemeral store alone has a file "
                f"{self._mark.name}; "
                + ("make an empty one" if durability == EPHEMERAL else "delete it"),
                path=path,
                expected=self.durability,
                found=durability,
            )

    def close(self) -> None:
        path = str(self.path)

        def gone() -> StoreError:
            return StoreClosedError(f"{path} was closed", path=path)

        self.committer.close(gone)
        self.environment.close(gone)
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
        self.environment.forget(gone)
        self.names.forget()
        self.owners.end()
        self.wakeup.close()
        self._locks.close()  # the child holds no locks yet, so none are dropped


def no_store(path: Path) -> StoreError:
    """The error for a path where no store is."""
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


def _new_meta(durability: str) -> list[tuple[bytes, bytes]]:
    return [
        layout.IDENTITY,
        (layout.FORMAT_KEY, layout.pack_number(layout.FORMAT_VERSION)),
        (layout.FEATURES_KEY, layout.OPTIONS_FEATURE),
        (layout.WRITE_FEATURES_KEY, b""),
        layout.BYTE_ORDER,
        (layout.DURABILITY_KEY, durability.encode()),
        (layout.UUID_KEY, uuid.uuid4().bytes),
        (layout.NEXT_ID, layout.pack_number(1)),
        (layout.NEXT_CLAIM, layout.pack_number(1)),
        (layout.NEXT_OWNER, layout.pack_number(1)),
        (layout.NEXT_WORKER, layout.pack_number(1)),
    ]
