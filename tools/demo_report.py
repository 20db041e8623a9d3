"""What `quelmdb demo` says before and after."""

from __future__ import annotations

import heapq
import os
import shlex
from pathlib import Path
from typing import Any

from rich.text import Text

from quelmdb import DecodeError, Job, JobStore, Status

from .common import program
from .indexer import WORKER
from .render import console, error_of, printable, say, status_text, table

SLOWEST = 5
FAILED = 10


def opening(root: Path, where: str, new: int, known: int) -> None:
    """Says what will be done, and where."""
    _fact("files", printable(str(root)))
    _fact("store", printable(where))
    _fact("queued", f"{new:,} new files" + (f"; {known:,} were there already" if known else ""))


def interrupted(where: str, root: Path) -> None:
    """Says how to go on."""
    again = _command("demo", str(root), "--store", where)
    say(f"interrupted; to go on: {again}")


def closing(
    store: JobStore, where: str, root: Path, done: int, seconds: float, processes: int
) -> None:
    """Says what came of it, and what to try next."""
    out = console()
    out.print()
    _print_counts(store)
    _print_slowest(store)
    _print_failed(store)
    crew = "1 process" if processes == 1 else f"{processes} processes"
    rate = f"{done / seconds:,.0f} jobs/s" if done else "nothing was left to do"
    out.print(Text(f"{done:,} files in {seconds:.1f} s with {crew}: {rate}", "bold"))
    left = len(store.incomplete(WORKER))
    if left:
        out.print(Text(f"{left:,} files are left: {_command('demo', str(root), '--store', where)}"))
    out.print()
    _print_next(store, where)


def _fact(name: str, value: str) -> None:
    console().print(Text.assemble((f"{name:<8}", "dim"), value), soft_wrap=True)


def _print_counts(store: JobStore) -> None:
    counts = store.counts(WORKER)
    shown = table("status", "files", right=("files",))
    for status in Status:
        if counts[status]:
            shown.add_row(status_text(status), f"{counts[status]:,}")
    console().print(shown)
    totals = dict.fromkeys(("lines", "functions", "classes"), 0)
    for job in store.completed(WORKER):
        for name in totals:
            totals[name] += _result(job).get(name, 0)
    text = ", ".join(f"{count:,} {name}" for name, count in totals.items())
    console().print(Text(f"{text}\n", "dim"))


def _print_slowest(store: JobStore) -> None:
    slowest = heapq.nlargest(SLOWEST, store.completed(WORKER), key=_seconds)
    if not slowest:
        return
    out = console()
    shown = table("slowest", "lines", "file", right=("slowest", "lines"))
    for job in slowest:
        name = _name(job, out.width - 22)
        shown.add_row(f"{_seconds(job):.3f} s", f"{_result(job).get('lines', 0):,}", Text(name))
    out.print(shown)
    out.print()


def _print_failed(store: JobStore) -> None:
    failed = store.failed(WORKER, limit=FAILED)
    if not len(failed):
        return
    out = console()
    id_width = max(len(str(id)) for id in failed.ids())
    room = out.width - max(id_width, len("id")) - 4
    names = [_name(job, room // 2) for job in failed]
    width = room - max(map(len, names))
    shown = table("id", "failed", "error", right=("id",))
    for job, name in zip(failed, names, strict=False):
        shown.add_row(str(job.id), Text(name), Text(error_of(job, width), "red"))
    out.print(shown)
    more = store.counts(WORKER)[Status.FAILED] - len(failed)
    out.print(Text(f"and {more:,} more\n" if more > 0 else "", "dim"))


def _print_next(store: JobStore, where: str) -> None:
    out = console()
    out.print(Text("Now try", "dim"))
    example = next(iter(store.failed(WORKER, limit=1)), None) or next(iter(store.all(limit=1)))
    for words in (
        ("info", where),
        ("list", where, "--status", "failed"),
        ("show", where, str(example.id)),
    ):
        out.print(Text(f"  {_command(*words)}"), soft_wrap=True)


def _command(*words: str) -> str:
    return " ".join([program(), *map(_quoted, words)])


def _quoted(word: str) -> str:
    return printable(shlex.quote(word))


def _result(job: Job) -> dict[str, Any]:
    return job.result if isinstance(job.result, dict) else {}


def _seconds(job: Job) -> float:
    return float(_result(job).get("seconds", 0))


def _name(job: Job, width: int) -> str:
    """The file's path below its root, only the end of it if it is too long."""
    try:
        name = printable(os.fsdecode(job.arguments["path"]))
    except (KeyError, TypeError, DecodeError):  # somebody else's job
        name = "?"
    return name if len(name) <= width else "…" + name[-(width - 1) :]
