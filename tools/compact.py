"""`quelmdb compact`: gives the space back that deleted jobs have left."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

import quelmdb

from .common import byte_count, json_option, store_argument
from .render import progress, say, size


def percentage(text: str) -> float:
    """The type of an option: a part of the whole, such as 30% or 0.3."""
    number = text.removesuffix("%")
    try:
        part = float(number) / (100 if text.endswith("%") else 1)
    except ValueError:
        part = -1.0
    if not 0 <= part <= 1:
        raise click.BadParameter(f"{text!r} is no part of the whole, such as 30% or 0.3")
    return part


@click.command("compact")
@store_argument
@click.option(
    "--if-wasted",
    metavar="PART",
    type=percentage,
    default="0%",
    help="Only where so much of the file in use holds nothing, such as 30%.",
)
@click.option(
    "--capacity",
    metavar="SIZE",
    type=byte_count,
    help="Of an ephemeral store, the size of its new file, such as 4GiB; it can only grow.",
)
@json_option
def command(store: str, if_wasted: float, capacity: int | None, as_json: bool) -> None:
    """Puts a copy without holes in the place of the store's file, also while it is used.

    Readers go on; writers wait while it is copied, some three seconds for a million small jobs.
    The old file is deleted when nobody reads it any more. Needs as much free space as is in
    use, and 4 to 64 MiB, the reserve for claims. A crash in the middle changes nothing.

    \b
    Example:
      quelmdb compact jobs.qdb
      quelmdb compact jobs.qdb --if-wasted 30%
      quelmdb compact scratch.qdb --capacity 8GiB
    """
    with quelmdb.open(store, create=False) as opened:
        wasted = opened.wasted()
        if capacity is None and wasted < if_wasted:
            if as_json:
                click.echo(json.dumps({"compacted": False, "wasted": wasted}))
            else:
                say(f"{wasted:.0%} are wasted: nothing is done")
            return
        expected = int(opened.info().used_bytes * (1 - wasted))
        with progress("compacting", expected) as tell:
            compacted = opened.compact(capacity, tell)
    if as_json:
        click.echo(json.dumps({"compacted": True, "wasted": wasted, **asdict(compacted)}))
    else:
        say(f"{size(compacted.before)} are {size(compacted.after)} now")
