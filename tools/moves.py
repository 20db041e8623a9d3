"""What `quelmdb retry` and `quelmdb cancel` have in common: jobs, by ids or by a filter, are
given to a verb of the store, and what it did is told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from quelmdb import Job, JobStore, Status
from quelmdb.errors import (
    CorruptRecordError,
    DuplicateJobError,
    InvalidTransitionError,
    JobNotFoundError,
)

from .common import answer_no, changing, looking_at
from .many import Filter, confirm, either, jobs_text, pages, tell
from .render import progress, say


@dataclass(frozen=True)
class Verb:
    """One of them."""

    name: str
    done: str
    """How it is told that it was done."""
    allowed: Sequence[Status]
    """Of which statuses it takes jobs."""
    one: Callable[[JobStore, int], Job]
    many: Callable[[JobStore, Sequence[int]], list[Job]]


@dataclass
class Outcome:
    """How many jobs were looked at and changed, and why which of those named were not."""

    matched: int = 0
    changed: int = 0
    refused: dict[int, str] = field(default_factory=dict)


def perform(
    verb: Verb,
    store: str,
    ids: Sequence[int],
    chosen: Filter | None,
    *,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Does it, and tells what was done. Ends with 1 where a job that was named is not there
    or cannot be changed, or where the answer to the question is no."""
    either(ids, chosen, f"--status {verb.allowed[0].value}")
    ids = list(dict.fromkeys(ids))
    if dry_run:
        outcome = _looked_at(verb, store, ids, chosen)
    elif chosen is None:
        outcome = _by_ids(verb, store, ids)
    else:
        outcome = _by_filter(verb, store, chosen, yes)
    for reason in outcome.refused.values():
        if not as_json:
            say(f"quelmdb {verb.name}: {reason}")
    _tell(verb, outcome, dry_run, as_json)
    if outcome.refused:
        answer_no()


def _looked_at(verb: Verb, store: str, ids: Sequence[int], chosen: Filter | None) -> Outcome:
    with looking_at(store) as opened:
        if chosen is not None:
            matched = chosen.count(opened)
            return Outcome(matched, matched)
        refused = {}
        for job_id in ids:
            try:
                job = opened.find(job_id)
            except CorruptRecordError as error:
                refused[job_id] = str(error)
                continue
            if job is None:
                refused[job_id] = f"job {job_id} is not stored (any more)"
            elif job.status not in verb.allowed:
                refused[job_id] = f"job {job_id} is {job.status}"
        return Outcome(len(ids), len(ids) - len(refused), refused)


def _by_ids(verb: Verb, store: str, ids: Sequence[int]) -> Outcome:
    outcome = Outcome(matched=len(ids))
    with changing(store) as opened:
        for page in pages(ids):
            done = _changed(verb, opened, page, lambda error: None)
            for job_id in page:
                if job_id not in done:
                    try:  # which tells why not
                        verb.one(opened, job_id)
                    except (
                        JobNotFoundError,
                        InvalidTransitionError,
                        DuplicateJobError,
                        CorruptRecordError,
                    ) as error:
                        outcome.refused[job_id] = str(error)
    outcome.changed = len(ids) - len(outcome.refused)
    return outcome


def _by_filter(verb: Verb, store: str, chosen: Filter, yes: bool) -> Outcome:
    with looking_at(store) as opened:
        count = chosen.count(opened)
    question = f"{verb.name} {jobs_text(count)} ({chosen})?"
    outcome = Outcome()
    if not count:
        return outcome
    if not confirm(question, yes):
        answer_no()
    with changing(store) as opened, progress(verb.name, count, "jobs") as told:
        for page in pages(chosen.ids(opened)):
            outcome.changed += len(_changed(verb, opened, page, _report))
            outcome.matched += len(page)
            told(outcome.matched)
    return outcome


def _changed(
    verb: Verb,
    store: JobStore,
    page: Sequence[int],
    report: Callable[[CorruptRecordError], None],
) -> set[int | None]:
    """The ids of those of a page that are changed now. A corrupt record, for which the store
    changes nothing of the page, is reported and passed over."""
    try:
        return {job.id for job in verb.many(store, page)}
    except CorruptRecordError as error:
        if len(page) == 1:
            report(error)
            return set()
    half = len(page) // 2
    return _changed(verb, store, page[:half], report) | _changed(verb, store, page[half:], report)


def _report(error: CorruptRecordError) -> None:
    say(f"quelmdb: passed over: {error}")


def _tell(verb: Verb, outcome: Outcome, dry_run: bool, as_json: bool) -> None:
    passed_over = outcome.matched - outcome.changed
    facts: dict[str, Any] = {
        "command": verb.name,
        "dry_run": dry_run,
        verb.done: outcome.changed,
        "passed_over": passed_over,
        "refused": {str(job_id): why for job_id, why in outcome.refused.items()},
    }
    would = f"would be {verb.done}" if dry_run else verb.done
    rest = f", {passed_over:,} passed over" if passed_over else ""
    tell(facts, f"{jobs_text(outcome.changed)} {would}{rest}", as_json)
