"""`quelmdb info`: what is in a store."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import asdict, replace

import click
from rich.text import Text

from quelmdb import Status, StoreInfo

from .common import json_option, looking_at, store_argument
from .render import (
    STYLES,
    console,
    plain,
    printable,
    size,
    table,
    to_terminal,
    when,
    worker_text,
)

MOST_WORKERS = 20  # in a table


@click.command("info")
@store_argument
@json_option
def command(store: str, as_json: bool) -> None:
    """Shows what is in a store: counts by status and worker, sizes, who uses it.

    Into a pipe go lines of name and value, then `jobs`, worker, status, count.

    \b
    Example:
      quelmdb info jobs.qdb
      quelmdb info jobs.qdb --json | jq .counts.failed
    """
    with looking_at(store) as opened:
        info = opened.info()
    others = [reader for reader in info.readers if reader.pid != os.getpid()]
    info = replace(info, readers=others)
    if as_json:
        click.echo(json.dumps(_as_json(info)))
    elif to_terminal():
        _print_tables(info)
    else:
        _print_lines(info)


def _as_json(info: StoreInfo) -> dict[str, object]:
    workers = [{"worker": name, "counts": counts} for name, counts in info.workers.items()]
    return {
        **asdict(info),
        "workers": workers,
        "readers": [
            {**asdict(reader), "since": reader.since and reader.since.isoformat()}
            for reader in info.readers
        ],
        "owners": [owner._asdict() for owner in info.owners],
        "next_due": info.next_due and info.next_due.isoformat(),
    }


def _print_lines(info: StoreInfo) -> None:
    for name in (
        *("path", "uuid", "format_version", "generation", "durability"),
        *("file_bytes", "used_bytes"),
    ):
        plain(name, getattr(info, name))
    for reader in info.readers:
        plain("reader", reader.pid, reader.thread, reader.transaction)
    for owner in info.owners:
        plain("owner", owner.number, owner.pid, "alive" if owner.alive else "dead")
    for paused in info.paused:
        plain("paused", paused)
    if info.next_due is not None:
        plain("next_due", info.next_due.isoformat())
    for worker, counts in info.workers.items():
        for status, count in counts.items():
            if count:
                plain("jobs", worker, status, count)


def _print_tables(info: StoreInfo) -> None:
    out = console()
    out.print(Text(printable(info.path), "bold"), soft_wrap=True)
    facts = table("", "", show_header=False)
    facts.columns[0].style = "dim"
    facts.columns[1].no_wrap = False
    facts.add_row("file", f"{size(info.file_bytes)}, {size(info.used_bytes)} of it in use")
    facts.add_row(
        "format",
        f"{info.format_version}, generation {info.generation}, durability {info.durability}",
    )
    facts.add_row("uuid", info.uuid)
    facts.add_row("owners", _owners(info))
    facts.add_row("readers", _readers(info))
    if info.next_due is not None:
        facts.add_row("next due", f"{when(info.next_due)} ({info.next_due.isoformat()})")
    if info.paused:
        facts.add_row("paused", Text(", ").join(worker_text(name, 1000) for name in info.paused))
    out.print(facts)
    out.print()
    if any(info.counts.values()):
        _print_counts(info)
    else:
        out.print("no jobs")


def _owners(info: StoreInfo) -> str:
    alive = [f"pid {owner.pid}" for owner in info.owners if owner.alive]
    dead = len(info.owners) - len(alive)
    return ", ".join([*alive, f"{dead} dead"] if dead else alive) or "none"


def _readers(info: StoreInfo) -> str:
    pids = Counter(reader.pid for reader in info.readers)
    return (
        ", ".join(f"pid {pid}" + (f" ({n})" if n > 1 else "") for pid, n in pids.items()) or "none"
    )


def _print_counts(info: StoreInfo) -> None:
    out = console()
    statuses = [status for status in Status if info.counts[status]]
    shown = table("worker", *statuses, "total", right=(*statuses, "total"))
    for column, status in zip(shown.columns[1:], statuses, strict=False):
        column.style = STYLES[status]
    busiest = sorted(info.workers.items(), key=lambda item: -sum(item[1].values()))
    for worker, counts in busiest[:MOST_WORKERS]:
        numbers = [f"{counts.get(status, 0):,}" for status in statuses]
        shown.add_row(worker_text(worker, 28), *numbers, f"{sum(counts.values()):,}")
    if len(busiest) > 1:
        numbers = [f"{info.counts[status]:,}" for status in statuses]
        shown.add_row("all", *numbers, f"{sum(info.counts.values()):,}", style="bold")
    out.print(shown)
    if len(busiest) > MOST_WORKERS:
        out.print(f"{len(busiest) - MOST_WORKERS:,} more workers: see --json", style="dim")
