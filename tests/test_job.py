"""A job is a value: checked when it is made, immutable, compared and pickled by its fields."""

from __future__ import annotations

import copy
import pickle
import sys
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from quelmdb import ANY, InvalidJobError, Job, Status
from quelmdb.job import FIELDS
from quelmdb.status import TRANSITIONS
from quelmdb.values import MAX_ID, MAX_WORKER_BYTES

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


@pytest.mark.parametrize("name", FIELDS)
def test_jobs_that_differ_in_one_field_are_not_equal(name: str) -> None:
    other: dict[str, Any] = {"created_at": None, "updated_at": None, "status": "queued"}
    value = other.get(name, 1 if name in ("id", "attempt", "claim", "owner") else "other")
    assert WHOLE.replace(**{name: value}) != WHOLE
    assert WHOLE.replace() == WHOLE
    assert hash(WHOLE.replace()) == hash(WHOLE)
    assert WHOLE.as_dict() != WHOLE


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


def test_only_a_started_job_can_be_ended() -> None:
    for verb, (before, after) in TRANSITIONS.items():
        assert (before is Status.STARTED) == (verb != "claim")
        assert before is not after
