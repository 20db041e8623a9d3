"""The generations of a store: which there are, who has one open, and when they are deleted.

    jobs.qdb/
      000001/       a generation: an LMDB environment
      000002/       its successor: compacted, while 000001 says in its `meta` that it is sealed
      000003.new/   one that is being made
      000001.dead/  one that is being deleted

The lowest that is not sealed is the store; what is numbered above it is what a broken
compaction has left. Whoever has a generation open shares its byte of the lock file, so that
it is deleted when the last one lets go, however that ends.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

from quelmdb.filesystem import sync_directory
from quelmdb.layout import READER_BYTES, generation_name, generation_number
from quelmdb.lockfile import LockFile


class Generations:
    """Those of one store, as this process uses them."""

    def __init__(self, path: Path, locks: LockFile) -> None:
        self.path = path
        self._locks = locks
        self._open: set[int] = set()

    def numbers(self) -> list[int]:
        """Those that there are, ascending."""
        found = (generation_number(entry.name) for entry in self.path.iterdir())
        return sorted(number for number in found if number is not None)

    def directory(self, number: int) -> Path:
        return self.path / generation_name(number)

    def new_directory(self, number: int) -> Path:
        """Where a generation is made, before it gets its name."""
        return self.path / f"{generation_name(number)}.new"

    def hold(self, number: int) -> None:
        """Keeps a generation from being deleted. Waits for who deletes it just now."""
        self._locks.lock(READER_BYTES + number, shared=True)
        self._open.add(number)

    def let_go(self, number: int) -> None:
        """Ends `hold`."""
        self._open.discard(number)
        self._locks.unlock(READER_BYTES + number)

    def delete_unread(self, number: int) -> bool:
        """Deletes a generation that is sealed, unless somebody has it open; whether it did."""
        if number in self._open or not self._locks.try_lock(READER_BYTES + number):
            return False
        try:
            self.delete(number)
        finally:
            self._locks.unlock(READER_BYTES + number)
        return True

    def delete(self, number: int) -> None:
        """Deletes a generation: renamed first, since one with half of its files is none."""
        dead = self.path / f"{generation_name(number)}.dead"
        with suppress(FileNotFoundError):  # somebody else was faster
            self.directory(number).rename(dead)
            sync_directory(self.path)
        shutil.rmtree(dead, ignore_errors=True)

    def delete_litter(self) -> None:
        """Deletes what was never finished, and what is dead. Called by who maintains it."""
        for entry in self.path.iterdir():
            if entry.name.endswith((".new", ".dead")) and generation_number(entry.stem):
                shutil.rmtree(entry, ignore_errors=True)
