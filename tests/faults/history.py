"""Whether a history of calls, of many processes, is one that a store may have.

`violations` is a pure function of what the processes have recorded. For each job it looks for
an order of the calls that a job allows: each call has its effect at one moment between its
beginning and its return, and all calls have told what they would have told in that order
(linearizability, by the search of Wing and Gong; docs/state-machine.md is what a job allows).
What a process called when it was killed may have happened, before its end, or not at all.

That has each job held by one claim at a time, by a living process until it lets go and by a dead
one until its death; numbers of claims that grow; completions that are final; and stale ends
that change nothing. Of all jobs together it checks that numbers of claims grow in the whole
store, and the order in which jobs are claimed.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

from tests.faults.onejob import ENDS, Call, Death, Life, calls_that_may_have_happened, is_possible

_MOST_HIDDEN: Final = 4  # claims of one job that nobody was told of, before it is given up


class Asked(NamedTuple):
    """What a job asked for."""

    worker: str = "a"
    priority: int = 0
    max_attempts: int | None = None


class History(NamedTuple):
    """What was recorded. Times are nanoseconds of one clock."""

    calls: Sequence[Call]
    """Of a call that took several jobs, one for each."""
    deaths: Mapping[int, Death]
    """Of processes, by their numbers."""
    jobs: Mapping[int, Asked]
    """All that there are."""
    claims_under_way: Sequence[Call] = ()
    """Whose processes died: which jobs they took is not known, nor how many; at most `limit`."""
    inserts_under_way: Sequence[Call] = ()


def violations(history: History) -> list[str]:
    """What no store may do, in sentences; empty where all is as it is to be."""
    by_job: dict[int, list[Call]] = defaultdict(list)
    for call in history.calls:
        by_job[call.job].append(call)
    found = [*_of_numbers(history), *_of_inserts(history, by_job)]
    hidden: dict[int, int] = {}
    for job in sorted(by_job.keys() & history.jobs.keys()):
        needed = _hidden_claims(history, job, by_job[job])
        if needed is None:
            told = "\n  ".join(map(str, sorted(by_job[job], key=lambda call: call.called)))
            found.append(f"job {job}: in no order could these calls tell this:\n  {told}")
        else:
            hidden[job] = needed
    possible = sum(call.limit for call in history.claims_under_way)
    if sum(hidden.values()) > possible:
        found.append(
            f"{sum(hidden.values())} claims were told to nobody, and at most {possible} were under "
            "way in processes that died"
        )
    found += _of_order(history, by_job, hidden)
    return found


def recoveries(history: History) -> list[int]:
    """How long after the death of a process each job that it held was claimed again, of those
    that were; nanoseconds."""
    claims: dict[int, list[Call]] = defaultdict(list)
    ended = set()
    for call in history.calls:
        if call.verb == "claim" and call.returned:
            claims[call.job].append(call)
        elif call.verb in ENDS and call.told not in ("stale", "missing"):
            ended.add(call.claim)
    found = []
    for taken in claims.values():
        taken.sort(key=lambda claim: claim.claim)
        for claim, following in pairwise(taken):
            death = history.deaths.get(claim.process)
            if death is not None and death.killed and claim.claim not in ended:
                found.append((following.returned or 0) - death.began)
    return found


# --- One job ------------------------------------------------------------------


def _hidden_claims(history: History, job: int, calls: Sequence[Call]) -> int | None:
    """How many claims of it there must have been that nobody was told of; None where no
    number of them makes the calls possible."""
    life = Life(calls, history.deaths, history.jobs[job].max_attempts)
    if not any(call.verb == "insert" for call in calls):
        life = life._replace(calls=[*calls, *history.inserts_under_way])
    if is_possible(life):
        return 0
    candidates = calls_that_may_have_happened(life, history.claims_under_way)
    for count in range(1, min(len(candidates), _MOST_HIDDEN) + 1):
        if is_possible(life, candidates, count):
            return count
    return None


# --- All of them --------------------------------------------------------------


def _of_inserts(history: History, by_job: Mapping[int, Sequence[Call]]) -> Iterator[str]:
    told = {call.job for call in history.calls if call.verb == "insert" and call.returned}
    for job in sorted(told - history.jobs.keys()):
        yield f"job {job} was inserted, and is lost"
    for job in sorted(by_job.keys() - history.jobs.keys() - told):
        if any(call.told not in ("missing", "") for call in by_job[job]):
            yield f"job {job} was known, and is lost"
    unknown = history.jobs.keys() - told
    possible = sum(call.limit for call in history.inserts_under_way)
    if len(unknown) > possible:
        yield (
            f"{len(unknown)} jobs were inserted by nobody, and at most {possible} were under "
            f"way in processes that died: {sorted(unknown)[:9]}"
        )


def _of_numbers(history: History) -> Iterator[str]:
    """Numbers of claims grow in the whole store, and none is given twice."""
    claims = [call for call in history.calls if call.verb == "claim" and call.returned]
    numbers: dict[int, int] = {}
    for claim in claims:
        if claim.claim in numbers:
            yield f"claim {claim.claim} was given to job {numbers[claim.claim]} and {claim.job}"
        numbers[claim.claim] = claim.job
    returned = sorted(claims, key=lambda claim: claim.returned or 0)
    largest, at = 0, 0
    for claim in sorted(claims, key=lambda claim: claim.called):
        while (before := returned[at]).returned and before.returned < claim.called:
            largest = max(largest, before.claim)
            at += 1
        if claim.claim <= largest:
            yield f"claim {claim.claim} was given to job {claim.job} after claim {largest}"


class _Waiting(NamedTuple):
    """A time in which a job certainly waits to be claimed, the first in line the least."""

    place: tuple[int, int]
    since: int
    until: float


def _of_order(
    history: History, by_job: Mapping[int, Sequence[Call]], hidden: Mapping[int, int]
) -> Iterator[str]:
    """No job is claimed while one that stands before it waits from the beginning of that call
    to its end. (Of two calls at the same time either may come first.)"""
    waiting: dict[str, list[_Waiting]] = defaultdict(list)
    claims: dict[str, list[Call]] = defaultdict(list)
    for job, calls in by_job.items():
        if job in history.jobs:
            asked = history.jobs[job]
            if hidden.get(job) == 0:
                place = (-asked.priority, job)
                waiting[asked.worker] += (_Waiting(place, *span) for span in _queued(calls))
            claims[asked.worker] += (one for one in calls if one.verb == "claim" and one.returned)
    for worker, taken in claims.items():
        yield from _overtaken(history, waiting[worker], taken)


def _queued(calls: Iterable[Call]) -> Iterator[tuple[int, float]]:
    """From the return of a call that leaves a job queued to the next call that may change it."""
    changing = [call for call in calls if call.verb != "find"]
    for call in changing:
        if call.returned and call.told == "queued":
            others = (
                other.called
                for other in changing
                if other is not call and (not other.returned or other.returned >= call.called)
            )
            until = min(others, default=float("inf"))
            if until > call.returned:
                yield call.returned, until


def _overtaken(history: History, waiting: list[_Waiting], claims: list[Call]) -> Iterator[str]:
    waiting.sort(key=lambda span: span.since)
    line: list[_Waiting] = []
    at = 0
    for claim in sorted(claims, key=lambda claim: claim.called):
        while at < len(waiting) and waiting[at].since < claim.called:
            heapq.heappush(line, waiting[at])
            at += 1
        while line and line[0].until <= claim.called:
            heapq.heappop(line)
        place = (-history.jobs[claim.job].priority, claim.job)
        ended = []
        while line and line[0].place < place and line[0].until <= (claim.returned or 0):
            ended.append(heapq.heappop(line))
        if line and line[0].place < place:
            yield f"job {claim.job} was claimed while job {line[0].place[1]} waited before it"
        for span in ended:
            if span.until > claim.called:
                heapq.heappush(line, span)
