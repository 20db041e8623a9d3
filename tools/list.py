"""`quelmdb list`: jobs, a line each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, islice

import click
from rich.text import Text

from quelmdb import ANY, Job, Status, Store
from quelmdb.errors import CorruptRecordError, DecodeError
from quelmdb.maintenance.dump import json_line
from quelmdb.reader import JobView
from quelmdb.values import MAX_ID

from .common import (
    json_option,
    looking_at,
    status_choice,
    store_argument,
    worker_filter,
    worker_option,
)
from .render import (
    NO_WORKER,
    age,
    arguments_of,
    console,
    error_of,
    plain,
    say,
    status_text,
    table,
    to_terminal,
    worker_text,
)

SCREENFUL = 50
PLAIN_WIDTH = 200  # characters of arguments and of an error
WORKER_WIDTH = 20
CHUNK = 500  # lines of a table that are laid out together


@click.command("list")
@store_argument
@click.option(
    "--status",
    "statuses",
    multiple=True,
    type=status_choice(tuple(Status)),
    help="Only jobs in this status; may be repeated.",
)
@worker_option
@click.option(
    "--after",
    type=click.IntRange(0, MAX_ID),
    metavar="ID",
    help="Only ids above this (below, with --reverse).",
)
@click.option(
    "--limit",
    type=click.IntRange(0),
    metavar="N",
    help=f"At most so many; 0 is all.  [default: {SCREENFUL} on a terminal, all into a pipe]",
)
@click.option("--reverse", is_flag=True, help="The newest first.")
@json_option
def command(
    store: str,
    statuses: tuple[str, ...],
    worker: str | None,
    after: int | None,
    limit: int | None,
    reverse: bool,
    as_json: bool,
) -> None:
    """Lists jobs by ascending id, large arguments cut short.

    Into a pipe go id, status, worker, created_at, updated_at, attempt, arguments
    and error of each job; with --json each job whole, as in `quelmdb dump`.

    \b
    Example:
      quelmdb list jobs.qdb --status failed --worker mail.welcome
      quelmdb list jobs.qdb --json | jq -r 'select(.attempt > 1) | .id'
    """
    terminal = to_terminal() and not as_json
    if limit is None and terminal:
        limit = SCREENFUL
    chosen = worker_filter(worker)
    with looking_at(store) as opened:
        jobs = opened.jobs(
            *statuses, worker=chosen, after=after, limit=limit or None, reverse=reverse
        )
        if as_json:
            _print_json(jobs)
        elif terminal:
            last = _print_table(opened, jobs, show_worker=chosen is ANY)
            rest = opened.jobs(*statuses, worker=chosen, after=last, limit=1, reverse=reverse)
            if last is not None and len(rest):
                click.echo(f"--after {last} shows what follows, --limit 0 all", err=True)
        else:
            for job in jobs:
                _print_line(job)


def _print_json(jobs: JobView) -> None:
    for job in jobs:
        try:
            line = json_line(job)
        except (DecodeError, CorruptRecordError) as error:
            say(f"quelmdb list: job {job.id} is left out: {error}")
        else:
            print(line)


def _print_line(job: Job) -> None:
    plain(
        job.id,
        job.status,
        job.worker,
        job.created_at and job.created_at.isoformat(),
        job.updated_at and job.updated_at.isoformat(),
        job.attempt,
        arguments_of(job, PLAIN_WIDTH),
        error_of(job, PLAIN_WIDTH),
    )


def _print_table(store: Store, jobs: JobView, show_worker: bool) -> int | None:
    """Prints the jobs, and returns the last one's id."""
    out = console()
    last = None
    widths = _widths(store, show_worker, out.width)
    for number, chunk in enumerate(_chunks(jobs)):
        rows = table(*widths, right=("id", "age", "tries"), show_header=number == 0)
        for column, width in zip(rows.columns, widths.values(), strict=True):
            column.width = width
        for job in chunk:
            rows.add_row(*_cells(job, widths))
            last = job.id
        out.print(rows)
    if last is None:
        out.print("no jobs")
    return last


def _widths(store: Store, show_worker: bool, screen: int) -> dict[str, int]:
    """The columns of the table, and their widths. Where all jobs have one worker there
    is more room for their arguments without it."""
    largest = next(iter(store.all(reverse=True, limit=1).ids()), 0)
    widths = {"id": max(len(str(largest)), len("id")), "status": len(Status.COMPLETED)}
    workers = store.workers() if show_worker else []
    if len(workers) > 1:
        longest = max(len(name or NO_WORKER) for name in workers)
        widths["worker"] = min(longest, WORKER_WIDTH)
    widths |= {"age": len("999 min"), "tries": len("tries")}
    widths["arguments"] = max(screen - sum(widths.values()) - 2 * len(widths), 10)
    return widths


def _cells(job: Job, widths: dict[str, int]) -> list[str | Text]:
    cells: list[str | Text] = [str(job.id), status_text(job.status)]
    if "worker" in widths:
        cells.append(worker_text(job.worker, widths["worker"]))
    cells += [age(job.updated_at), str(job.attempt), _about(job, widths["arguments"])]
    return cells


def _about(job: Job, width: int) -> Text:
    error = error_of(job, width // 2)
    arguments = arguments_of(job, width - len(error) - 1 if error else width)
    return Text.assemble(arguments, " " if error else "", (error, "red"))


def _chunks(jobs: Iterable[Job]) -> Iterator[Iterator[Job]]:
    rest = iter(jobs)
    for first in rest:
        yield chain([first], islice(rest, CHUNK - 1))
