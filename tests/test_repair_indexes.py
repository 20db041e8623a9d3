"""Repair of what stands beside the records: indexes, counters, owners, the names of workers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

import quelmdb
from quelmdb import Job, Status, layout, recordlayout
from quelmdb.layout import pack_number
from tests.damage import Raw, damaged_copy, raw
from tests.repairing import DAMAGED, after, filled, jobs_of, repaired

pytest_plugins = ["tests.fixtures"]


@pytest.fixture
def closed(tmp_path: Path) -> Path:
    return filled(tmp_path)


_QUEUED: Final = layout.STATUS_KEYS[layout.STATUS_CODES[Status.QUEUED]]
_FAILED: Final = layout.STATUS_KEYS[layout.STATUS_CODES[Status.FAILED]]


# --- Indexes, counters, owners ------------------------------------------------


def _put(database: str, key: bytes, value: bytes) -> Callable[[Raw], object]:
    return lambda content: content.transaction.put(
        key, value, db=getattr(content.databases, database)
    )


def _delete(database: str, key: bytes, value: bytes = b"") -> Callable[[Raw], object]:
    def damage(content: Raw) -> None:
        assert content.transaction.delete(key, value, db=getattr(content.databases, database))

    return damage


_KEY: Final = pack_number(DAMAGED)
_OF_B: Final = layout.worker_status_key(2, 1)
_INDEXES: Final = {
    "an entry is missing in by_status": _delete("by_status", _QUEUED, _KEY),
    "an entry is missing in by_worker_status": _delete("by_worker_status", _OF_B, _KEY),
    "a foreign entry is in by_status": _put("by_status", _FAILED, _KEY),
    "an entry of no job is in by_status": _put("by_status", _FAILED, pack_number(99)),
    "a foreign entry is in by_worker_status": _put("by_worker_status", pack_number(517), _KEY),
    "an entry of no job is in by_worker_status": _put("by_worker_status", _OF_B, pack_number(99)),
    "a status that is none is in by_status": _put("by_status", pack_number(77), _KEY),
    "a worker's key is in by_status": _put("by_status", layout.worker_status_key(1, 1), _KEY),
    "a due time is missing": _delete("by_option", layout.due_key(2**52, 11)),
    "a priority is missing": _delete("by_option", layout.priority_key(None, 7, 12)),
    "a priority of no job is there": _put("by_option", layout.priority_key(2, 1, 99), b""),
    "a unique key is missing": _delete("by_option", layout.unique_key_of("only")),
    "a unique key is another's": _put("by_option", layout.unique_key_of("only"), _KEY),
    "a unique key is a job's without one": _put("by_option", layout.unique_key_of("mine"), _KEY),
    "an option is none": _put("by_option", b"?", b""),
    "a worker is paused that is none": _put("by_option", layout.paused_key(99), b""),
    "a paused worker is no number": _put("by_option", b"Z?", b""),
    "a paused worker has a value": _put("by_option", layout.paused_key(2), b"?"),
    "next_id is 0": _put("meta", layout.NEXT_ID, pack_number(0)),
    "next_id is too low": _put("meta", layout.NEXT_ID, pack_number(5)),
    "next_id is too high": _put("meta", layout.NEXT_ID, pack_number(2**64 - 1)),
    "next_id is no number": _put("meta", layout.NEXT_ID, b"short"),
    "next_id is missing": _delete("meta", layout.NEXT_ID),
    "next_claim is too low": _put("meta", layout.NEXT_CLAIM, pack_number(1)),
    "next_owner is too low": _put("meta", layout.NEXT_OWNER, pack_number(1)),
    "next_worker is too low": _put("meta", layout.NEXT_WORKER, pack_number(1)),
    "the uuid is none": _put("meta", layout.UUID_KEY, b"short"),
    "the format is another": _put("meta", layout.FORMAT_KEY, pack_number(9)),
    "the identity is missing": _delete("meta", layout.IDENTITY[0]),
    "the durability is none": _put("meta", layout.DURABILITY_KEY, b"fool"),
    "an owner is none": _put("owners", pack_number(1), b"short"),
    "an owner's number is too large": _put("owners", pack_number(2**40), bytes(16)),
}


_UNSEEN: Final = {"next_id is too high", "the durability is none"}
"""Nothing in the store contradicts it."""
_UNSERVED: Final = {"the format is another", "the identity is missing"}


@pytest.mark.parametrize("name", sorted(_INDEXES.keys() - _UNSEEN - _UNSERVED))
def test_what_stands_beside_the_records_is_checked(name: str, closed: Path) -> None:
    with raw(closed) as content:
        _INDEXES[name](content)
    with quelmdb.open(closed, readonly=True) as store:
        assert store.check()


@pytest.mark.parametrize("damage", _INDEXES.values(), ids=_INDEXES)
def test_what_stands_beside_the_records_is_made_again(
    damage: Callable[[Raw], object], closed: Path
) -> None:
    before, done = after(closed, damage)
    assert done.jobs == before
    assert done.aside == []
    with quelmdb.open(done.path) as store:
        assert (store.insert(Job("new")).id or 0) > 15  # the last one was destroyed
        assert set(store.paused()) == {"b"}
        claimed = store.claim("a", limit=99)
        assert [job.arguments for job in claimed[:2]] == [b"big" * 3000, {"n": 3}]


def test_a_started_job_of_an_unknown_owner_is_rescued(closed: Path) -> None:
    with raw(closed) as content:
        content.transaction.drop(content.databases.owners, delete=False)
    done = repaired(closed)
    assert {problem.rule for problem in done.told.problems} == {"owner"}
    with quelmdb.open(done.path) as store:
        job = store.find(3)
        assert job is not None
        assert job.status == "started"
        assert [job.id for job in store.rescue()] == [3]
        assert store.check() == []


def test_a_job_that_is_not_started_has_no_owner_afterwards(closed: Path) -> None:
    before, done = after(closed, lambda content: content.change_header(DAMAGED, owner=1))
    assert done.jobs == before
    assert [(p.rule, p.job_id) for p in done.told.problems] == [("owner", DAMAGED)]


def test_of_two_jobs_with_a_unique_key_the_first_keeps_it(closed: Path) -> None:
    with quelmdb.open(closed) as store:
        second = store.insert(Job("a", "second", unique_key="mine", max_attempts=3))
        third = store.insert(Job("a", "third", unique_key="yours"))
    with raw(closed) as content:
        for job in (second, third):
            record = content.record(job.id or 0)
            length = recordlayout.unpack_record(pack_number(job.id or 0), record)[6]
            arguments, extras = recordlayout.split_body(record)
            assert len(arguments) == length
            for own in (b"dmine", b"eyours"):
                extras = extras.replace(own, b"donly" if own == b"dmine" else b"donly!")
            content.change_arguments(job.id or 0, arguments, extras)
    with quelmdb.open(closed) as store:
        assert "by_option" in {problem.rule for problem in store.check()}
    before = jobs_of(closed)
    done = repaired(closed)
    assert done.jobs[13] == before[13]
    assert done.jobs[second.id] == before[second.id].replace(unique_key=None)
    assert {(p.rule, p.job_id) for p in done.told.problems} >= {("by_option", second.id)}


# --- The names of workers -----------------------------------------------------


def _drop_names(*databases: str) -> Callable[[Raw], object]:
    def damage(content: Raw) -> None:
        for database in databases:
            content.transaction.drop(getattr(content.databases, database), delete=False)

    return damage


_NAMES: Final = {
    "a name has another's number": _put("workers", b"a", pack_number(2)),
    "a name has a number of nobody": _put("workers", b"a", pack_number(77)),
    "a name has no number": _put("workers", b"a", b"short"),
    "a number has another name": _put("worker_names", pack_number(1), b"z"),
    "a number has another's name": _put("worker_names", pack_number(1), b"b"),
    "a number has a name that is no text": _put("worker_names", pack_number(1), b"\xff"),
    "a name is missing": _delete("workers", b"a"),
    "a number is missing": _delete("worker_names", pack_number(1)),
    "a number is missing, and another name": lambda content: (
        _delete("workers", b"a")(content),
        _delete("worker_names", pack_number(2))(content),
    ),
    "no name is left in workers": _drop_names("workers"),
    "no name is left in worker_names": _drop_names("worker_names"),
    "no name is left but on old pages": _drop_names("workers", "worker_names"),
}


@pytest.mark.parametrize("damage", _NAMES.values(), ids=_NAMES)
def test_the_names_of_workers_are_as_they_were(
    damage: Callable[[Raw], object], closed: Path
) -> None:
    before, done = after(closed, damage)
    assert done.jobs == before
    assert done.aside == []
    assert done.told.invented == {}


def test_a_name_that_is_nowhere_is_invented_and_never_guessed(closed: Path) -> None:
    before = jobs_of(closed)
    path = damaged_copy(repaired(closed).path, closed.with_name("copy"), lambda data: None)

    def damage(data: bytearray) -> None:
        """The name `a` becomes `z` on every page, in one of both databases each time."""
        at = data.find(pack_number(1) + b"a")
        while at >= 0:
            data[at + 8] = ord("z")
            at = data.find(pack_number(1) + b"a", at + 1)

    done = repaired(damaged_copy(path, closed.with_name("worse"), damage), "again")
    assert done.told.invented == {1: "unknown-worker-1"}
    assert {job.worker for job in done.jobs.values()} == {"unknown-worker-1", "b", None}
    for job_id, job in done.jobs.items():
        was = before[job_id]
        assert job == (was.replace(worker="unknown-worker-1") if was.worker == "a" else was)


@pytest.mark.parametrize("database", ["workers", "worker_names"])
def test_a_name_that_is_disputed_is_told_by_both_databases_and_not_by_one_many_times(
    database: str, closed: Path
) -> None:
    before = jobs_of(closed)
    path = repaired(closed).path  # without old pages
    for n in range(4):
        with raw(path) as content:  # leaves one more page of this database alone
            other = (b"c", pack_number(9)) if database == "workers" else (pack_number(9), b"c")
            db = getattr(content.databases, database)
            content.transaction.put(*other, db=db) if n % 2 else content.transaction.delete(
                other[0], db=db
            )
    known = b"a" + pack_number(1) if database == "workers" else pack_number(1) + b"a"

    def damage(data: bytearray) -> None:
        data[:] = data.replace(known, known.replace(b"a", b"z"))

    done = repaired(damaged_copy(path, closed.with_name("worse"), damage), "again")
    assert done.told.invented == {1: "unknown-worker-1"}
    assert {job.worker for job in before.values()} == {"a", "b", None}
    assert {job.worker for job in done.jobs.values()} == {"unknown-worker-1", "b", None}
