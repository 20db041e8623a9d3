"""`quelmdb prune`: deletes jobs that have ended."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import click

from quelmdb.reader import Reader
from quelmdb.status import ENDED

from .common import (
    answer_no,
    changing,
    json_option,
    looking_at,
    status_choice,
    store_argument,
    worker_filter,
    worker_option,
)
from .many import confirm, dry_run_option, jobs_text, older_option, tell, yes_option
from .render import progress


@click.command("prune")
@store_argument
@click.option(
    "--status",
    "statuses",
    multiple=True,
    type=status_choice(ENDED),
    help="Only jobs in this status; may be repeated.  [default: all three]",
)
@worker_option
@older_option
@click.option(
    "--keep", type=click.IntRange(0), metavar="N", help="Not the latest so many of them, by id."
)
@dry_run_option
@yes_option
@json_option
def command(
    store: str,
    statuses: tuple[str, ...],
    worker: str | None,
    older_than: timedelta | None,
    keep: int | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Deletes jobs that have ended.

    Those that are completed, failed or cancelled, in small transactions, so that others
    write in between.

    At least one of its filters must be given, and it asks before it deletes anything. The
    file does not become smaller, but its free pages are used again; `quelmdb compact` gives
    them back.

    \b
    Example:
      quelmdb prune jobs.qdb --status completed --older-than 7d
      quelmdb prune jobs.qdb --worker mail.welcome --keep 1000 --dry-run
      quelmdb prune jobs.qdb --older-than 4w --keep 1000 --yes
    """
    if not statuses and worker is None and older_than is None and keep is None:
        raise click.UsageError("which jobs? Filter them: --status completed --older-than 7d")
    with looking_at(store) as opened, progress("counting"):
        count = prunable(opened, statuses, worker, older_than, keep)
    deleted = count
    if count and not dry_run:
        which = " or ".join(statuses or ENDED)
        if not confirm(f"delete {jobs_text(count)} ({which})?", yes):
            answer_no()
        with changing(store) as opened, progress("pruning"):
            deleted = opened.prune(
                *statuses, worker=worker_filter(worker), older_than=older_than, keep=keep
            )
    facts = {"command": "prune", "dry_run": dry_run, "deleted": deleted}
    would = "would be " if dry_run else ""
    tell(facts, f"{jobs_text(deleted)} {would}deleted", as_json)


def prunable(
    reader: Reader,
    statuses: tuple[str, ...],
    worker: str | None,
    older_than: timedelta | None,
    keep: int | None,
) -> int:
    """How many jobs `prune` would delete now. O(n) with `older_than`, else O(keep)."""
    view = reader.jobs(*(statuses or ENDED), worker=worker_filter(worker))
    deletable = max(len(view) - (keep or 0), 0)
    if older_than is None:
        return deletable
    last = datetime.now(UTC) - older_than
    jobs = (job for _, job in zip(range(deletable), view, strict=False))
    return sum(1 for job in jobs if job.updated_at is not None and job.updated_at <= last)
