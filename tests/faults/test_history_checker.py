"""The checker of histories accepts what a store may do, and refuses what none may."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import pytest

from tests.faults.history import Asked, History, violations
from tests.faults.onejob import Call, Death, Verb

A: Final = 1  # processes
B: Final = 2
C: Final = 3


def call(
    process: int,
    verb: Verb,
    span: tuple[int, int | None],
    told: str = "",
    claim: int = 0,
    attempt: int = 0,
    job: int = 7,
    limit: int = 1,
) -> Call:
    return Call(process, verb, job, *span, told, claim, attempt, limit)


def inserted(at: int = 1, job: int = 7) -> Call:
    return call(C, "insert", (at, at + 1), "queued", job=job)


def claimed(
    process: int, span: tuple[int, int | None], claim: int, attempt: int = 1, job: int = 7
) -> Call:
    return call(process, "claim", span, "started", claim, attempt, job)


def found(at: int, told: str, claim: int = 0, attempt: int = 0, job: int = 7) -> Call:
    return call(C, "find", (at, at + 1), told, claim, attempt, job)


def history(
    *calls: Call,
    deaths: dict[int, Death] | None = None,
    jobs: Sequence[int] = (7,),
    asked: Asked | None = None,
    claims: Sequence[Call] = (),
    inserts: Sequence[Call] = (),
) -> History:
    every = {job: asked or Asked() for job in jobs}
    return History(calls, deaths or {}, every, claims, inserts)


DIED: Final = {A: Death(20, 22)}
NOBODY_TOLD: Final = call(A, "claim", (15, None), job=0, limit=1)

GOOD: Final[dict[str, History]] = {
    "a life": history(
        inserted(),
        claimed(A, (3, 5), 1),
        call(A, "release", (6, 8), "queued", 1),
        claimed(B, (9, 10), 2),
        call(B, "fail later", (11, 12), "scheduled", 2),
        claimed(A, (13, 14), 3, 2),
        call(C, "cancel", (15, 16), "started"),
        call(A, "fail later", (17, 18), "cancelled", 3),
        call(C, "retry", (19, 20), "queued"),
        claimed(A, (21, 22), 4, 3),
        call(A, "complete", (23, 24), "completed", 4),
        call(A, "complete", (25, 26), "stale", 4),
        call(C, "retry", (27, 28), "refused"),
        found(29, "completed", 4, 3),
    ),
    "calls at the same time, in the other order": history(
        inserted(),
        claimed(A, (3, 5), 1),
        claimed(B, (6, 20), 2),
        call(A, "release", (7, 19), "queued", 1),
        found(8, "queued", 1),
    ),
    "a claim rescued while its process is killed": history(
        inserted(), claimed(A, (3, 5), 1), claimed(B, (20, 21), 2, 2), deaths=DIED
    ),
    "a rescue while its process is killed": history(
        inserted(),
        claimed(A, (3, 5), 1),
        call(B, "rescue", (18, 21), "queued", 1, 1),
        claimed(B, (23, 24), 2, 2),
        deaths=DIED,
    ),
    "a completion under way at a death, that happened": history(
        inserted(),
        claimed(A, (3, 5), 1),
        call(A, "complete", (19, None), claim=1),
        found(30, "completed", 1, 1),
        deaths=DIED,
    ),
    "the same, that did not": history(
        inserted(),
        claimed(A, (3, 5), 1),
        call(A, "complete", (19, None), claim=1),
        claimed(B, (30, 31), 2, 2),
        deaths=DIED,
    ),
    "an end of a dead one's claim by another, before it is rescued": history(
        inserted(),
        claimed(A, (3, 5), 1),
        call(B, "complete", (30, 31), "completed", 1),
        deaths=DIED,
    ),
    "a claim that nobody was told of": history(
        inserted(), claimed(B, (30, 31), 3, 2), deaths=DIED, claims=[NOBODY_TOLD]
    ),
    "an insert that nobody was told of": history(
        claimed(B, (30, 31), 3),
        deaths=DIED,
        inserts=[call(A, "insert", (15, None), job=0)],
    ),
    "the last attempt of a dead one": history(
        inserted(),
        claimed(A, (3, 5), 1),
        found(30, "failed", 1, 1),
        deaths=DIED,
        asked=Asked(max_attempts=1),
    ),
    "a younger job claimed while the older one is put back": history(
        inserted(1, 7),
        inserted(3, 8),
        claimed(A, (5, 6), 1),
        claimed(B, (7, 10), 2, job=8),
        call(A, "release", (8, 9), "queued", 1),
        jobs=[7, 8],
    ),
}

BAD: Final[dict[str, History]] = {
    "two holders at once": history(
        inserted(),
        claimed(A, (3, 5), 1),
        claimed(B, (6, 7), 2, 2),
        call(A, "complete", (8, 9), "completed", 1),
    ),
    "two holders at once, of whom nobody ends it": history(
        inserted(), claimed(A, (3, 5), 1), claimed(B, (6, 7), 2, 2)
    ),
    "a living holder is robbed before its death": history(
        inserted(), claimed(A, (3, 5), 1), claimed(B, (6, 19), 2, 2), deaths=DIED
    ),
    "a living holder's job is rescued before its death": history(
        inserted(),
        claimed(A, (3, 5), 1),
        call(B, "rescue", (6, 19), "queued", 1, 1),
        deaths=DIED,
    ),
    "a living holder's job is rescued": history(
        inserted(), claimed(A, (3, 5), 1), call(B, "rescue", (6, 19), "queued", 1, 1)
    ),
    "a job is rescued twice from one death": history(
        inserted(),
        claimed(A, (3, 5), 1),
        call(B, "rescue", (23, 24), "queued", 1, 1),
        call(C, "rescue", (23, 25), "queued", 1, 1),
        deaths=DIED,
    ),
    "a dead holder's job is queued, and held by it again": history(
        inserted(),
        claimed(A, (3, 5), 1),
        found(30, "queued", 1, 1),
        found(40, "started", 1, 1),
        deaths=DIED,
    ),
    "a completion is lost": history(
        inserted(),
        claimed(A, (3, 5), 1),
        call(A, "complete", (6, 7), "completed", 1),
        found(8, "started", 1, 1),
    ),
    "a completion is lost with the death of its process": history(
        inserted(),
        claimed(A, (3, 5), 1),
        call(A, "complete", (6, 7), "completed", 1),
        found(30, "queued", 1, 1),
        deaths=DIED,
    ),
    "a claim after a completion": history(
        inserted(),
        claimed(A, (3, 5), 1),
        call(A, "complete", (6, 7), "completed", 1),
        claimed(B, (8, 9), 2, 2),
    ),
    "a completed job is retried": history(
        inserted(),
        claimed(A, (3, 5), 1),
        call(A, "complete", (6, 7), "completed", 1),
        call(C, "retry", (8, 9), "queued"),
    ),
    "two completions of one claim": history(
        inserted(),
        claimed(A, (3, 5), 1),
        call(A, "complete", (6, 7), "completed", 1),
        call(A, "complete", (8, 9), "completed", 1),
    ),
    "a stale end is accepted": history(
        inserted(),
        claimed(A, (3, 5), 1),
        claimed(B, (23, 24), 2, 2),
        call(C, "complete", (25, 26), "completed", 1),
        deaths=DIED,
    ),
    "a stale end changes something": history(
        inserted(),
        claimed(A, (3, 5), 1),
        claimed(B, (23, 24), 2, 2),
        call(C, "complete", (25, 26), "stale", 1),
        found(27, "completed", 2, 2),
        deaths=DIED,
    ),
    "the end of a claim that is held is refused": history(
        inserted(), claimed(A, (3, 5), 1), call(A, "complete", (6, 7), "stale", 1)
    ),
    "a number of a claim is used again": history(
        inserted(1, 7),
        inserted(3, 8),
        claimed(A, (5, 6), 1),
        claimed(B, (5, 6), 1, job=8),
        jobs=[7, 8],
    ),
    "numbers of claims of one job shrink": history(
        inserted(),
        claimed(A, (3, 5), 2),
        call(A, "release", (6, 7), "queued", 2),
        claimed(A, (8, 9), 1),
    ),
    "numbers of claims shrink in the store": history(
        inserted(1, 7),
        inserted(3, 8),
        claimed(A, (5, 6), 2),
        claimed(B, (7, 8), 1, job=8),
        jobs=[7, 8],
    ),
    "an insert is lost": history(inserted(), jobs=[]),
    "an insert is lost, though a job of nobody is there": history(inserted(), jobs=[8]),
    "a job comes from nowhere": history(claimed(A, (3, 5), 1)),
    "a job is there twice": history(inserted(1), inserted(3)),
    "an attempt is not counted": history(
        inserted(),
        claimed(A, (3, 5), 1),
        call(A, "fail", (6, 7), "failed", 1),
        call(C, "retry", (8, 9), "queued"),
        claimed(A, (10, 11), 2, 1),
    ),
    "a released attempt is counted": history(
        inserted(),
        claimed(A, (3, 5), 1),
        call(A, "release", (6, 7), "queued", 1),
        claimed(A, (10, 11), 2, 2),
    ),
    "an attempt is counted for a claim that nobody can have made": history(
        inserted(), claimed(B, (30, 31), 3, 2), deaths=DIED
    ),
    "the same, since whoever can have made it was dead by then": history(
        inserted(25), claimed(B, (30, 31), 3, 2), deaths=DIED, claims=[NOBODY_TOLD]
    ),
    "more jobs were taken in secret than a claim's limit": history(
        inserted(1, 7),
        inserted(3, 8),
        claimed(B, (30, 31), 3, 2),
        claimed(B, (32, 33), 4, 2, job=8),
        deaths=DIED,
        jobs=[7, 8],
        claims=[NOBODY_TOLD],
    ),
    "a cancelled job is claimed": history(
        inserted(), call(C, "cancel", (3, 4), "cancelled"), claimed(A, (5, 6), 1)
    ),
    "a job whose cancellation was asked for runs again": history(
        inserted(),
        claimed(A, (3, 5), 1),
        call(C, "cancel", (6, 7), "started"),
        call(A, "release", (8, 9), "queued", 1),
    ),
    "more attempts than it has": history(
        inserted(),
        claimed(A, (3, 5), 1),
        claimed(B, (30, 31), 2, 2),
        deaths=DIED,
        asked=Asked(max_attempts=1),
    ),
    "a failed job is claimed though nobody retried it": history(
        inserted(),
        claimed(A, (3, 5), 1),
        call(A, "fail", (6, 7), "failed", 1),
        claimed(B, (8, 9), 2, 2),
    ),
    "an older job is overtaken": history(
        inserted(1, 7), inserted(3, 8), claimed(A, (5, 6), 1, job=8), jobs=[7, 8]
    ),
    "an older job that was put back is overtaken": history(
        inserted(1, 7),
        inserted(3, 8),
        claimed(A, (5, 6), 1),
        call(A, "release", (7, 8), "queued", 1),
        claimed(B, (9, 10), 2, job=8),
        claimed(B, (11, 12), 3),
        jobs=[7, 8],
    ),
    "what was seen is undone": history(
        inserted(), claimed(A, (3, 10), 1), found(4, "started", 1, 1), found(6, "queued")
    ),
    "what nobody has done yet is seen": history(
        inserted(), found(3, "started", 1, 1), claimed(A, (5, 6), 1)
    ),
}


@pytest.mark.parametrize("name", GOOD)
def test_what_a_store_may_do_is_accepted(name: str) -> None:
    assert violations(GOOD[name]) == []


@pytest.mark.parametrize("name", BAD)
def test_what_no_store_may_do_is_refused(name: str) -> None:
    assert violations(BAD[name]) != []


def test_a_job_of_a_higher_priority_is_not_to_be_overtaken() -> None:
    calls = (inserted(1, 7), inserted(3, 8), claimed(A, (5, 6), 1))
    urgent = Asked(priority=1)
    assert violations(History(calls, {}, {7: Asked(), 8: Asked()})) == []
    assert violations(History(calls, {}, {7: Asked(), 8: urgent})) != []
    assert violations(History(calls, {}, {7: urgent, 8: urgent})) == []
    other = Asked("b", priority=1)
    assert violations(History(calls, {}, {7: Asked(), 8: other})) == []
