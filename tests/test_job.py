"""A job is a value: checked when it is made, immutable, compared and pickled by its fields."""

from __future__ import annotations

import copy
import pickle
import sys
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from quelmdb import ANY, InvalidJobError, Job, Status
from quelmdb.job import FIELDS, is_empty
from quelmdb.options import (
    DIED,
    MAX_FAILURE,
    MAX_FAILURES,
    MAX_NOTE,
    MAX_PRIORITY,
    MAX_UNIQUE_KEY_BYTES,
    Failure,
    Progress,
)
from quelmdb.status import ENDED, INCOMPLETE, TRANSITIONS
from quelmdb.values import MAX_ATTEMPT, MAX_ID, MAX_WORKER_BYTES, headline

NOON = datetime(2026, 2, 3, 12, tzinfo=UTC)
WHOLE = Job(
    "w",
    {"a": [1]},
    id=7,
    status=Status.FAILED,
    created_at=NOON,
    updated_at=NOON,
    attempt=2,
    claim=3,
    owner=4,
    result="r",
    error="e",
    run_at=NOON,
    priority=5,
    unique_key="k",
    max_attempts=6,
    progress=Progress(1, 2, "note"),
    failures=[Failure(1, NOON, NOON, "oh"), Failure(2, NOON, NOON, DIED, died=True)],
)


class Welcome:
    def perform(self) -> None: ...


@pytest.mark.parametrize(
    ("worker", "name"),
    [
        (None, None),
        ("mail.welcome", "mail.welcome"),
        (Welcome, f"{__name__}:Welcome"),
        (Welcome.perform, f"{__name__}:Welcome.perform"),
        (len, "builtins:len"),
        ("ü" * (MAX_WORKER_BYTES // 2), "ü" * (MAX_WORKER_BYTES // 2)),
    ],
)
def test_a_worker_is_a_name_or_stands_for_one(worker: Any, name: str | None) -> None:
    assert Job(worker).worker == name


def test_a_function_of_a_script_has_one_name_in_all_its_processes() -> None:
    def task() -> None: ...

    task.__module__ = "__mp_main__"  # what multiprocessing calls it in a spawned child
    assert Job(task).worker == f"__main__:{task.__qualname__}"


BAD: dict[str, dict[str, Any]] = {
    "id of 0": {"id": 0},
    "negative id": {"id": -1},
    "id too large": {"id": MAX_ID + 1},
    "id that is a bool": {"id": True},
    "id that is a float": {"id": 1.0},
    "id that is text": {"id": "1"},
    "unknown status": {"status": "paused"},
    "no status": {"status": None},
    "empty worker": {"worker": ""},
    "long worker": {"worker": "ü" * (MAX_WORKER_BYTES // 2 + 1)},
    "worker with a surrogate": {"worker": "\ud800"},
    "worker that is a number": {"worker": 5},
    "worker that is an instance": {"worker": Welcome()},
    "all workers": {"worker": ANY},
    "time without zone": {"created_at": datetime(2026, 2, 3)},
    "time that is none in UTC": {
        "created_at": datetime.max.replace(tzinfo=timezone(-timedelta(hours=1)))
    },
    "time that is text": {"updated_at": "2026-02-03"},
    "negative attempt": {"attempt": -1},
    "attempt too large": {"attempt": 2**32},
    "claim that is a bool": {"claim": True},
    "claim too large": {"claim": 2**63},
    "owner too large": {"owner": 2**32},
    "error that is an exception": {"error": ValueError("x")},
    "run_at without zone": {"run_at": datetime(2026, 2, 3)},
    "run_at that is a number": {"run_at": 5},
    "negative priority": {"priority": -1},
    "priority too large": {"priority": MAX_PRIORITY + 1},
    "priority that is a bool": {"priority": True},
    "priority that is none": {"priority": None},
    "empty unique key": {"unique_key": ""},
    "long unique key": {"unique_key": "ü" * (MAX_UNIQUE_KEY_BYTES // 2 + 1)},
    "unique key with a surrogate": {"unique_key": "\ud800"},
    "unique key that is a number": {"unique_key": 5},
    "no attempts": {"max_attempts": 0},
    "too many attempts": {"max_attempts": MAX_ATTEMPT + 1},
    "attempts that are a float": {"max_attempts": 2.0},
    "progress that is a number": {"progress": 5},
    "progress that is text": {"progress": "half"},
    "negative progress": {"progress": (-1,)},
    "progress of too many": {"progress": (1, 2**63)},
    "progress with a note that is none": {"progress": (1, 2, 3)},
    "failures that are a number": {"failures": 5},
    "a failure that is text": {"failures": ["oh"]},
    "a failure without an error": {"failures": [(1, NOON, NOON)]},
    "a failure without a zone": {"failures": [(1, NOON, datetime(2026, 2, 3), "oh")]},
    "a failure that died of 1": {"failures": [(1, NOON, NOON, "oh", 1)]},
}


@pytest.mark.parametrize("fields", BAD.values(), ids=BAD.keys())
def test_a_bad_field_raises_when_the_job_is_made(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidJobError):
        Job(**fields)
    with pytest.raises(InvalidJobError):
        WHOLE.replace(**fields)


def test_no_field_can_be_set_or_deleted() -> None:
    for name in FIELDS:
        with pytest.raises(AttributeError):
            setattr(WHOLE, name, None)
        with pytest.raises(AttributeError):
            delattr(WHOLE, name)
    with pytest.raises(AttributeError):
        WHOLE.other = 1  # type: ignore[attr-defined]


def test_replace_changes_what_is_named_and_nothing_else() -> None:
    changed = WHOLE.replace(status="queued", error=None)
    assert changed.as_dict() == {**WHOLE.as_dict(), "status": Status.QUEUED, "error": None}
    assert WHOLE.status is Status.FAILED
    if sys.version_info >= (3, 13):
        assert copy.replace(WHOLE, status="queued", error=None) == changed


OTHERS: dict[str, Any] = {
    "created_at": None,
    "updated_at": None,
    "status": "queued",
    "run_at": None,
    "max_attempts": 1,
    "progress": Progress(1, 2),
    "failures": (),
}


@pytest.mark.parametrize("name", FIELDS)
def test_jobs_that_differ_in_one_field_are_not_equal(name: str) -> None:
    number = name in ("id", "attempt", "claim", "owner", "priority")
    value = OTHERS.get(name, 1 if number else "other")
    assert WHOLE.replace(**{name: value}) != WHOLE
    assert WHOLE.replace() == WHOLE
    assert hash(WHOLE.replace()) == hash(WHOLE)
    assert WHOLE.as_dict() != WHOLE


def test_the_options_of_a_plain_job_are_empty_and_those_of_a_whole_one_are_not() -> None:
    assert [name for name in FIELDS if is_empty(name, getattr(WHOLE, name))] == []
    full = {name for name in FIELDS if not is_empty(name, getattr(Job(), name))}
    assert full == {"status"}


def test_progress_and_failures_are_tuples_however_they_were_given() -> None:
    job = Job(progress=[1, 2, "note"], failures=iter([[1, NOON, NOON, "oh"]]))  # type: ignore[arg-type]
    assert job.progress == Progress(1, 2, "note")
    assert job.failures == (Failure(1, NOON, NOON, "oh"),)
    assert type(job.progress) is Progress
    assert type(job.failures[0]) is Failure
    assert job.progress.note == "note"
    assert job.failures[0].died is False


def test_a_long_note_is_cut_and_of_many_failures_the_latest_are_kept() -> None:
    failures = [Failure(n, NOON, NOON, f"{n}" + "x" * 5_000) for n in range(1, 15)]
    job = Job(progress=Progress(1, None, "\ud800" + "n" * 500), failures=failures)
    assert job.progress is not None
    assert job.progress.note == "\\ud800" + "n" * (MAX_NOTE - 6)
    assert [failure.attempt for failure in job.failures] == list(range(5, 15))
    assert len(job.failures) == MAX_FAILURES
    assert all(len(failure.error) <= MAX_FAILURE for failure in job.failures)
    assert all(failure.error[0] == f"{failure.attempt}"[0] for failure in job.failures)


def test_a_job_pickles_and_copies() -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(WHOLE, protocol)) == WHOLE
    assert copy.deepcopy(WHOLE) == WHOLE
    assert copy.deepcopy(WHOLE).arguments is not WHOLE.arguments


def test_times_are_utc_whatever_zone_they_were_given_in() -> None:
    early = datetime(2026, 2, 3, 14, tzinfo=timezone(timedelta(hours=2)))
    job = Job("w", created_at=early)
    assert job.created_at == NOON
    assert job.created_at.tzinfo is UTC


@pytest.mark.parametrize("time", [datetime.min, datetime.max])
def test_every_time_that_python_has_can_be_a_jobs(time: datetime) -> None:
    assert Job("w", updated_at=time.replace(tzinfo=UTC)).updated_at == time.replace(tzinfo=UTC)


def test_a_repr_shows_what_is_set_and_shortens_what_is_long() -> None:
    assert repr(Job("w", 0)) == "Job(worker='w', arguments=0, status='queued')"
    assert repr(Job("w", False, result="")) == (
        "Job(worker='w', arguments=False, status='queued', result='')"
    )
    assert len(repr(Job("w", "x" * 10_000, error="y" * 10_000))) < 400


def test_statuses_have_ended_or_not() -> None:
    assert {*INCOMPLETE, *ENDED} == set(Status)
    assert not {*INCOMPLETE} & {*ENDED}


def test_what_has_ended_is_left_by_retry_alone_and_started_by_claim_alone() -> None:
    for verb, changes in TRANSITIONS.items():
        for before, after in changes:
            assert before is not after
            assert before not in ENDED or verb == "retry"
            assert (after is Status.STARTED) == ((before, verb) == (Status.QUEUED, "claim"))
            if before is Status.STARTED:
                assert verb in ("complete", "fail", "release", "rescue", "cancel")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        ("", ""),
        ("oh", "oh"),
        ("first\nsecond", "first"),
        ("Traceback (most recent call last):\n  File\nValueError: no\n", "ValueError: no"),
    ],
)
def test_a_headline_is_the_line_that_says_most(error: str, line: str) -> None:
    assert headline(error) == line
