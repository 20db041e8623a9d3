"""Repairing a store: offline, with the damaged generation kept beside the new one."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from quelmdb import boot, layout, registry
from quelmdb.directory import no_store
from quelmdb.durability import EPHEMERAL, FULL
from quelmdb.errors import StoreBusyError
from quelmdb.filesystem import sync_directory
from quelmdb.generations import Generations
from quelmdb.lockfile import LockFile
from quelmdb.maintenance.pages import Pages
from quelmdb.maintenance.repair import Progress, Repaired, repair
from quelmdb.maintenance.salvage import Salvage


def repair_store(path: str | os.PathLike[str], progress: Progress | None = None) -> Repaired:
    """Puts a new generation of every whole job in the place of a damaged one, which is kept as
    `NNNNNN.damaged` in the store's directory; what is no whole job is set aside in a file
    there, `aside-….cbor`. Indexes, counters and worker names are made again.

    Nobody may have the store open: `StoreBusyError`. Raises as `quelmdb.maintenance.repair.repair`
    does; the store is as it was then. A crash in the middle leaves the damaged one, or the
    new one. O(pages and jobs); needs as much space again.
    """
    place = Path(os.path.abspath(path))
    if not place.is_dir() or registry.is_open(place):
        raise no_store(place) if not place.is_dir() else _busy(place)
    locks = LockFile(place / layout.OWNERS_FILE, readonly=False)
    try:
        generations = Generations(place, locks)
        with _alone(locks, layout.MAINTENANCE_BYTE, place):
            damaged = _lowest_unsealed(generations)
            if damaged is None:
                raise no_store(place)
            with _alone(locks, layout.READER_BYTES + damaged, place):
                return _replace(generations, damaged, progress)
    finally:
        locks.close()


def _replace(generations: Generations, damaged: int, progress: Progress | None) -> Repaired:
    path, mark = generations.path, generations.path / layout.BOOT_FILE
    generations.delete_litter()
    for above in generations.numbers():
        if above > damaged:  # of a compaction that was broken off
            generations.delete(above)
    begun = generations.new_directory(damaged + 1)
    aside = path / f"aside-{layout.generation_name(damaged)}-{time.time_ns()}.cbor"
    try:
        begun.mkdir(0o700)
        repaired = repair(
            generations.directory(damaged),
            begun,
            aside,
            durability=EPHEMERAL if mark.exists() else FULL,
            progress=progress,
        )
        if mark.exists():
            boot.record(mark)
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
    return repaired


def _lowest_unsealed(generations: Generations) -> int | None:
    for number in generations.numbers():
        with Pages(generations.directory(number) / layout.DATA_FILE) as pages:
            meta = dict(Salvage(pages).entries(layout.META))
        if layout.SEAL_KEY not in meta or not generations.directory(number + 1).exists():
            return number
    return None


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
