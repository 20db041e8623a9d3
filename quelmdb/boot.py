"""Which run of the machine this is, and the file in which an ephemeral store has it.

What an ephemeral store wrote is safe while the machine runs. Opened under another
boot id than the one in its file, it may have lost anything, and is verified first.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from quelmdb.filesystem import sync_directory

BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> bytes:
    """Tells one run of the machine from the next; empty where it is not known."""
    try:
        return BOOT_ID.read_bytes().strip()
    except OSError:
        return b""


def is_recorded(mark: Path) -> bool:
    """Whether the file `mark` is of this run of the machine. Never where that is not known."""
    current = boot_id()
    return bool(current) and mark.read_bytes() == current


def record(mark: Path) -> None:
    """Writes this run of the machine into the file `mark`, durably.

    In its place, since a full disk has none for another file: what is half written is
    no other run's.
    """
    current = boot_id()
    descriptor = os.open(mark, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        os.pwrite(descriptor, current, 0)
        os.ftruncate(descriptor, len(current))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    sync_directory(mark.parent)
