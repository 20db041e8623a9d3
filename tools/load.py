"""`quelmdb load`: the jobs of a dump, into a store."""

from __future__ import annotations

import os
import stat
from io import BufferedReader

import click

import quelmdb
from quelmdb.durability import Durability
from quelmdb.maintenance.dump import load

from .common import byte_count, store_argument
from .render import printable, progress


@click.command("load")
@store_argument
@click.argument("file", type=click.File("rb"))
@click.option(
    "--durability",
    type=click.Choice(("full", "ephemeral")),
    help="Of a store that is created; full if not said.",
)
@click.option(
    "--capacity",
    type=byte_count,
    metavar="BYTES",
    help="Of an ephemeral store, as 512MiB; 1GiB if not said.",
)
def command(
    store: str, file: BufferedReader, durability: Durability | None, capacity: int | None
) -> None:
    """Loads a dump, of either format, into a store, which is created if need be.

    FILE may be - for stdin. Jobs come back as they were, ids and times included;
    one that was started is queued. Stops at the first job that cannot be
    loaded: its id is taken, or it is malformed. What stands before it stays.

    \b
    Example:
      quelmdb load copy.qdb jobs.cbor
      quelmdb dump jobs.qdb | quelmdb load copy.qdb -
      quelmdb dump small.qdb | quelmdb load --durability ephemeral --capacity 4GiB large.qdb -
    """
    size = _size(file)
    with (
        quelmdb.open(store, durability=durability, capacity=capacity) as opened,
        progress("loading", size) as tell,
    ):
        loaded = load(opened, file, lambda done: tell(done if size is None else file.tell()))
    click.echo(f"{loaded} jobs loaded into {printable(store)}")


def _size(file: BufferedReader) -> int | None:
    """Bytes of a regular file; None for a pipe."""
    try:
        status = os.fstat(file.fileno())
    except OSError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None
