"""`quelmdb load`: the jobs of a dump, into a store."""

from __future__ import annotations

import os
import stat
from io import BufferedReader

import click

import quelmdb
from quelmdb.durability import Durability
from quelmdb.maintenance.dump import load
from quelmdb.writes import OnConflict

from .common import byte_count, json_option, store_argument
from .many import jobs_text, tell
from .render import progress, say


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
@click.option(
    "--on-conflict",
    type=click.Choice(("error", "skip", "replace")),
    default="error",
    show_default=True,
    help="What becomes of a job whose id is taken.",
)
@json_option
def command(
    store: str,
    file: BufferedReader,
    durability: Durability | None,
    capacity: int | None,
    on_conflict: OnConflict,
    as_json: bool,
) -> None:
    """Loads a dump, of either format, into a store, which is created if need be.

    FILE may be - for stdin. Jobs come back as they were, ids and times included;
    one that was started is queued. Stops at the first job that cannot be
    loaded: its id is taken, or it is malformed. What stands before it stays.

    Which workers are paused is not among it: see `quelmdb dump`.

    With --on-conflict skip a job whose id is taken is left out, and a load that broke off
    can be done again; with replace it takes the place of what is stored, also where that
    is being worked on. At the end it says how many were loaded, skipped and replaced.

    \b
    Example:
      quelmdb load copy.qdb jobs.cbor
      quelmdb dump jobs.qdb | quelmdb load copy.qdb -
      quelmdb load copy.qdb jobs.cbor --on-conflict skip --json
      quelmdb dump small.qdb | quelmdb load --durability ephemeral --capacity 4GiB large.qdb -
    """
    size = _size(file)
    count = 0

    def tell_progress(jobs: int) -> None:
        nonlocal count
        count = jobs
        told(jobs if size is None else file.tell())

    with (
        quelmdb.open(store, durability=durability, capacity=capacity) as opened,
        progress("loading", size) as told,
    ):
        try:
            done = load(opened, file, tell_progress, on_conflict)
        except KeyboardInterrupt:
            if count:
                rest = "--on-conflict skip does the rest"
                say(f"quelmdb load: interrupted, with {count:,} jobs done: {rest}")
            raise
    line = f"{jobs_text(done.loaded)} loaded into {store}"
    line += f", {done.skipped:,} skipped" if done.skipped else ""
    line += f", {done.replaced:,} replaced" if done.replaced else ""
    tell({"command": "load", "store": store, **done._asdict()}, line, as_json)


def _size(file: BufferedReader) -> int | None:
    """Bytes of a regular file; None for a pipe."""
    try:
        status = os.fstat(file.fileno())
    except OSError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None
