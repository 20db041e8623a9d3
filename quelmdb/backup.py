"""A copy of a store that is in use: one point in time, a store itself, without holes."""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile
from pathlib import Path
from typing import Protocol

from quelmdb import boot, layout
from quelmdb.directory import Opened
from quelmdb.errors import NotAStoreError
from quelmdb.filesystem import refuse_copy_on_write, sync_directory


class Sink(Protocol):
    """Where a backup goes: a binary stream."""

    def write(self, data: bytes, /) -> object: ...


def backup(opened: Opened, target: Path) -> int:
    """Makes a store of what `opened` has now in a new or an empty directory, synced; returns the
    bytes of its file.

    Raises `NotAStoreError` where there is something in the directory, `OSError`. O(jobs).
    """
    target.mkdir(0o700, exist_ok=True)
    if any(target.iterdir()):
        raise NotAStoreError(
            f"{target} is not empty; give a new or an empty directory", path=str(target)
        )
    if opened.ephemeral:
        refuse_copy_on_write(target)
    name = layout.generation_name(layout.FIRST_GENERATION)
    begun = target / f"{name}.new"
    try:
        begun.mkdir(0o700)
        opened.read(
            lambda environment, transaction: environment.copy_compacted(transaction, begun, None)
        )
        if opened.ephemeral:
            boot.record(target / layout.BOOT_FILE)
        (target / layout.OWNERS_FILE).touch(0o600)  # who opens it for reading makes none
        begun.rename(target / name)
    except BaseException:  # it may have taken all that was left of the disk
        shutil.rmtree(begun, ignore_errors=True)
        raise
    sync_directory(target)
    sync_directory(target.parent)
    return (target / name / layout.DATA_FILE).stat().st_size


def backup_to_stream(opened: Opened, stream: Sink, directory: str | None) -> int:
    """Writes the same as a tar archive, to be unpacked into an empty directory. It is made in a
    temporary one first (below `directory`, or where temporary files go), so that a slow reader
    of the stream keeps nobody waiting and no pages alive. Returns the bytes of its file."""
    with tempfile.TemporaryDirectory(prefix="quelmdb-backup-", dir=directory) as place:
        made = Path(place, "store")
        size = backup(opened, made)
        with tarfile.open(fileobj=stream, mode="w|") as archive:  # type: ignore[call-overload]
            for entry in sorted(os.listdir(made)):
                archive.add(made / entry, arcname=entry)
        return size
