"""How things look: text that is safe to print, sizes, ages, values cut short, tables, progress."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from rich.text import Text

from quelmdb import Job, Status
from quelmdb.errors import CorruptRecordError, DecodeError
from quelmdb.maintenance import markedjson
from quelmdb.values import headline

STYLES: Final[Mapping[Status, str]] = {
    Status.SCHEDULED: "cyan",
    Status.QUEUED: "blue",
    Status.STARTED: "yellow",
    Status.COMPLETED: "green",
    Status.FAILED: "red",
    Status.CANCELLED: "magenta",
}

NO_WORKER: Final = "(none)"
_ELLIPSIS: Final = "…"


# --- Text ------------------------------------------------------------------


def printable(text: str) -> str:
    """`text` with everything that could move a cursor, or hide, written as an escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def cut(text: str, width: int) -> str:
    """At most `width` characters of `text`, safe to print."""
    shown = printable(text[: width + 1])
    return shown if len(shown) <= width else shown[: max(width - 1, 0)] + _ELLIPSIS


def shortened(value: Any, width: int) -> str:
    """The first `width` characters of `value` as JSON on one line. O(width), however large
    the value is."""
    text = ""
    for piece in _pieces(value, width):
        text += piece
        if len(text) > width:
            break
    return cut(text, width)


def _pieces(value: Any, width: int) -> Iterator[str]:
    if isinstance(value, Mapping):
        yield "{"
        for number, (key, item) in enumerate(value.items()):
            yield ", " if number else ""
            yield from _pieces(key, width)
            yield ": "
            yield from _pieces(item, width)
        yield "}"
    elif isinstance(value, (list, tuple)):
        yield "["
        for number, item in enumerate(value):
            yield ", " if number else ""
            yield from _pieces(item, width)
        yield "]"
    elif isinstance(value, (str, bytes)):
        yield markedjson.dumps(value[: width + 1])
    else:
        yield markedjson.dumps(value)


def arguments_of(job: Job, width: int) -> str:
    """The job's arguments, cut short; a remark where their bytes are no value."""
    try:
        return shortened(job.arguments, width)
    except (DecodeError, CorruptRecordError) as error:
        return cut(f"unreadable: {error}", width)


def error_of(job: Job, width: int) -> str:
    """The job's error in a line, cut short, or nothing."""
    try:
        return cut(headline(job.error or ""), width)
    except (DecodeError, CorruptRecordError):
        return ""


def size(count: int) -> str:
    """A number of bytes for people."""
    amount = float(count)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{count:,} bytes" if unit == "bytes" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def age(time: datetime | None) -> str:
    """How long ago, in one unit."""
    if time is None:
        return ""
    return duration((datetime.now(UTC) - time).total_seconds())


def when(time: datetime) -> str:
    """How long ago, or in how long, in one unit."""
    ahead = (time - datetime.now(UTC)).total_seconds()
    return f"in {duration(ahead)}" if ahead > 0 else f"{duration(-ahead)} ago"


def duration(seconds: float) -> str:
    """In one unit; of what is below 0, 0."""
    seconds = max(seconds, 0)
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length:,.0f} {unit}"
    return f"{seconds:.0f} s"


# --- Output ----------------------------------------------------------------


def to_terminal() -> bool:
    """Whether people read the output."""
    return sys.stdout is not None and sys.stdout.isatty()


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError  # rich would exit with code 1


def console() -> Console:
    """For stdout, as it is now; plain and 80 columns wide into a pipe."""
    return _Console(highlight=False, markup=False, emoji=False)


def table(*columns: str, right: Iterable[str] = (), **options: Any) -> Table:
    """A table without lines, with these columns, those in `right` flush right."""
    made = Table(box=None, padding=(0, 1), pad_edge=False, header_style="bold", **options)
    for name in columns:
        made.add_column(name, justify="right" if name in right else "left", no_wrap=True)
    return made


def status_text(status: Status) -> Text:
    """The name of a status in its colour."""
    return Text(status.value, STYLES[status])


def worker_text(worker: str | None, width: int = 40) -> Text:
    """The name of a worker, cut short."""
    return Text(NO_WORKER, "dim") if worker is None else Text(cut(worker, width))


def plain(*fields: object) -> None:
    """One line for a script: the fields with tabs between them, None as nothing."""
    print("\t".join("" if field is None else printable(str(field)) for field in fields))


def say(line: str) -> None:
    """One line to stderr."""
    click.echo(printable(line), err=True)


# --- Progress --------------------------------------------------------------


@contextmanager
def progress(
    what: str, total: int | None = None, unit: str = "", shown: bool = True
) -> Iterator[Callable[[int], None]]:
    """A bar on stderr, where that is a terminal, while the block runs.

    Yields what is to be told how far it is. `total` None is for what has no known
    end; without a `unit` only the share is shown.
    """
    if not (shown and sys.stderr.isatty()):
        yield lambda done: None
        return
    columns: list[ProgressColumn] = [SpinnerColumn(), TextColumn("{task.description}")]
    if total is not None:
        columns += [BarColumn(), MofNCompleteColumn() if unit else TaskProgressColumn()]
    columns += [TextColumn(unit), TimeElapsedColumn()]
    screen = Console(stderr=True)
    with Progress(*columns, console=screen, transient=True, redirect_stdout=False) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)
