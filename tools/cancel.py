"""`quelmdb cancel`: takes jobs out of the queue, for good."""

from __future__ import annotations

import click

from quelmdb import Status
from quelmdb.status import INCOMPLETE

from .common import json_option, store_argument
from .many import Filter, dry_run_option, filter_options, ids_argument, yes_option
from .moves import Verb, perform

CANCEL = Verb(
    "cancel",
    "cancelled",
    INCOMPLETE,
    one=lambda store, job_id: store.cancel(job_id),
    many=lambda store, ids: store.cancel_many(ids),
)


@click.command("cancel")
@store_argument
@ids_argument
@filter_options((Status.SCHEDULED, Status.QUEUED), INCOMPLETE)
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
    """Cancels jobs that have not ended.

    By ids or by a filter. Of one that is started the cancellation is asked for: who holds it
    learns of that, and it is not run again.

    A filter asks before it changes anything. Exits with 1 where a job that was named is not
    there, or has ended; the others are cancelled nevertheless. `quelmdb retry` takes it back.

    \b
    Example:
      quelmdb cancel jobs.qdb 7 12
      quelmdb cancel jobs.qdb --worker mail.welcome --dry-run
      quelmdb cancel jobs.qdb --status queued --older-than 7d --yes
    """
    perform(CANCEL, store, ids, chosen, dry_run=dry_run, yes=yes, as_json=as_json)
