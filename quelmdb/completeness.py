"""Whether a data file, or a copy of one, has all that belongs to it."""

from __future__ import annotations

from pathlib import Path

from quelmdb.engine import Databases, Engine, Transaction, databases_of, open_engine
from quelmdb.errors import CorruptStoreError
from quelmdb.pages import Pages


def refuse_incomplete(data: Path, size: int, engine: Engine | None = None) -> None:
    """Raises `CorruptStoreError` where a file is shorter than `size`; where an `engine` is given
    that has it open, and what it lacks is free, it lacks nothing."""
    found = data.stat().st_size
    if found >= size:
        return
    if engine is not None:
        with engine.begin(), Pages(data) as pages:  # what is free stays free
            if pages.ends_with_free_pages():
                return
    raise CorruptStoreError(
        f"{data} is incomplete: {found:,} bytes of at least {size:,}; restore it from a backup, or "
        "save what is left: quelmdb check --repair",
        path=str(data),
        expected=size,
        found=found,
    )


def refuse_incomplete_copy(
    data: Path, transaction: Transaction, databases: Databases, directory: Path, *, ephemeral: bool
) -> None:
    """Raises `CorruptStoreError` where the copy in a directory has less in it than a transaction
    sees. Where a page is damaged a walk may pass over those below it: the copy would be sound, and
    the last one of what it lacks gone with the original."""
    with open_engine(directory, ephemeral=ephemeral, readonly=True) as engine:
        copies = databases_of(engine, None, create=False)
        with engine.begin() as copied:
            for name, source, copy in zip(copies._fields, databases, copies, strict=True):
                if source is None or copy is None:
                    continue
                expected = transaction.stat(source)["entries"]
                found = copied.stat(copy)["entries"]
                if found != expected:
                    raise CorruptStoreError(
                        f"{data} is damaged, and not copied: {name} has {expected:,} entries, of "
                        f"which {found:,} are found; run `quelmdb check`",
                        path=str(data),
                        expected=expected,
                        found=found,
                    )
