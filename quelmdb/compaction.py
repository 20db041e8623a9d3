"""The store without its holes: a compacted copy becomes its next generation, while it is used.

Under the write lock of generation N, so that nobody writes meanwhile:

1. what is numbered above N, or has no proper name, is deleted: a broken compaction left it
2. what is in use is copied into (N+1).new, which is synced, with room behind it: of an
   ephemeral store its capacity, of a full one the reserve, all of it allocated
3. (N+1).new gets its name, and the directory is synced
4. a seal is committed in N

Whoever begins a transaction of N from then on finds the seal, and goes to N+1. A crash before 4
leaves N as the store, one behind it N+1. (Tried as a miniature of this: 472 kills.)
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

from quelmdb import layout
from quelmdb.directory import Opened
from quelmdb.durability import Durability, wanted
from quelmdb.engine import Transaction
from quelmdb.environment import Environment
from quelmdb.errors import DurabilityError
from quelmdb.filesystem import allocate_reserve, refuse_copy_on_write, sync_directory
from quelmdb.writer import Writer

Progress = Callable[[int], object]
"""Is told the size of the copy so far, in bytes, now and then; in a thread of its own."""

_TELL_SECONDS: Final = 0.1
_KEPT_PAGES: Final = 32  # free in any store that is used, for its next transactions


@dataclass(frozen=True, slots=True)
class Compacted:
    """What a compaction did. Sizes are bytes."""

    generation: int
    """The number of the new one."""
    before: int
    """Size of the data file, up to its last page in use."""
    after: int


def compact(opened: Opened, now: int, capacity: int | None, progress: Progress | None) -> Compacted:
    """As `quelmdb.Store.compact`."""
    capacity = _checked(opened, capacity)
    before = opened.read(lambda environment, _: environment.used_bytes())
    number = opened.committer.exclusively(
        lambda writer: _make_next(opened, writer, capacity, progress),
        now,
        opened.opener.maintenance,
    )
    after = opened.read(lambda environment, _: environment.used_bytes())  # of the next one
    opened.sweep()
    return Compacted(number, before, after)


def wasted(environment: Environment, transaction: Transaction) -> float:
    """The part of the used file that a compaction would give back, 0 to 1, about."""
    kept = _KEPT_PAGES * environment.page_size
    return max(environment.recyclable(transaction) - kept, 0) / max(environment.used_bytes(), 1)


def _checked(opened: Opened, capacity: int | None) -> int | None:
    """The capacity that the next generation of an ephemeral store is to have, None for that of
    this one. Raises `DurabilityError`."""
    if capacity is None:
        return None
    capacity = wanted(cast(Durability, opened.durability), capacity).capacity
    current = opened.environment.capacity or 0
    if capacity is not None and capacity < current:
        raise DurabilityError(
            f"{opened.path} has a capacity of {current:,} bytes, which can only grow, and "
            f"{capacity:,} are asked for; dump it, and load that into a new store",
            path=str(opened.path),
            expected=current,
            found=capacity,
        )
    return capacity


def _make_next(
    opened: Opened, writer: Writer, capacity: int | None, progress: Progress | None
) -> int:
    environment, generations = opened.environment, opened.generations
    number = environment.number + 1
    generations.delete_litter()
    for above in generations.numbers():
        if above > environment.number:
            generations.delete(above)
    begun = generations.new_directory(number)
    try:
        begun.mkdir(0o700)
        if environment.ephemeral:
            refuse_copy_on_write(opened.path)
        with _told(progress, begun / layout.DATA_FILE):
            environment.copy_compacted(writer.transaction, begun, capacity)
        if not environment.ephemeral:  # else a full disk would stop claims from here on
            allocate_reserve(begun / layout.DATA_FILE)
        begun.rename(generations.directory(number))
        sync_directory(opened.path)
        seal = layout.pack_number(number)
        writer.touched = True
        writer.transaction.put(layout.SEAL_KEY, seal, db=writer.databases.meta)
    except BaseException:  # it may have taken all that was left of the disk
        shutil.rmtree(begun, ignore_errors=True)
        generations.delete(number)
        raise
    return number


@contextmanager
def _told(progress: Progress | None, data: Path) -> Iterator[None]:
    """Tells how much has been copied, from a thread of its own: the one that copies must not
    run code of the caller."""
    if progress is None:
        yield
        return
    ended = threading.Event()

    def tell() -> None:
        while not ended.wait(_TELL_SECONDS):
            with suppress(FileNotFoundError):
                progress(data.stat().st_size)

    teller = threading.Thread(target=tell, name="quelmdb-progress", daemon=True)
    teller.start()
    try:
        yield
    finally:
        ended.set()
        teller.join()
