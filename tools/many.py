"""Jobs that a command is to change: chosen by ids or by a filter, counted, confirmed, and
taken in pages."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import wraps
from itertools import islice
from typing import Any, Final, TypeVar

import click

from quelmdb import Job, Status
from quelmdb.reader import JobView, Reader
from quelmdb.values import MAX_ID

from .common import status_choice, time_span, worker_filter, worker_option
from .render import printable, say

T = TypeVar("T")

PAGE: Final = 500  # jobs of one transaction

ids_argument = click.argument("ids", metavar="[ID…]", nargs=-1, type=click.IntRange(1, MAX_ID))
older_option = click.option(
    "--older-than",
    "older_than",
    type=time_span,
    metavar="TIME",
    help="Only jobs last changed that long ago, as 90s, 15min, 6h, 7d.",
)
dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Change nothing; tell how many it would be."
)
yes_option = click.option(
    "--yes", is_flag=True, help="Do not ask; needed for a filter where there is no terminal."
)


def filter_options(
    usual: Sequence[Status], allowed: Sequence[Status] = ()
) -> Callable[[Callable[..., object]], Callable[..., object]]:
    """The options of a filter, which the command gets as one, `chosen`: None where none of them
    is named. Of the `allowed` statuses (none: there is no option for it) the `usual` ones are
    meant where none is named."""
    options = list(_FILTER_OPTIONS)
    if allowed:
        help_text = "Only jobs in this status; may be repeated."
        options.insert(
            0,
            click.option(
                "--status",
                "statuses",
                multiple=True,
                type=status_choice(allowed),
                help=f"{help_text}  [default: {' and '.join(usual)}]",
            ),
        )

    def decorate(function: Callable[..., object]) -> Callable[..., object]:
        @wraps(function)
        def command(
            *,
            worker: str | None,
            older_than: timedelta | None,
            limit: int | None,
            statuses: tuple[str, ...] = (),
            **others: Any,
        ) -> object:
            chosen = Filter.of(statuses, usual, worker, older_than, limit)
            return function(chosen=chosen, **others)

        decorated: Callable[..., object] = command
        for option in reversed(options):
            decorated = option(decorated)
        return decorated

    return decorate


_FILTER_OPTIONS: Final = (
    worker_option,
    older_option,
    click.option(
        "--limit",
        type=click.IntRange(1),
        metavar="N",
        help="At most so many, the oldest ids first.",
    ),
)


@dataclass(frozen=True)
class Filter:
    """Which jobs are meant where no ids are named."""

    statuses: tuple[Status, ...]
    worker: str | None
    older_than: timedelta | None
    limit: int | None
    now: datetime

    @classmethod
    def of(
        cls,
        statuses: Sequence[str],
        usual: Sequence[Status],
        worker: str | None,
        older_than: timedelta | None,
        limit: int | None,
    ) -> Filter | None:
        """What the options say; None where none of them is given."""
        if not statuses and worker is None and older_than is None and limit is None:
            return None
        chosen = tuple(map(Status, statuses)) or tuple(usual)
        return cls(chosen, worker, older_than, limit, datetime.now(UTC))

    def count(self, reader: Reader) -> int:
        """How many it finds. O(1) but for `older_than`: O(jobs in these statuses)."""
        if self.older_than is None:
            return len(self._view(reader))
        return sum(1 for _ in self.jobs(reader))

    def ids(self, reader: Reader) -> Iterator[int]:
        """Those of the jobs it finds, lazily."""
        if self.older_than is None:
            return iter(self._view(reader).ids())
        return (job.id for job in self.jobs(reader) if job.id is not None)

    def jobs(self, reader: Reader) -> Iterator[Job]:
        """The jobs it finds, lazily."""
        if self.older_than is None:
            return iter(self._view(reader))
        last = self.now - self.older_than
        jobs = reader.jobs(*self.statuses, worker=worker_filter(self.worker))
        old = (job for job in jobs if job.updated_at is not None and job.updated_at <= last)
        return islice(old, self.limit)

    def _view(self, reader: Reader) -> JobView:
        worker = worker_filter(self.worker)
        return reader.jobs(*self.statuses, worker=worker, limit=self.limit)

    def __str__(self) -> str:
        worker = "" if self.worker is None else f" of {self.worker or 'no worker'}"
        return f"{' or '.join(self.statuses)}{worker}"


def either(ids: Sequence[int], chosen: Filter | None, example: str) -> None:
    """Refuses both ids and a filter, and neither."""
    if ids and chosen is not None:
        raise click.UsageError("ids or a filter, not both")
    if not ids and chosen is None:
        raise click.UsageError(f"which jobs? Name their ids, or filter them: {example}")


def confirm(question: str, yes: bool) -> bool:
    """Whether it is to be done: asks where there is a terminal, and else needs --yes."""
    if yes:
        return True
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise click.UsageError(f"{question} There is no terminal to ask: --yes does it")
    if click.confirm(printable(question), err=True):
        return True
    say("nothing is changed")
    return False


def pages(items: Iterable[T]) -> Iterator[list[T]]:
    """Page after page of them."""
    rest = iter(items)
    while page := list(islice(rest, PAGE)):
        yield page


def jobs_text(count: int) -> str:
    """A number of jobs."""
    return f"{count:,} job{'' if count == 1 else 's'}"


def tell(facts: dict[str, Any], line: str, as_json: bool) -> None:
    """What was done: a JSON object, or a line for people."""
    click.echo(json.dumps(facts) if as_json else printable(line))
