"""What is held against the jobs of a process that was killed finds what is lost, and no more."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import pytest

from quelmdb import Failure, Job, Progress
from tests.faults.crew import Known, assert_at_once, verify
from tests.faults.lanes import Step

AT: Final = datetime(2026, 1, 1, tzinfo=UTC)
LATER: Final = datetime(2026, 1, 2, tzinfo=UTC)


def _job(id: int, status: str, **more: Any) -> Job:
    fields = {"created_at": AT, "updated_at": AT, **more}
    return Job("a", [f"mark {id}"], id=id, status=status, **fields)


def _rescued(job: Job, status: str = "queued", **more: Any) -> Job:
    failure = Failure(more.get("attempt", job.attempt), AT, LATER, "died", True)
    failures = (*job.failures, failure)
    return job.replace(status=status, owner=0, updated_at=LATER, failures=failures, **more)


TOLD: Final = {
    1: _job(1, "queued"),
    2: _job(2, "started", attempt=1, claim=5, owner=3, progress=Progress(1, None, None)),
    3: _job(3, "completed", attempt=1, claim=4, result="done"),
    4: _job(4, "scheduled", run_at=AT),
    5: _job(5, "started", attempt=2, claim=6, owner=3, max_attempts=2),
}
THERE: Final = {
    **TOLD,
    2: _rescued(TOLD[2]),
    4: TOLD[4].replace(status="queued", updated_at=LATER),
    5: _rescued(TOLD[5], "failed", error="died"),
}
NEW: Final = {6: _job(6, "queued"), 7: _job(7, "queued")}
INSERT: Final = Step("insert_many", (), inserts=("mark 6", "mark 7"))
CLAIM: Final = Step("claim", (), takes=1)
BATCH: Final = Step("batch", (), inserts=("mark 6",), completes=frozenset({2}))
TAKEN: Final = {1: _rescued(TOLD[1], claim=7, attempt=1)}
DONE: Final = {2: TOLD[2].replace(status="completed", owner=0)}

RIGHT: Final[dict[str, tuple[Step | None, dict[int, Job]]]] = {
    "all is there": (None, {}),
    "an insert under way happened": (INSERT, NEW),
    "an insert under way did not": (INSERT, {}),
    "a claim under way happened": (CLAIM, TAKEN),
    "a claim under way did not": (CLAIM, {}),
    "a batch under way happened": (BATCH, {6: NEW[6], **DONE}),
    "a batch under way did not": (BATCH, {}),
}
WRONG: Final[dict[str, tuple[Step | None, dict[int, Job]]]] = {
    "an insert that nobody made": (None, NEW),
    "a part of an insert": (INSERT, {6: NEW[6]}),
    "another insert": (INSERT, {6: NEW[6], 8: _job(8, "queued")}),
    "a claim that nobody made": (None, TAKEN),
    "more claims than the limit": (
        CLAIM,
        {**TAKEN, 4: _rescued(TOLD[4], claim=8, attempt=1)},
    ),
    "a part of a batch: the insert": (BATCH, {6: NEW[6]}),
    "a part of a batch: the completion": (BATCH, DONE),
    "a completion that nobody made": (None, DONE),
    "an altered job": (None, {1: TOLD[1].replace(arguments=["mark 2"])}),
    "a completion undone": (None, {3: TOLD[3].replace(status="queued", result=None)}),
    "a job not rescued": (None, {2: TOLD[2]}),
    "an attempt not counted": (None, {2: _rescued(TOLD[2]).replace(attempt=0)}),
    "progress lost": (None, {2: _rescued(TOLD[2], progress=None)}),
    "an attempt too many": (None, {5: _rescued(TOLD[5])}),
    "a cancellation of nobody": (None, {2: _rescued(TOLD[2], "cancelled")}),
}


@pytest.mark.parametrize("name", RIGHT)
def test_what_may_have_become_of_jobs_is_accepted(name: str) -> None:
    step, found = RIGHT[name]
    verify(_known(step), THERE | found)


@pytest.mark.parametrize("name", WRONG)
def test_what_may_not_have_become_of_jobs_is_refused(name: str) -> None:
    step, found = WRONG[name]
    with pytest.raises(AssertionError):
        verify(_known(step), THERE | found)


@pytest.mark.parametrize("job_id", TOLD)
def test_a_job_may_be_gone_only_where_it_was_being_destroyed(job_id: int) -> None:
    left = {one: job for one, job in THERE.items() if one != job_id}
    for step in (None, INSERT, CLAIM, BATCH):
        with pytest.raises(AssertionError):
            verify(_known(step), left)
    verify(_known(Step("prune", (), touches=frozenset({job_id}))), left)


def test_a_cancellation_that_was_asked_for_is_not_forgotten() -> None:
    known = _known(None)
    known.cancelling.add((2, 5))
    verify(known, THERE | {2: _rescued(TOLD[2], "cancelled")})
    with pytest.raises(AssertionError):
        verify(known, THERE)


def test_slow_openings_are_found_out() -> None:
    assert_at_once([0.1] * 99 + [5.0])
    for opened in ([0.1] * 98 + [5.0] * 2, [0.1] * 4 + [5.0] * 5):
        with pytest.raises(AssertionError):
            assert_at_once(opened)


def _known(step: Step | None) -> Known:
    known = Known()
    known.jobs, known.step = dict(TOLD), step
    return known
