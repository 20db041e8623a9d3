"""`quelmdb dump`: jobs of a store, as a stream of bytes."""

from __future__ import annotations

import sys

import click

from quelmdb import Status
from quelmdb.maintenance.dump import dump_cbor, dump_jsonl
from quelmdb.reader import JobView, Reader
from quelmdb.values import MAX_ID

from .common import (
    answer_no,
    looking_at,
    status_choice,
    store_argument,
    worker_filter,
    worker_option,
)
from .render import progress, say, to_terminal


@click.command("dump")
@store_argument
@click.option(
    "--format",
    "form",
    type=click.Choice(["cbor", "jsonl"]),
    default="cbor",
    show_default=True,
    help="A CBOR sequence, or JSON Lines. Both are exact.",
)
@click.option(
    "--status",
    "statuses",
    multiple=True,
    type=status_choice(tuple(Status)),
    help="Only jobs in this status; may be repeated.",
)
@worker_option
@click.option("--after", type=click.IntRange(0, MAX_ID), metavar="ID", help="Only ids above this.")
@click.option(
    "--limit", type=click.IntRange(1), metavar="N", help="At most so many, by ascending id."
)
def command(
    store: str,
    form: str,
    statuses: tuple[str, ...],
    worker: str | None,
    after: int | None,
    limit: int | None,
) -> None:
    """Writes jobs of a store to stdout.

    Every job, or those of a filter, all of one point in time.

    It has jobs, and nothing else: workers that are paused are not paused in the store that it
    is loaded into. (`quelmdb backup` copies that, too.)

    Workers go on meanwhile; the store grows as long as the dump is not read to
    its end. Exits with 1 where jobs were left out because their bytes could
    not be read; stderr names them.

    \b
    Example:
      quelmdb dump jobs.qdb > jobs.cbor
      quelmdb dump jobs.qdb --format jsonl --status failed --worker mail.welcome
    """
    if form == "cbor" and to_terminal():
        raise click.UsageError("CBOR is not for terminals: redirect it, or use --format jsonl")
    write = dump_cbor if form == "cbor" else dump_jsonl

    def select(reader: Reader) -> JobView:
        return reader.jobs(*statuses, worker=worker_filter(worker), after=after, limit=limit)

    with looking_at(store) as opened, opened.snapshot() as snapshot:
        total = len(select(snapshot))
        with progress("dumping", total, "jobs", shown=not to_terminal()) as tell:
            written = write(snapshot, sys.stdout.buffer, tell, select)
        sys.stdout.buffer.flush()
    if written < total:
        say(f"quelmdb dump: {total - written:,} of {total:,} jobs left out")
        answer_no()
