"""`quelmdb load`: the jobs of a dump, into a store."""

from __future__ import annotations

import os
import stat
from io import BufferedReader

import click

import quelmdb
from quelmdb.maintenance.dump import load

from .common import store_argument
from .render import printable, progress


@click.command("load")
@store_argument
@click.argument("file", type=click.File("rb"))
def command(store: str, file: BufferedReader) -> None:
    """Loads a dump, of either format, into a store, which is created if need be.

    FILE may be - for stdin. Jobs come back as they were, ids and times included;
    one that was started is queued. Stops at the first job that cannot be
    loaded: its id is taken, or it is malformed. What stands before it stays.

    \b
    Example:
      quelmdb load copy.qdb jobs.cbor
      quelmdb dump jobs.qdb | quelmdb load copy.qdb -
    """
    size = _size(file)
    with quelmdb.open(store) as opened, progress("loading", size) as tell:
        loaded = load(opened, file, lambda done: tell(done if size is None else file.tell()))
    click.echo(f"{loaded} jobs loaded into {printable(store)}")


def _size(file: BufferedReader) -> int | None:
    """Bytes of a regular file; None for a pipe."""
    try:
        status = os.fstat(file.fileno())
    except OSError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None
