"""What random operations hand in to a store: jobs, numbers, pages, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import hypothesis.strategies as st

from quelmdb import ANY, Job, Status
from quelmdb.options import MAX_PRIORITY, Failure, Progress
from quelmdb.testing import ManualClock
from quelmdb.values import MAX_CHOSEN_ID, MAX_ID, time_of

worker = st.sampled_from([None, "a", "b", "c", "x" * 500, ManualClock])
status = st.sampled_from(list(Status))
few_ids = st.integers(1, 25)
_edge_ids = st.sampled_from([MAX_CHOSEN_ID, MAX_CHOSEN_ID + 1, MAX_ID - 1, MAX_ID])
# Mostly few: an id at the edge leaves little to give out after it.
_id = st.integers(0, 60).flatmap(lambda dice: few_ids if dice else _edge_ids)
maybe_id = st.one_of(st.none(), _id)
_time = st.one_of(
    st.none(),
    st.sampled_from([datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)]),
    st.datetimes(timezones=st.just(UTC)),
)
number = st.integers(0, 50)

_small: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**70), 2**70),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=9),
        st.binary(max_size=9),
        st.sampled_from([1.5, UUID(int=7), Decimal("1.50"), datetime(2024, 1, 1, tzinfo=UTC)]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(st.text("abc", max_size=2), inner, max_size=3),
    ),
    max_leaves=6,
)
_size = st.sampled_from([380, 390, 1020, 1030, 2000, 2001, 6000])
value = st.one_of(_small, _small, _size.map(lambda size: b"x" * size))
text = st.one_of(st.none(), st.text("abcé", max_size=9), _size.map(lambda size: "é" * size))
uncarriable = st.sampled_from([object(), [{1}], {1: 2}, "\ud800", datetime(2024, 1, 1), len])

# What few jobs ask for: times about that of the clock, which moves by days.
_START = ManualClock().time
_near = st.integers(-5 * 86400, 40 * 86400).map(lambda n: _START + timedelta(seconds=n))
run_at = st.one_of(st.none(), _near, _near, st.sampled_from([time_of(0), _START]))
_priority = st.sampled_from([0, 0, 1, 2, 3, MAX_PRIORITY])
_unique_key = st.sampled_from([None, None, "k", "l", "ü" * 100])
_max_attempts = st.sampled_from([None, None, 1, 2, 3])
progress = st.one_of(
    st.none(), st.builds(Progress, number, st.none() | number, st.sampled_from([None, "ö" * 150]))
)
_failure = st.builds(
    Failure,
    number,
    _near,
    _near,
    st.sampled_from(["oh", "x" * 60, "é" * 2000]),
    st.booleans(),
)

failures: st.SearchStrategy[list[Failure]] = st.one_of(st.just([]), st.lists(_failure, max_size=12))

options: dict[str, st.SearchStrategy[Any]] = {
    "run_at": run_at,
    "priority": _priority,
    "unique_key": _unique_key,
    "max_attempts": _max_attempts,
}

_fields: dict[str, st.SearchStrategy[Any]] = {
    "id": maybe_id,
    "status": status,
    "created_at": _time,
    "updated_at": _time,
    "attempt": number,
    "claim": number,
    "owner": number,
    "result": value,
    "error": text,
}
_rare_fields = {"progress": progress, "failures": failures, **options}

_plain_job = st.builds(Job, worker, value, **_fields)
_whole_job = st.builds(Job, worker, value, **_fields, **_rare_fields)
job = st.one_of(_plain_job, _whole_job)

queued_job = st.one_of(st.builds(Job, worker, value), st.builds(Job, worker, value, **options))

any_job = st.one_of(job, queued_job)
on_duplicate = st.sampled_from(["raise", "skip", "replace"])
bad_job: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from([None, 7, "job", {}, Job]),
    st.builds(Job, worker, uncarriable, id=maybe_id),
    st.builds(Job, worker, result=uncarriable, id=maybe_id),
    st.just(Job(error="\udfff")),
    st.just(Job(id=MAX_CHOSEN_ID + 1)),
)
no_id = st.sampled_from([0, -1, True, False, 1.0, "1", 2**63, (), Job])
no_worker = st.sampled_from(["", "x" * 501, "\ud800", 5, b"a"])

worker_filter = st.one_of(st.just(ANY), worker, st.just("unknown"))

page = st.fixed_dictionaries(
    {},
    optional={
        "after": st.one_of(st.none(), st.just(0), _id),
        "limit": st.one_of(st.none(), st.integers(0, 8)),
        "reverse": st.booleans(),
    },
)
