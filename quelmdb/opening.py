"""Opening the generation that is the store: found, waited for, and verified where it may have
been lost with the last run of the machine."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from quelmdb import boot, layout
from quelmdb.engine import structural_problems
from quelmdb.environment import Environment, Superseded, Work
from quelmdb.errors import CorruptStoreError, StoreClosedError
from quelmdb.filesystem import refuse_copy_on_write
from quelmdb.gate import Gate
from quelmdb.generations import Generations
from quelmdb.identity import check_meta
from quelmdb.lockfile import LockFile
from quelmdb.persistence import Problem

_SHOWN: Final = 3  # problems in a message

Verify = Work[list[Problem]]
"""Every rule of the format that does not hold."""


class Opener:
    """Opens a store that exists, again and again: when it was compacted, its next generation."""

    def __init__(
        self,
        path: Path,
        locks: LockFile,
        generations: Generations,
        *,
        ephemeral: bool,
        readonly: bool,
        verify: Verify,
    ) -> None:
        self._path = path
        self._locks = locks
        self._generations = generations
        self._ephemeral = ephemeral
        self._readonly = readonly
        self._verify = verify
        self._mark = path / layout.BOOT_FILE

    @contextmanager
    def at_gate(self) -> Iterator[None]:
        """Where those stand who write. LMDB's lock for writers is taken to open a store for
        writing: it is waited for here, where signals are heard."""
        if self._readonly:
            yield
            return
        gate = Gate(self._locks)
        try:
            gate.enter()
            yield
        finally:
            gate.leave()

    def open(self) -> Environment:
        """The lowest generation that is not sealed. Called at the gate."""
        return self.open_above(0)

    def delete_litter(self) -> None:
        """Deletes what a compaction that was killed has left, which may be as large as the store.
        Called at the gate; nothing where somebody maintains the store just now."""
        if not self._readonly and self._locks.try_lock(layout.MAINTENANCE_BYTE):
            try:
                self._generations.delete_litter()
            finally:
                self._locks.unlock(layout.MAINTENANCE_BYTE)

    def has_company(self) -> bool:
        """Whether another process writes, too, or may. Called at the gate, so that of two that
        open the store at the same time the second one sees the first."""
        own, end = layout.SERVER_BYTES + os.getpid(), layout.SERVER_BYTES + layout.MAX_PROCESS_ID
        return not (
            self._ephemeral
            and self._nobody_has(layout.SERVER_BYTES, own - layout.SERVER_BYTES)
            and self._nobody_has(own + 1, end - own)
        )

    def open_above(self, sealed: int) -> Environment:
        """The lowest generation above one that is known to be sealed. Called at the gate."""
        generations = self._generations
        numbers = generations.numbers()
        while numbers:
            for number in [number for number in numbers if number > sealed]:
                generations.hold(number)
                try:
                    return self._open(generations.directory(number))
                except Superseded:
                    generations.let_go(number)
                    if not self._readonly:
                        generations.delete_unread(number)
                except FileNotFoundError:
                    generations.let_go(number)
                    if generations.directory(number).exists():
                        raise
                except BaseException:
                    generations.let_go(number)
                    raise
            known, numbers = numbers, generations.numbers()
            if numbers == known:
                break  # nobody has made another one, nor deleted one
        raise CorruptStoreError(
            f"{self._path} has no generation that is not superseded: the last one is missing; "
            "restore it from a backup",
            path=str(self._path),
        )

    def _open(self, generation: Path) -> Environment:
        if not self._ephemeral:
            return self._open_environment(generation)
        if not self._readonly:
            refuse_copy_on_write(self._path)
        if boot.is_recorded(self._mark):
            return self._open_environment(generation)
        with self.maintenance():  # nobody writes to it before it is verified
            if boot.is_recorded(self._mark) or self._is_served():
                return self._open_environment(generation)
            environment = self._open_verified(generation)
            if not self._readonly:
                boot.record(self._mark)
            return environment

    @contextmanager
    def maintenance(self) -> Iterator[None]:
        """Keeps out other processes that create, verify or compact; but for other readers, a
        reader."""
        self._locks.lock(layout.MAINTENANCE_BYTE, shared=self._readonly)
        try:
            yield
        finally:
            self._locks.unlock(layout.MAINTENANCE_BYTE)

    def _is_served(self) -> bool:
        """Whether another process writes to it, as it may in this run of the machine alone."""
        return not self._nobody_has(layout.SERVER_BYTES, layout.MAX_PROCESS_ID)

    def _nobody_has(self, byte: int, count: int) -> bool:
        """Of bytes that this process has not."""
        if not self._locks.try_lock(byte, count, shared=True):
            return False
        self._locks.unlock(byte, count)
        return True

    def _open_verified(self, generation: Path) -> Environment:
        """As another run of the machine left it: nothing of it is trusted."""
        self._refuse_damaged(structural_problems(generation))  # before LMDB sees it
        environment = self._open_environment(generation)
        try:
            self._refuse_damaged(environment.read(self._verify))
        except BaseException:
            environment.close(lambda: StoreClosedError(f"{self._path} was closed"))
            raise
        return environment

    def _refuse_damaged(self, problems: Sequence[object]) -> None:
        if problems:
            raise CorruptStoreError(
                f"{self._path} is ephemeral, and did not survive the end of the machine's last "
                f"run: {'; '.join(map(str, problems[:_SHOWN]))}"
                f"{f' and {len(problems) - _SHOWN:,} more' if len(problems) > _SHOWN else ''}; "
                "save what is left (quelmdb check --repair), or delete the directory, and fill a "
                "new store from where its jobs came from",
                path=str(self._path),
            )

    def _open_environment(self, generation: Path) -> Environment:
        if self._ephemeral and not self._readonly:
            # Not waited for: who has it lives in another PID namespace, which LMDB refuses.
            self._locks.try_lock(layout.SERVER_BYTES + os.getpid())
        return Environment(
            generation, ephemeral=self._ephemeral, readonly=self._readonly, check=self._check
        )

    def _check(self, meta: dict[bytes, bytes]) -> None:
        check_meta(self._path, meta, ephemeral=self._ephemeral, readonly=self._readonly)
        if layout.SEAL_KEY in meta:
            raise Superseded
