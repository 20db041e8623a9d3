"""`quelmdb requeue`: puts started jobs back into the queue that nobody works on."""

from __future__ import annotations

from enum import Enum

import click

from quelmdb import Job, Status, Store
from quelmdb.errors import CorruptRecordError

from .common import answer_no, changing, json_option, looking_at, store_argument
from .many import (
    Filter,
    confirm,
    dry_run_option,
    filter_options,
    ids_argument,
    jobs_text,
    pages,
    tell,
    yes_option,
)
from .render import say


class Held(Enum):
    """Who has a started job."""

    BY_NOBODY = "nobody"
    BY_DEAD = "a process that is dead"
    BY_LIVING = "a living process"


@click.command("requeue")
@store_argument
@ids_argument
@filter_options((Status.STARTED,))
@click.option("--force", is_flag=True, help="Also those that a living process has claimed.")
@dry_run_option
@yes_option
@json_option
def command(
    store: str,
    ids: tuple[int, ...],
    chosen: Filter | None,
    force: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Takes back jobs that nobody works on any more.

    What dead processes have claimed is taken back first, all of it, as runners themselves do
    once a second: the attempt counts, and a job that has used up its attempts is failed. With
    neither ids nor a filter that is all.

    With ids or a filter of started jobs it also takes those without an owner: insert or
    update has made them started, and nothing tells whether somebody works on them, so that a
    filter should have --older-than. What a living process has claimed is left to it; with
    --force it is taken away: the process cannot finish it any more, the attempt does not
    count. Exits with 1 where a job that was named is not there, or cannot be taken.

    \b
    Example:
      quelmdb requeue jobs.qdb
      quelmdb requeue jobs.qdb 7 12 --force
      quelmdb requeue jobs.qdb --worker mail.welcome --older-than 1h --dry-run
    """
    if ids and chosen is not None:
        raise click.UsageError("ids or a filter, not both")
    if force and not ids and chosen is None:
        raise click.UsageError("--force of which jobs? Name their ids, or filter them")
    ids = tuple(dict.fromkeys(ids))
    with looking_at(store) as opened:
        work = _Requeue(opened, force)
        if not dry_run and chosen is not None:
            count = sum(1 for job in chosen.jobs(opened) if work.may_be_taken(job))
            if count and not confirm(f"requeue {jobs_text(count)} ({chosen})?", yes):
                answer_no()
        if dry_run:
            work.dry_run(ids, chosen)
    if not dry_run:
        with changing(store) as opened:
            work = _Requeue(opened, force)
            work.run(ids, chosen)
    for reason in work.refused.values():
        if not as_json:
            say(f"quelmdb requeue: {reason}")
    facts = {
        "command": "requeue",
        "dry_run": dry_run,
        "rescued": work.rescued,
        "requeued": work.requeued,
        "passed_over": work.passed_over,
        "refused": {str(job_id): reason for job_id, reason in work.refused.items()},
    }
    tell(facts, work.line(dry_run), as_json)
    if work.refused:
        answer_no()


class _Requeue:
    """What was done, or would be, in an open store."""

    def __init__(self, store: Store, force: bool) -> None:
        self._store = store
        self._force = force
        self._owners = self._known_owners()
        self.rescued = 0
        """Jobs that were taken back from dead processes."""
        self.requeued = 0
        self.passed_over = 0
        self.refused: dict[int, str] = {}
        """Of jobs that were named."""

    def may_be_taken(self, job: Job) -> bool:
        """Whether it is started, and by nobody whom it is left to."""
        return job.status is Status.STARTED and (
            self._force or self._held(job) is not Held.BY_LIVING
        )

    def dry_run(self, ids: tuple[int, ...], chosen: Filter | None) -> None:
        """Counts."""
        started = self._store.jobs(Status.STARTED)
        dead = {job.id for job in started if self._held(job) is Held.BY_DEAD}
        self.rescued = len(dead)
        for job in chosen.jobs(self._store) if chosen else ():
            if job.id not in dead:
                if self.may_be_taken(job):
                    self.requeued += 1
                else:
                    self.passed_over += 1
        for job_id in ids:
            if job_id not in dead and self._named(job_id) is not None:
                self.requeued += 1

    def run(self, ids: tuple[int, ...], chosen: Filter | None) -> None:
        """Does it."""
        rescued = {job.id for job in self._store.rescue()}
        self.rescued = len(rescued)
        for page in pages(chosen.jobs(self._store) if chosen else ()):
            taken = self._take([job for job in page if self.may_be_taken(job)])
            self.passed_over += len(page) - len(taken)
        for named in pages(job_id for job_id in ids if job_id not in rescued):
            jobs = {job_id: job for job_id in named if (job := self._named(job_id))}
            taken = self._take(list(jobs.values()))
            for job_id in jobs:
                if job_id not in taken:
                    self.refused[job_id] = f"job {job_id} has just been changed by somebody"

    def line(self, dry_run: bool) -> str:
        """All of it for people."""
        would = "would be " if dry_run else ""
        text = f"{jobs_text(self.rescued)} {would}taken back from dead processes"
        if self.requeued or self.passed_over:
            text += f"; of others {self.requeued:,} {would}requeued"
        return text + (f", {self.passed_over:,} passed over" if self.passed_over else "")

    def _take(self, jobs: list[Job]) -> set[int | None]:
        """The ids of those that are taken now: who has finished one meanwhile has."""
        taken = self._store.requeue(jobs)
        self.requeued += len(taken)
        return {job.id for job in taken}

    def _named(self, job_id: int) -> Job | None:
        """The job where it may be taken; else why not is noted."""
        try:
            job = self._store.find(job_id)
        except CorruptRecordError as error:
            self.refused[job_id] = str(error)
            return None
        if job is None:
            self.refused[job_id] = f"job {job_id} is not stored (any more)"
        elif job.status is not Status.STARTED:
            self.refused[job_id] = f"job {job_id} is {job.status}, not started"
        elif not self.may_be_taken(job):
            self.refused[job_id] = f"job {job_id} is held by a living process (--force takes it)"
        else:
            return job
        return None

    def _held(self, job: Job) -> Held:
        if job.owner == 0:
            return Held.BY_NOBODY
        if job.owner not in self._owners:  # it may have come meanwhile
            self._owners = self._known_owners()
        alive = self._owners.get(job.owner, False)  # what is struck out was dead
        return Held.BY_LIVING if alive else Held.BY_DEAD

    def _known_owners(self) -> dict[int, bool]:
        return {owner.number: owner.alive for owner in self._store.info().owners}
