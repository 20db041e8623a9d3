"""`quelmdb dump`: every job of a store, as a stream of bytes."""

from __future__ import annotations

import sys

import click

from quelmdb.maintenance.dump import dump_cbor, dump_jsonl

from .common import answer_no, looking_at, store_argument
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
def command(store: str, form: str) -> None:
    """Writes every job of a store to stdout, all of one point in time.

    Workers go on meanwhile; the store grows as long as the dump is not read to
    its end. Exits with 1 where jobs were left out because their bytes could
    not be read; stderr names them.

    \b
    Example:
      quelmdb dump jobs.qdb > jobs.cbor
      quelmdb dump jobs.qdb --format jsonl | grep mail.welcome
    """
    if form == "cbor" and to_terminal():
        raise click.UsageError("CBOR is not for terminals: redirect it, or use --format jsonl")
    write = dump_cbor if form == "cbor" else dump_jsonl
    with looking_at(store) as opened, opened.snapshot() as snapshot:
        total = len(snapshot.all())
        with progress("dumping", total, "jobs", shown=not to_terminal()) as tell:
            written = write(snapshot, sys.stdout.buffer, tell)
        sys.stdout.buffer.flush()
    if written < total:
        say(f"quelmdb dump: {total - written:,} of {total:,} jobs left out")
        answer_no()
