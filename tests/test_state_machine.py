"""Random operations on the LMDB store and on MemoryStore, which must agree on everything."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import quelmdb
from quelmdb import ANY, Job, JobStore, MemoryStore, Status
from quelmdb.events import Event
from quelmdb.options import MAX_PRIORITY, Failure, Progress
from quelmdb.persistence import Reader, Snapshot
from quelmdb.testing import ManualClock
from quelmdb.values import MAX_CHOSEN_ID, MAX_ID, time_of

SHORT = settings(
    max_examples=40,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
LONG = settings(SHORT, max_examples=3000, stateful_step_count=120)

# --- What is handed in -------------------------------------------------------

_worker = st.sampled_from([None, "a", "b", "c", "x" * 500, ManualClock])
_status = st.sampled_from(list(Status))
_few_ids = st.integers(1, 25)
_edge_ids = st.sampled_from([MAX_CHOSEN_ID, MAX_CHOSEN_ID + 1, MAX_ID - 1, MAX_ID])
# Mostly few: an id at the edge leaves little to give out after it.
_id = st.integers(0, 60).flatmap(lambda dice: _few_ids if dice else _edge_ids)
_maybe_id = st.one_of(st.none(), _id)
_time = st.one_of(
    st.none(),
    st.sampled_from([datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)]),
    st.datetimes(timezones=st.just(UTC)),
)
_number = st.integers(0, 50)

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
_value = st.one_of(_small, _small, _size.map(lambda size: b"x" * size))
_text = st.one_of(st.none(), st.text("abcé", max_size=9), _size.map(lambda size: "é" * size))
_uncarriable = st.sampled_from([object(), [{1}], {1: 2}, "\ud800", datetime(2024, 1, 1), len])

# What few jobs ask for: times about that of the clock, which moves by days.
_START = ManualClock().time
_near = st.integers(-5 * 86400, 40 * 86400).map(lambda n: _START + timedelta(seconds=n))
_run_at = st.one_of(st.none(), _near, _near, st.sampled_from([time_of(0), _START]))
_priority = st.sampled_from([0, 0, 1, 2, 3, MAX_PRIORITY])
_unique_key = st.sampled_from([None, None, "k", "l", "ü" * 100])
_max_attempts = st.sampled_from([None, None, 1, 2, 3])
_progress = st.one_of(
    st.none(), st.builds(Progress, _number, st.none() | _number, st.sampled_from([None, "ö" * 150]))
)
_failure = st.builds(
    Failure,
    _number,
    _near,
    _near,
    st.sampled_from(["oh", "x" * 60, "é" * 2000]),
    st.booleans(),
)
_failures: st.SearchStrategy[list[Failure]] = st.one_of(
    st.just([]), st.lists(_failure, max_size=12)
)
_options: dict[str, st.SearchStrategy[Any]] = {
    "run_at": _run_at,
    "priority": _priority,
    "unique_key": _unique_key,
    "max_attempts": _max_attempts,
}

_plain_job = st.builds(
    Job,
    _worker,
    _value,
    id=_maybe_id,
    status=_status,
    created_at=_time,
    updated_at=_time,
    attempt=_number,
    claim=_number,
    owner=_number,
    result=_value,
    error=_text,
)
_whole_job = st.builds(
    Job,
    _worker,
    _value,
    id=_maybe_id,
    status=_status,
    created_at=_time,
    updated_at=_time,
    attempt=_number,
    claim=_number,
    owner=_number,
    result=_value,
    error=_text,
    progress=_progress,
    failures=_failures,
    **_options,
)
_job = st.one_of(_plain_job, _whole_job)
_queued_job = st.one_of(
    st.builds(Job, _worker, _value), st.builds(Job, _worker, _value, **_options)
)
_any_job = st.one_of(_job, _queued_job)
_on_duplicate = st.sampled_from(["raise", "skip", "replace"])
_bad_job: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from([None, 7, "job", {}, Job]),
    st.builds(Job, _worker, _uncarriable, id=_maybe_id),
    st.builds(Job, _worker, result=_uncarriable, id=_maybe_id),
    st.just(Job(error="\udfff")),
    st.just(Job(id=MAX_CHOSEN_ID + 1)),
)
_no_id = st.sampled_from([0, -1, True, False, 1.0, "1", 2**63, (), Job])
_no_worker = st.sampled_from(["", "x" * 501, "\ud800", 5, b"a"])
_filter = st.one_of(st.just(ANY), _worker, st.just("unknown"))
_page = st.fixed_dictionaries(
    {},
    optional={
        "after": st.one_of(st.none(), st.just(0), _id),
        "limit": st.one_of(st.none(), st.integers(0, 8)),
        "reverse": st.booleans(),
    },
)


# --- What comes back ---------------------------------------------------------


def _outcome(call: Callable[[], Any]) -> Any:
    """What a call returns, or the type of what it raises, in a form that compares."""
    try:
        return _comparable(call())
    except (quelmdb.QuelmdbError, ValueError) as error:
        return type(error)


def _comparable(value: Any) -> Any:
    """A job without the number of its owner, which only says which process it was."""
    if isinstance(value, Event):
        return (value.kind, _comparable(value.job), value.seconds)
    if isinstance(value, Job):
        return repr({**value.as_dict(), "owner": value.owner > 0})
    if isinstance(value, list):
        return [_comparable(item) for item in value]
    return value


def _everything(reader: Reader) -> list[Any]:
    return [
        _comparable(list(reader.all())),
        list(reader.all(reverse=True).ids()),
        reader.workers(),
        reader.counts(),
        *(reader.counts(worker) for worker in reader.workers()),
        *(list(reader.jobs(status).ids()) for status in Status),
        *(list(reader.incomplete(worker).ids()) for worker in reader.workers()),
    ]


class StoreAndModel(RuleBasedStateMachine):
    """One LMDB store, one MemoryStore, one clock."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.directory = Path(tempfile.mkdtemp(prefix="quelmdb-"))
        self.store: JobStore = quelmdb.open(self.directory / "store", clock=self.clock)
        self.model = MemoryStore(clock=self.clock)
        self.heard: tuple[list[Event], list[Event]] = ([], [])
        self.ends: list[Callable[[], None]] = []
        self.snapshots: tuple[Snapshot, Snapshot] | None = None
        self.claimed: list[Job] = []  # every job that was ever claimed, as the model tells it

    def teardown(self) -> None:
        try:
            self.end_snapshot()
            assert self.store.check() == []
            assert self.model.check() == []
        finally:
            self.store.close()
            shutil.rmtree(self.directory)

    def both(self, verb: Callable[[JobStore], Any]) -> Any:
        """Does the same on both, compares, and tells what the model returned."""
        returned: list[Any] = []

        def of_model() -> Any:
            returned.append(verb(self.model))
            return returned[0]

        expected = _outcome(of_model)
        assert _outcome(lambda: verb(self.store)) == expected
        of_store, told = self.heard
        assert _comparable(of_store) == _comparable(told)
        of_store.clear()
        told.clear()
        return returned[0] if returned else None

    @rule()
    def listen_or_end_it(self) -> None:
        """Where nobody listens, many jobs take a shorter path."""
        if self.ends:
            for end in self.ends:
                end()
            self.ends = []
        else:
            self.ends = [
                store.listen(events.append)
                for store, events in zip((self.store, self.model), self.heard, strict=True)
            ]

    @invariant()
    def they_agree(self) -> None:
        assert _everything(self.store) == _everything(self.model)
        assert self.store.next_due() == self.model.next_due()
        assert self.store.paused() == self.model.paused()

    # --- Writing ---

    @initialize(jobs=st.lists(_queued_job, max_size=20))
    def begin(self, jobs: list[Job]) -> None:
        self.both(lambda store: store.insert_many(jobs))

    @rule(job=_any_job, way=_on_duplicate)
    def insert(self, job: Job, way: Any) -> None:
        self.both(lambda store: store.insert(job, on_duplicate=way))

    @rule(jobs=st.lists(_any_job, max_size=5), way=_on_duplicate)
    def insert_many(self, jobs: list[Job], way: Any) -> None:
        self.both(lambda store: store.insert_many(jobs, on_duplicate=way))

    @rule(job=_any_job)
    def update(self, job: Job) -> None:
        self.both(lambda store: store.update(job))

    @rule(
        data=st.data(),
        changes=st.fixed_dictionaries(
            {},
            optional={
                "status": _status,
                "worker": _worker,
                "progress": _progress,
                "failures": _failures,
                "result": _value,
                "error": _text,
                **_options,
            },
        ),
    )
    def update_what_is_stored(self, data: st.DataObject, changes: dict[str, Any]) -> None:
        stored = data.draw(st.sampled_from([Job(), *self.model.all()]))
        job = stored.replace(**changes)
        self.both(lambda store: store.update(job))

    @rule(jobs=st.lists(_any_job, max_size=5))
    def update_many(self, jobs: list[Job]) -> None:
        self.both(lambda store: store.update_many(jobs))

    @rule(what=st.one_of(_maybe_id, _job))
    def destroy(self, what: Job | int | None) -> None:
        self.both(lambda store: store.destroy(what))

    @rule(what=st.lists(st.one_of(_maybe_id, _job), max_size=5))
    def destroy_many(self, what: list[Job | int | None]) -> None:
        self.both(lambda store: store.destroy_many(what))

    @rule(jobs=st.lists(_job, max_size=5), way=st.sampled_from(["error", "skip", "replace"]))
    def restore(self, jobs: list[Job], way: Any) -> None:
        self.both(lambda store: store.restore(jobs, on_conflict=way))

    # --- Runners ---

    @rule(workers=st.lists(_worker, max_size=3), limit=st.integers(0, 4))
    def claim(self, workers: list[str | None], limit: int) -> None:
        self.claimed += self.both(lambda store: store.claim(*workers, limit=limit)) or []

    def a_claimed_job(self, data: st.DataObject) -> Job:
        """Mostly one that is still held."""
        held = [job for job in self.claimed if self.model.find(job) == job]
        job: Job = data.draw(st.sampled_from(held or self.claimed) | st.sampled_from(self.claimed))
        return job

    @precondition(lambda self: self.claimed)
    @rule(data=st.data(), result=_value)
    def complete(self, data: st.DataObject, result: Any) -> None:
        job = self.a_claimed_job(data)
        self.both(lambda store: store.complete(job, result))

    @precondition(lambda self: self.claimed)
    @rule(data=st.data(), error=st.one_of(_text, st.just("\ud800")), retry_at=_run_at)
    def fail(self, data: st.DataObject, error: Any, retry_at: datetime | None) -> None:
        job = self.a_claimed_job(data)
        self.both(lambda store: store.fail(job, error, retry_at))

    @precondition(lambda self: self.claimed)
    @rule(data=st.data())
    def fail_with_an_exception(self, data: st.DataObject) -> None:
        job, error = self.a_claimed_job(data), ValueError("it broke")
        self.both(lambda store: store.fail(job, error, retry_at=self.clock.time))

    @precondition(lambda self: self.claimed)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        job = self.a_claimed_job(data)
        self.both(lambda store: store.release(job))

    @precondition(lambda self: self.claimed)
    @rule(data=st.data(), count=st.integers(0, 3))
    def complete_many(self, data: st.DataObject, count: int) -> None:
        jobs = [self.a_claimed_job(data) for _ in range(count)]
        self.both(lambda store: store.complete_many(jobs))

    @precondition(lambda self: self.claimed)
    @rule(data=st.data(), count=st.integers(0, 3), results=st.lists(_value, max_size=3))
    def complete_many_with_results(
        self, data: st.DataObject, count: int, results: list[Any]
    ) -> None:
        jobs = [self.a_claimed_job(data) for _ in range(count)]
        self.both(lambda store: store.complete_many(iter(jobs), iter(results)))

    @precondition(lambda self: self.claimed)
    @rule(
        data=st.data(),
        done=_number,
        total=st.none() | _number,
        note=st.sampled_from([None, "ö" * 150, "n"]),
    )
    def progress(self, data: st.DataObject, done: int, total: int | None, note: str | None) -> None:
        job = self.a_claimed_job(data)
        self.both(lambda store: store.progress(job, done, total, note))

    @precondition(lambda self: self.claimed)
    @rule(data=st.data())
    def cancel_requested(self, data: st.DataObject) -> None:
        job = self.a_claimed_job(data)
        self.both(lambda store: store.cancel_requested(job))

    def a_stored_job(self, data: st.DataObject) -> Job | int:
        """Mostly one that is there."""
        stored = list(self.model.all())
        job: Job | int = data.draw(
            st.sampled_from(stored) | st.sampled_from(stored) | _few_ids if stored else _few_ids
        )
        return job

    @rule(data=st.data(), verb=st.sampled_from(["cancel", "retry"]))
    def cancel_or_retry(self, data: st.DataObject, verb: str) -> None:
        job = self.a_stored_job(data)
        self.both(lambda store: getattr(store, verb)(job))

    @rule(
        data=st.data(),
        verb=st.sampled_from(["cancel_many", "retry_many"]),
        count=st.integers(0, 5),
    )
    def cancel_or_retry_many(self, data: st.DataObject, verb: str, count: int) -> None:
        jobs = [self.a_stored_job(data) for _ in range(count)]
        self.both(lambda store: getattr(store, verb)(jobs))

    @rule(worker=_worker, verb=st.sampled_from(["pause", "resume", "resume"]))
    def pause_or_resume(self, worker: Any, verb: str) -> None:
        self.both(lambda store: getattr(store, verb)(worker))

    @rule(
        statuses=st.lists(
            st.sampled_from([Status.COMPLETED, Status.FAILED, Status.CANCELLED]), max_size=2
        ),
        worker=_filter,
        days=st.none() | st.integers(0, 20),
        keep=st.none() | st.integers(0, 3),
    )
    def prune(
        self, statuses: list[Status], worker: Any, days: int | None, keep: int | None
    ) -> None:
        age = None if days is None else timedelta(days=days)
        self.both(lambda store: store.prune(*statuses, worker=worker, older_than=age, keep=keep))

    @rule(workers=st.lists(_worker, max_size=3))
    def wait(self, workers: list[Any]) -> None:
        """What is due is seen by all who wait, whose worker's it is."""
        due = self.model.next_due()
        expected = self.model.wait(*workers, timeout=0)
        if expected or due is None or due > self.clock.time:
            assert self.store.wait(*workers, timeout=0) == expected

    @rule(job=_job, verb=st.sampled_from(["complete", "release"]))
    def end_a_job_that_was_made_up(self, job: Job, verb: str) -> None:
        self.both(lambda store: getattr(store, verb)(job))

    @rule(data=st.data(), jobs=st.lists(_any_job, min_size=1, max_size=3))
    def batch(self, data: st.DataObject, jobs: list[Job]) -> None:
        calls: list[tuple[Any, ...]] = [
            ("insert", jobs[0]),
            ("insert_many", jobs),
            ("update", jobs[-1]),
            ("update_many", jobs),
            ("destroy", jobs[0]),
            ("destroy_many", jobs),
            ("cancel", self.a_stored_job(data)),
            ("retry_many", [self.a_stored_job(data)]),
            ("pause", "a"),
            ("resume", "a"),
        ]
        if self.claimed:
            job = self.a_claimed_job(data)
            calls += [
                ("complete", job, {"n": 1}),
                ("complete_many", [job]),
                ("fail", job, "oh"),
                ("fail", job, "oh", self.clock.time),
                ("release", job),
                ("progress", job, 1),
            ]
        chosen = data.draw(st.lists(st.sampled_from(calls), max_size=4))

        def apply(store: JobStore) -> list[Any]:
            with store.batch() as batch:
                for name, *arguments in chosen:
                    getattr(batch, name)(*arguments)
            return batch.results

        self.both(apply)

    # --- Reading ---

    @rule(what=st.one_of(_maybe_id, _job, _no_id))
    def find(self, what: Any) -> None:
        self.both(lambda store: store.find(what))

    @rule(statuses=st.lists(_status, max_size=4), worker=_filter, page=_page)
    def view(self, statuses: list[Status], worker: Any, page: Any) -> None:
        self.both(lambda store: list(store.jobs(*statuses, worker=worker, **page)))
        self.both(lambda store: list(store.jobs(*statuses, worker=worker, **page).ids()))
        self.both(lambda store: len(store.jobs(*statuses, worker=worker, **page)))

    @precondition(lambda self: self.snapshots is None)
    @rule()
    def take_snapshot(self) -> None:
        self.snapshots = (self.store.snapshot(), self.model.snapshot())

    @precondition(lambda self: self.snapshots is not None)
    @rule()
    def look_at_snapshot(self) -> None:
        assert self.snapshots is not None
        store, model = self.snapshots
        assert _everything(store) == _everything(model)

    @rule()
    def end_snapshot(self) -> None:
        for snapshot in self.snapshots or ():
            snapshot.close()
        self.snapshots = None

    # --- Bad input ---

    @rule(job=_bad_job, good=_any_job)
    def refuse_a_job(self, job: Any, good: Job) -> None:
        self.both(lambda store: store.insert(job))
        self.both(lambda store: store.update(job))
        self.both(lambda store: store.insert_many([good, job]))
        self.both(lambda store: store.update_many([good, job]))
        self.both(lambda store: store.restore([good.replace(id=50), job], "replace"))

    @rule(what=_no_id, worker=_no_worker)
    def refuse_an_id_and_a_worker(self, what: Any, worker: Any) -> None:
        self.both(lambda store: store.destroy(what))
        self.both(lambda store: store.destroy_many([1, what]))
        self.both(lambda store: list(store.all(worker)))
        self.both(lambda store: store.counts(worker))
        self.both(lambda store: store.claim("a", worker))
        self.both(lambda store: store.wait(worker, timeout=0))
        self.both(lambda store: store.pause(worker))
        self.both(lambda store: store.prune(worker=worker))
        self.both(lambda store: store.cancel(what))
        self.both(lambda store: store.retry_many([1, what]))

    @rule(bad=st.sampled_from([-1, 1.0, "1", True]))
    def refuse_a_page(self, bad: Any) -> None:
        self.both(lambda store: list(store.all(after=bad)))
        self.both(lambda store: list(store.all(limit=bad)))
        self.both(lambda store: store.claim("a", limit=bad))
        self.both(lambda store: store.prune(keep=bad))
        self.both(lambda store: store.prune("completed", "queued"))
        self.both(lambda store: list(store.jobs("queued", str(bad))))

    @precondition(lambda self: self.claimed)
    @rule(data=st.data(), value=_uncarriable)
    def refuse_a_result(self, data: st.DataObject, value: Any) -> None:
        job = self.a_claimed_job(data)
        self.both(lambda store: store.complete(job, value))

    # --- The world ---

    @rule(microseconds=st.integers(-1_000, 10**12))
    def time_goes_on(self, microseconds: int) -> None:
        self.clock.advance(microseconds)

    @rule()
    def reopen(self) -> None:
        """What the store held when it was closed is held by nobody: it is rescued when it
        is open again."""
        self.end_snapshot()
        self.store.close()
        self.store = quelmdb.open(self.directory / "store", clock=self.clock)
        self.model = self.model.reopened()
        self.ends = []
        self.both(lambda store: store.rescue())

    @rule()
    def rescue_finds_nothing_that_a_living_process_holds(self) -> None:
        self.both(lambda store: store.rescue())

    @rule()
    def check(self) -> None:
        self.both(lambda store: store.check())


@pytest.mark.timeout(0)
def test_store_and_model_agree(request: pytest.FixtureRequest) -> None:
    long = request.config.getoption("--long")
    run_state_machine_as_test(StoreAndModel, settings=LONG if long else SHORT)
