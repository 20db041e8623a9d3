"""Repairing a store: offline, with the damaged generation kept beside the new one."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from quelmdb import boot, layout, registry
from quelmdb.directory import is_store, no_store
from quelmdb.durability import EPHEMERAL, FULL
from quelmdb.errors import NotAStoreError, StoreBusyError, StoreError
from quelmdb.filesystem import sync_directory
from quelmdb.generations import Generations
from quelmdb.lockfile import LockFile
from quelmdb.maintenance.check import check_pages_at_opening
from quelmdb.maintenance.repair import Progress, Repaired, repair
from quelmdb.maintenance.salvage import Salvage
from quelmdb.pages import Pages
from quelmdb.persistence import Problem


def check_unopened(path: str | os.PathLike[str]) -> list[Problem]:
    """What LMDB might not survive where the store at `path` is opened: to be asked before, where
    there is a doubt. Nothing where there is no store. Changes nothing, also beside processes that
    use it. O(free pages)."""
    found: list[Problem] = []
    # What may not be read is refused with a reason by who opens it.
    with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
        for entry in sorted(Path(path).iterdir()):
            if layout.generation_number(entry.name) is not None:
                with suppress(FileNotFoundError):  # it may be deleted meanwhile
                    found += check_pages_at_opening(entry)
    return found


def repair_store(path: str | os.PathLike[str], progress: Progress | None = None) -> Repaired:
    """Puts a new generation of every whole job in the place of a damaged one, which is kept as
    `NNNNNN.damaged` in the store's directory; what is no whole job is set aside in a file
    there, `aside-….cbor`. Indexes, counters and worker names are made again. What else looks like
    a generation, most likely the rest of a compaction, is kept as `NNNNNN-….unused`.

    Nobody may have the store open: `StoreBusyError`. Raises as `quelmdb.maintenance.repair.repair`
    does; the store is as it was then. A crash in the middle leaves the damaged one, or the
    new one. O(pages and jobs); needs as much space again.
    """
    place = Path(os.path.abspath(path))
    try:
        return _repair_store(place, progress)
    except OSError as error:
        if isinstance(error, StoreError):
            raise
        raise registry.mapped(error, place) from error


def _repair_store(place: Path, progress: Progress | None) -> Repaired:
    if place.exists() and not place.is_dir():
        raise NotAStoreError(f"{place} is a file; a store is a directory", path=str(place))
    if not is_store(place):
        raise no_store(place)
    with ExitStack() as alone:
        if not alone.enter_context(registry.kept_closed(place)):
            raise _busy(place)
        locks = LockFile(place / layout.OWNERS_FILE, readonly=False)
        alone.callback(locks.close)
        generations = Generations(place, locks)
        alone.enter_context(_alone(locks, layout.MAINTENANCE_BYTE, place))
        # Of each: the damage may have cost the seal of one that others have gone on from.
        for number in generations.numbers():
            alone.enter_context(_alone(locks, layout.READER_BYTES + number, place))
        return _replace(generations, _lowest_unsealed(generations), progress)


def _replace(generations: Generations, damaged: int, progress: Progress | None) -> Repaired:
    path, mark = generations.path, generations.path / layout.BOOT_FILE
    generations.delete_litter()
    begun = generations.new_directory(damaged + 1)
    aside = path / f"aside-{layout.generation_name(damaged)}-{time.time_ns()}.cbor"
    try:
        begun.mkdir(0o700)
        repaired = repair(
            generations.directory(damaged),
            begun,
            begun / aside.name,  # to be deleted with it where this process is killed
            durability=EPHEMERAL if mark.exists() else FULL,
            progress=progress,
        )
        if mark.exists():
            boot.record(mark)
        if repaired.aside is not None:
            repaired.aside = repaired.aside.rename(aside)
        unused = _out_of_the_way(generations, damaged)
        begun.rename(generations.directory(damaged + 1))
    except BaseException:
        shutil.rmtree(begun, ignore_errors=True)
        aside.unlink(missing_ok=True)
        raise
    sync_directory(path)
    # Last: the lowest generation is the store.
    kept = f"{layout.generation_name(damaged)}.damaged"
    generations.directory(damaged).rename(path / kept)
    sync_directory(path)
    repaired.set_aside += len(unused)
    repaired.problems += unused
    return repaired


def _out_of_the_way(generations: Generations, damaged: int) -> list[Problem]:
    """Renames what is numbered above a damaged generation: the rest of a compaction that was
    broken off; or the store, where the damage has cost the seal."""
    found = []
    for number in generations.numbers():
        if number > damaged:
            name = layout.generation_name(number)
            kept = f"{name}-{time.time_ns()}.unused"
            generations.directory(number).rename(generations.path / kept)
            found.append(
                Problem("structure", f"{name} is set aside as {kept}: nothing refers to it")
            )
    return found


def _lowest_unsealed(generations: Generations) -> int:
    """Of several generations. The last one is the store, whatever it says."""
    *sealed, last = generations.numbers()
    for number in sealed:
        with Pages(generations.directory(number) / layout.DATA_FILE) as pages:
            if layout.SEAL_KEY not in dict(Salvage(pages).entries(layout.META)):
                return number
    return last


@contextmanager
def _alone(locks: LockFile, byte: int, path: Path) -> Iterator[None]:
    if not locks.try_lock(byte):
        raise _busy(path)
    try:
        yield
    finally:
        locks.unlock(byte)


def _busy(path: Path) -> StoreBusyError:
    return StoreBusyError(
        f"{path} is in use: a store is repaired while nobody has it open; stop its runners, and "
        "close it here",
        path=str(path),
    )
