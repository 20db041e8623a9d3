"""What few jobs ask for costs others nothing, and has its entries in the index in every state."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import lmdb

import quelmdb
from quelmdb import Job, layout, recordlayout
from quelmdb.engine import Transaction
from quelmdb.environment import Environment
from quelmdb.layout import due_key, pack_number, paused_key, priority_key, unique_key_of
from quelmdb.options import (
    MAX_FAILURES,
    MAX_NOTE,
    MAX_PRIORITY,
    MAX_UNIQUE_KEY_BYTES,
    Failure,
    Progress,
)
from quelmdb.testing import ManualClock
from quelmdb.values import MAX_ATTEMPT, microseconds

pytest_plugins = ["tests.fixtures"]

_HALF_A_PAGE: Final = 2022  # bytes of a record, above which LMDB gives it pages of its own
_LATER: Final = timedelta(days=1)
_LAST: Final = datetime.max.replace(tzinfo=UTC)


def _entries(path: Path) -> dict[bytes, bytes]:
    """What stands in `by_option`, as LMDB has it."""
    with lmdb.open(str(path / "000001"), max_dbs=16, readonly=True, lock=False) as environment:
        database = environment.open_db(layout.BY_OPTION, create=False)
        with environment.begin() as transaction:
            return dict(transaction.cursor(database))


def _of(store: quelmdb.Store) -> dict[bytes, bytes]:
    def work(environment: Environment, transaction: Transaction) -> dict[bytes, bytes]:
        assert environment.databases.by_option is not None
        return dict(transaction.cursor(environment.databases.by_option))

    return store._read(work)


def _records(store: quelmdb.Store) -> dict[int, bytes]:
    def work(environment: Environment, transaction: Transaction) -> dict[int, bytes]:
        found = transaction.cursor(environment.databases.jobs)
        return {layout.unpack_number(key): record for key, record in found}

    return store._read(work)


# --- What it costs ------------------------------------------------------------


def test_a_job_without_options_has_no_flag_and_no_entry_in_any_state(store: quelmdb.Store) -> None:
    store.insert_many(Job("a", n) for n in range(8))
    one, two, three, *rest = store.claim(limit=6)
    store.complete(one, "result")
    store.release(two)
    store.complete_many(rest)
    store.update(three.replace(status="cancelled"))
    store.cancel(store.insert(Job("a")))
    assert {recordlayout.flags_of(record) for record in _records(store).values()} == {0}
    assert _of(store) == {}


def test_max_attempts_alone_costs_no_entry(store: quelmdb.Store) -> None:
    store.insert_many(Job("a", n, max_attempts=2) for n in range(3))
    one, two = store.claim(limit=2)
    store.complete(one)
    store.fail(two, "oh")
    assert _of(store) == {}


def _largest(**fields: Any) -> Job:
    """A job of which every part is as large as it may be."""
    failures = [Failure(MAX_ATTEMPT, _LAST, _LAST, "f" * 1000, died=True)] * MAX_FAILURES
    whole: dict[str, Any] = {
        "arguments": b"a" * (recordlayout.INLINE_ARGUMENTS - 3),
        "result": b"r" * (recordlayout.INLINE_BESIDE_OPTIONS - 2),
        "error": "e" * (recordlayout.INLINE_BESIDE_OPTIONS - 2),
        "run_at": _LAST,
        "priority": MAX_PRIORITY,
        "unique_key": "k" * MAX_UNIQUE_KEY_BYTES,
        "max_attempts": MAX_ATTEMPT,
        "progress": Progress(2**63 - 1, 2**63 - 1, "\U0001f600" * MAX_NOTE),
        "failures": failures,
    }
    return Job("w", **{**whole, **fields})


def test_no_record_with_options_gets_a_page_of_its_own(path: Path) -> None:
    """With every part inline that may be, just below its limit, and in every state."""
    clock = ManualClock()
    sizes = (
        recordlayout.INLINE_BESIDE_OPTIONS,
        recordlayout.INLINE_BESIDE_OPTIONS + 1,
        recordlayout.INLINE_EXTRA,
    )
    with quelmdb.open(path, clock=clock) as store:
        number = 0
        for size in sizes:
            for text in (None, "e" * (size - 3)):
                for count in (0, 1, MAX_FAILURES):
                    number += 1
                    short = Failure(1, _LAST, _LAST, "f" * 24)
                    store.insert(
                        _largest(
                            result=b"r" * (size - 3),
                            error=text,
                            failures=[short] * count,
                            run_at=None,
                            unique_key=f"{number:0200}",
                        )
                    )
        store.insert(_largest())
        held = store.claim(limit=100)
        assert len(held) == number
        largest = max(map(len, _records(store).values()))
        for job in held:
            store.progress(job, 2**63 - 1, 2**63 - 1, "\U0001f600" * MAX_NOTE)
        for job in held[::2]:
            store.cancel(job)
        largest = max(largest, *map(len, _records(store).values()))
        for job in store.jobs("started"):
            store.update(job.replace(error="e" * 62, result=b"r" * 62))
        largest = max(largest, *map(len, _records(store).values()))
        for place, job in enumerate(held):
            match place % 3:
                case 0:
                    store.fail(job, "e" * 62, retry_at=_LAST)
                case 1:
                    store.complete(job, b"r" * 62)
                case _:
                    store.release(job)
            largest = max(largest, *map(len, _records(store).values()))
        print(f"the largest record has {largest} bytes")
        assert largest <= _HALF_A_PAGE
        assert store.check() == []
    with lmdb.open(str(path / "000001"), max_dbs=16, readonly=True) as environment:
        for name in (layout.JOBS, layout.PAYLOADS, layout.BY_OPTION):
            database = environment.open_db(name, create=False)
            with environment.begin() as transaction:
                assert transaction.stat(database)["overflow_pages"] == 0, name


# --- Entries follow the job ---------------------------------------------------


def _own(store: quelmdb.Store, job: Job, *kinds: str) -> dict[bytes, bytes]:
    """The entries of these kinds that a job has."""
    assert job.id is not None
    worker = 1  # the number of the only worker there is
    found = {}
    for kind in kinds:
        if kind == "due":
            assert job.run_at is not None
            found[due_key(microseconds(job.run_at), job.id)] = b""
        elif kind == "priority":
            found[priority_key(None, job.priority, job.id)] = b""
            found[priority_key(worker, job.priority, job.id)] = b""
        else:
            assert job.unique_key is not None
            found[unique_key_of(job.unique_key)] = pack_number(job.id)
    return found


def test_the_entries_of_a_job_follow_each_transition(path: Path) -> None:
    clock = ManualClock()
    with quelmdb.open(path, clock=clock) as store:

        def has(job: Job, status: str, *kinds: str) -> None:
            assert job.status == status
            assert store.find(job) == job
            assert _of(store) == _own(store, job, *kinds)
            assert store.check() == []

        job = Job("a", priority=7, unique_key="k", run_at=clock.time + _LATER, max_attempts=9)
        job = store.insert(job)
        has(job, "scheduled", "due", "unique")
        assert store.next_due() == job.run_at
        assert store.claim() == []
        clock.advance(86_400_000_000)
        (job,) = store.claim()
        has(job, "started", "unique")
        has(store.progress(job, 1), "started", "unique")
        job = store.release(job)
        has(job, "queued", "priority", "unique")
        (job,) = store.claim()
        job = store.fail(job, "oh", retry_at=clock.time + _LATER)
        has(job, "scheduled", "due", "unique")
        job = store.retry(job)
        has(job, "queued", "priority", "unique")
        job = store.cancel(job)
        has(job, "cancelled")
        job = store.retry(job)
        has(job, "queued", "priority", "unique")
        job = store.update(job.replace(priority=3, unique_key="l"))
        has(job, "queued", "priority", "unique")
        job = store.update(job.replace(status="scheduled", run_at=clock.time))
        has(job, "scheduled", "due", "unique")
        clock.advance(1)
        (job,) = store.claim()
        store.cancel(job)
        (job,) = store.jobs("started")
        has(job, "started", "unique")
        job = store.release(job)
        has(job, "cancelled")
        job = store.update(job.replace(status="started", priority=0))
        has(job, "started", "unique")
        other = store.insert(Job("a", priority=1, unique_key="l"), on_duplicate="replace")
        assert _of(store) == _own(store, other, "priority", "unique")
        store.destroy(job)
        (other,) = store.restore([other.replace(priority=4)], on_conflict="replace")
        has(other, "queued", "priority", "unique")
        (other,) = store.claim()
        has(store.complete(other), "completed")
        assert store.prune() == 1
        assert _of(store) == {}


def test_what_a_dead_process_held_has_its_entries_again(path: Path) -> None:
    clock = ManualClock()
    for most, cancelled, kinds in (
        (None, False, ["priority", "unique"]),
        (1, False, []),
        (None, True, []),
    ):
        with quelmdb.open(path, clock=clock) as store:
            store.insert(Job("a", priority=2, unique_key="k", max_attempts=most))
            (held,) = store.claim()
            if cancelled:
                store.cancel(held)
        with quelmdb.open(path, clock=clock) as store:
            (job,) = store.rescue()
            assert _of(store) == _own(store, job, *kinds)
            assert store.check() == []
            store.destroy(job)


# --- Kills --------------------------------------------------------------------


def test_entries_are_as_large_as_lmdb_takes() -> None:
    """511 bytes are the most of a key."""
    assert len(unique_key_of("k" * MAX_UNIQUE_KEY_BYTES)) <= 511


def test_a_closed_store_has_only_entries_of_its_jobs(path: Path) -> None:
    with quelmdb.open(path) as store:
        store.insert(Job("a", unique_key="k"))
        store.destroy(1)
        store.insert(Job("a", priority=1))
        store.pause("a")
    assert set(_entries(path)) == {
        priority_key(None, 1, 2),
        priority_key(1, 1, 2),
        paused_key(1),
    }
