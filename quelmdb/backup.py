"""A copy of a store that is in use: one point in time, a store itself, without holes."""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from quelmdb import boot, layout
from quelmdb.directory import Opened, is_store
from quelmdb.errors import NotAStoreError, StoreBusyError, StoreError
from quelmdb.filesystem import refuse_copy_on_write, sync_directory
from quelmdb.lockfile import LockFile
from quelmdb.registry import mapped


class Sink(Protocol):
    """Where a backup goes: a binary stream."""

    def write(self, data: bytes, /) -> object: ...


def backup(opened: Opened, target: Path) -> int:
    """Makes a store of what `opened` has now in a new or an empty directory, synced; returns the
    bytes of its file. What a backup that was killed has left there is deleted.

    Raises `NotAStoreError` where there is something in the directory, or it is inside of a store,
    `StoreBusyError` where another process makes one there, `StoreError`; nothing is left then.
    O(jobs).
    """
    try:
        return _backup(opened, target)
    except OSError as error:
        if isinstance(error, StoreError):
            raise
        raise mapped(error, target) from error


def _backup(opened: Opened, target: Path) -> int:
    if any((parent / layout.OWNERS_FILE).exists() for parent in target.resolve().parents):
        raise NotAStoreError(f"{target} is inside of a store; give another one", path=str(target))
    is_new = not target.exists()
    target.mkdir(0o700, exist_ok=True)
    _refuse_used(target)
    locks = LockFile(target / layout.OWNERS_FILE, readonly=False)
    try:
        if not locks.try_lock(layout.MAINTENANCE_BYTE):
            raise StoreBusyError(
                f"another process makes a store in {target} just now", path=str(target)
            )
        _refuse_used(target)  # once more: nobody else makes a store there from here on
        try:
            return _fill(opened, target)
        except BaseException:  # it may have taken all that was left of the disk
            _empty(target)
            if is_new:
                with suppress(OSError):  # somebody has put something there
                    target.rmdir()
            raise
    finally:
        locks.close()


def _refuse_used(target: Path) -> None:
    if any(not layout.is_litter(entry.name) for entry in target.iterdir()):
        raise NotAStoreError(
            f"{target} is not empty; give a new or an empty directory", path=str(target)
        )


def _empty(target: Path) -> None:
    """Deletes what a store that is not finished has in its directory."""
    if is_store(target):  # an interrupt came behind its name
        return
    for entry in filter(lambda entry: layout.is_litter(entry.name), target.iterdir()):
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)


def _fill(opened: Opened, target: Path) -> int:
    generation = target / layout.generation_name(layout.FIRST_GENERATION)
    begun = target / f"{time.time_ns()}.new"  # of this backup alone: no other one renames it
    for litter in target.glob("*.new"):
        shutil.rmtree(litter, ignore_errors=True)
    if opened.ephemeral:
        refuse_copy_on_write(target)
    begun.mkdir(0o700)
    opened.read(
        lambda environment, transaction: environment.copy_compacted(transaction, begun, None)
    )
    if opened.ephemeral:
        boot.record(target / layout.BOOT_FILE)
    begun.rename(generation)
    sync_directory(target)
    sync_directory(target.parent)
    return (generation / layout.DATA_FILE).stat().st_size


def backup_to_stream(opened: Opened, stream: Sink, directory: str | None) -> int:
    """Writes the same as a tar archive, to be unpacked into an empty directory. It is made in a
    temporary one first (below `directory`, or where temporary files go), so that a slow reader
    of the stream keeps nobody waiting and no pages alive. Returns the bytes of its file."""
    with tempfile.TemporaryDirectory(
        prefix="quelmdb-backup-", dir=directory, ignore_cleanup_errors=True
    ) as place:
        made = Path(place, "store")
        size = backup(opened, made)
        with tarfile.open(fileobj=stream, mode="w|") as archive:  # type: ignore[call-overload]
            for entry in sorted(os.listdir(made)):
                archive.add(made / entry, arcname=entry)
        return size
