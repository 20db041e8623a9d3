"""`quelmdb readers`: who keeps old pages of a store."""

from __future__ import annotations

import json
import os
from datetime import datetime
from typing import NamedTuple

import click
from rich.text import Text

from quelmdb import Store

from .common import changing, json_option, looking_at, store_argument
from .processes import Process, process
from .render import age, console, cut, plain, say, table, to_terminal


class Holder(NamedTuple):
    """A place in the table of readers."""

    process: Process
    thread: str
    transaction: int | None
    """That which it reads; None where it reads nothing at the moment."""
    behind: int | None
    """How many transactions were committed since. 0 keeps no old pages."""
    since: datetime | None
    """When the snapshot was taken, where that is known."""


def holders(store: Store) -> list[Holder]:
    """Who has a place in the table of readers, but for this process: those furthest behind
    first, then those that read nothing."""
    info = store.info()
    found = [
        Holder(
            process(slot.pid),
            slot.thread,
            slot.transaction,
            None if slot.transaction is None else max(info.transaction - slot.transaction, 0),
            slot.since,
        )
        for slot in info.readers
        if slot.pid != os.getpid()
    ]
    return sorted(found, key=lambda one: (one.behind is None, -(one.behind or 0)))


def holder_facts(holder: Holder) -> dict[str, object]:
    """The same for JSON."""
    who = holder.process
    return {
        "pid": who.pid,
        "alive": who.alive,
        "command": who.command,
        "process_started_at": who.started_at and who.started_at.isoformat(),
        "thread": holder.thread,
        "transaction": holder.transaction,
        "behind": holder.behind,
        "since": holder.since and holder.since.isoformat(),
    }


@click.command("readers")
@store_argument
@click.option("--clear", is_flag=True, help="Take the places of dead processes away.")
@json_option
def command(store: str, clear: bool, as_json: bool) -> None:
    """Shows who reads a store.

    Process, thread, the transaction whose pages it keeps, how many were committed since, and
    since when it is held. While somebody reads an old one the file grows.

    Since when is not known of processes of other users; a snapshot is no older than its
    process. A store that is opened for writing clears the places of the dead, then and every
    half minute; --clear does it now.

    Into a pipe go pid, "alive" or "dead", thread, transaction, how many behind, start of the
    process, its command, and since when.

    \b
    Example:
      quelmdb readers jobs.qdb
      quelmdb readers jobs.qdb --clear
      quelmdb readers jobs.qdb --json | jq '.readers[] | select(.behind > 1000) | .pid'
    """
    with looking_at(store) as opened:
        found = holders(opened)
    cleared = 0
    if clear:
        with changing(store) as opened:  # which has LMDB check them
            left = holders(opened)
        cleared = len(_dead(found)) - len(_dead(left))
        found = left
    if as_json:
        click.echo(json.dumps({"cleared": cleared, "readers": list(map(holder_facts, found))}))
    elif to_terminal():
        _print_table(found)
    else:
        _print_lines(found)
    if clear and not as_json:
        say(f"{cleared} of dead processes cleared")


def _dead(found: list[Holder]) -> list[Holder]:
    return [holder for holder in found if not holder.process.alive]


def _print_lines(found: list[Holder]) -> None:
    for holder in found:
        who = holder.process
        plain(
            who.pid,
            "alive" if who.alive else "dead",
            holder.thread,
            holder.transaction,
            holder.behind,
            who.started_at and who.started_at.isoformat(),
            who.command,
            holder.since and holder.since.isoformat(),
        )


def _print_table(found: list[Holder]) -> None:
    out = console()
    if not found:
        out.print("no readers")
        return
    numbers = ("pid", "transaction", "behind", "held", "began")
    shown = table("pid", "thread", "transaction", *numbers[2:], "command", right=numbers)
    shown.columns[-1].overflow = "ellipsis"
    for holder in found:
        who = holder.process
        shown.add_row(
            str(who.pid),
            holder.thread,
            "-" if holder.transaction is None else f"{holder.transaction:,}",
            "" if holder.behind is None else f"{holder.behind:,}",
            age(holder.since),
            age(who.started_at),
            Text(cut(who.command or "", 200)) if who.alive else Text("dead", "red"),
        )
    out.print(shown)
