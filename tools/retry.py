"""`quelmdb retry`: puts jobs back into the queue that have failed."""

from __future__ import annotations

import click

from quelmdb import Status

from .common import json_option, store_argument
from .many import Filter, dry_run_option, filter_options, ids_argument, yes_option
from .moves import Verb, perform

ALLOWED = (Status.FAILED, Status.CANCELLED, Status.SCHEDULED)
RETRY = Verb(
    "retry",
    "retried",
    ALLOWED,
    one=lambda store, job_id: store.retry(job_id),
    many=lambda store, ids: store.retry_many(ids),
)


@click.command("retry")
@store_argument
@ids_argument
@filter_options((Status.FAILED,), ALLOWED)
@dry_run_option
@yes_option
@json_option
def command(
    store: str,
    ids: tuple[int, ...],
    chosen: Filter | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Puts failed jobs into the queue again.

    Jobs that are failed, cancelled or scheduled, by ids or by a filter, are to be claimed at
    once. Their attempts and failures stay.

    A filter asks before it changes anything. It passes over jobs whose unique key another
    one has by now. Exits with 1 where a job that was named is not there, or is in a status
    that cannot be retried; the others are retried nevertheless.

    \b
    Example:
      quelmdb retry jobs.qdb 7 12
      quelmdb retry jobs.qdb --worker mail.welcome --older-than 1h --dry-run
      quelmdb retry jobs.qdb --status failed --status cancelled --limit 100 --yes
    """
    perform(RETRY, store, ids, chosen, dry_run=dry_run, yes=yes, as_json=as_json)
