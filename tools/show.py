"""`quelmdb show`: one job, whole."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import click
from rich.highlighter import JSONHighlighter
from rich.text import Text

from quelmdb import Failure, Job, Progress
from quelmdb.maintenance import markedjson
from quelmdb.maintenance.dump import fields_of, json_line
from quelmdb.values import MAX_ID, headline

from .common import answer_no, json_option, looking_at, store_argument
from .render import (
    console,
    duration,
    plain,
    printable,
    say,
    status_text,
    to_terminal,
    when,
    worker_text,
)

LARGEST_COLOURED = 100_000  # characters
LABEL = 14  # columns
_VALUES = ("arguments", "result", "progress", "failures")


@click.command("show")
@store_argument
@click.argument("id", type=click.IntRange(1, MAX_ID))
@json_option
def command(store: str, id: int, as_json: bool) -> None:
    """Shows one job, whole.

    Into a pipe go lines of field and value; arguments and result are JSON.
    Exits with 1 where there is no such job.

    \b
    Example:
      quelmdb show jobs.qdb 7
      quelmdb show jobs.qdb 7 --json | jq .arguments
    """
    with looking_at(store) as opened:
        job = opened.find(id)
    if job is None:
        say(f"quelmdb show: no job {id} in {store}")
        answer_no()
    elif as_json:
        click.echo(json_line(job))
    elif to_terminal():
        _print_fields(job)
    else:
        for name, value in fields_of(job).items():
            plain(name, _text(name, value))


def _text(name: str, value: object) -> str:
    if name in _VALUES:
        return markedjson.dumps(value)
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _print_fields(job: Job) -> None:
    out = console()
    for line in field_texts(job, out.width):
        out.print(line, soft_wrap=True)


def field_texts(job: Job, width: int) -> Iterator[Text]:
    """Each field of a job for a terminal of that width: a line, or several."""
    for name, value in fields_of(job).items():
        shown = _shown(job, name, value, width - LABEL)
        yield Text.assemble((f"{name:<{LABEL}}", "dim"), shown)


def _shown(job: Job, name: str, value: object, width: int) -> Text:
    if name == "status":
        return status_text(job.status)
    if name == "worker":
        return worker_text(job.worker, 1000)
    if name == "progress" and job.progress is not None:
        return _progress(job.progress)
    if name == "failures":
        return Text("\n").join(map(_failure, job.failures))
    if name in _VALUES:
        return _value(value, width)
    if name == "error":
        return Text("\n".join(map(printable, str(value).splitlines())), "red")
    ago = f"  ({when(getattr(job, name))})" if name.endswith("_at") else ""
    return Text(_text(name, value) + ago)


def _progress(progress: Progress) -> Text:
    done, total, note = progress
    of_them = "" if total is None else f" of {total:,}"
    return Text(f"{done:,}{of_them}{'' if note is None else f'  {printable(note)}'}")


def _failure(failure: Failure) -> Text:
    """A line: the number of the attempt, when it ended, how long it took, and its
    error in a line."""
    seconds = duration((failure.ended_at - failure.started_at).total_seconds())
    return Text.assemble(
        f"attempt {failure.attempt}, {when(failure.ended_at)}, after {seconds}: ",
        (printable(headline(failure.error)), "red"),
    )


def _value(value: object, width: int) -> Text:
    """JSON, on one line where it fits, else indented on lines of its own."""
    text = markedjson.dumps(value)
    if len(text) > width:
        text = "\n" + markedjson.dumps(value, indent=2)
    return Text(text) if len(text) > LARGEST_COLOURED else JSONHighlighter()(text)
