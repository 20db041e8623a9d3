"""Indexes, counters, names and owners that are damaged within sound pages: each is found by
`check`, and no job is lost or altered by it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import quelmdb
from quelmdb import CorruptRecordError, CorruptStoreError, Job, Status, layout
from quelmdb.layout import pack_number
from quelmdb.persistence import Problem
from tests import inmemory
from tests.damage import Raw, raw

tmp_path = inmemory.tmp_path

_JOBS = 10
_DAMAGED = 4  # the id of the job that is


@pytest.fixture
def closed(tmp_path: Path) -> Path:
    """A store with ten queued jobs, closed: odd ones of `a`, even ones of `b`."""
    path = tmp_path / "jobs.qdb"
    with quelmdb.open(path) as store:
        store.insert_many(Job("ba"[n % 2], {"n": n}) for n in range(1, _JOBS + 1))
    return path


_QUEUED = layout.STATUS_KEYS[layout.STATUS_CODES[Status.QUEUED]]
_FAILED = layout.STATUS_KEYS[layout.STATUS_CODES[Status.FAILED]]
_B_QUEUED = layout.worker_status_key(2, layout.STATUS_CODES[Status.QUEUED])
_B_FAILED = layout.worker_status_key(2, layout.STATUS_CODES[Status.FAILED])


def _after(closed: Path, damage: Callable[[Raw], object]) -> tuple[quelmdb.Store, list[Problem]]:
    with raw(closed) as content:
        damage(content)
    store = quelmdb.open(closed)
    return store, store.check()


@pytest.mark.parametrize(
    ("index", "key"), [("by_status", _QUEUED), ("by_worker_status", _B_QUEUED)]
)
def test_missing_index_entries_are_found(index: str, key: bytes, closed: Path) -> None:
    def damage(content: Raw) -> None:
        database = getattr(content.databases, index)
        assert content.transaction.delete(key, pack_number(_DAMAGED), db=database)

    store, problems = _after(closed, damage)
    with store:
        assert {(problem.rule, problem.job_id) for problem in problems} == {(index, _DAMAGED)}
        assert store.find(_DAMAGED) is not None
        assert len(store.claim(limit=_JOBS)) >= _JOBS - 1


@pytest.mark.parametrize("job_id", [_DAMAGED, 99])
@pytest.mark.parametrize(
    ("index", "key"), [("by_status", _FAILED), ("by_worker_status", _B_FAILED)]
)
def test_surplus_index_entries_are_found(index: str, key: bytes, job_id: int, closed: Path) -> None:
    def damage(content: Raw) -> None:
        database = getattr(content.databases, index)
        content.transaction.put(key, pack_number(job_id), db=database)

    store, problems = _after(closed, damage)
    with store:
        assert {(problem.rule, problem.job_id) for problem in problems} == {(index, job_id)}
        assert len(store.claim(limit=_JOBS)) == _JOBS


def test_an_entry_among_the_queued_that_is_not_queued_is_not_claimed(closed: Path) -> None:
    with quelmdb.open(closed) as store:
        store.complete_many(store.claim(limit=_DAMAGED))

    def damage(content: Raw) -> None:
        for index, key in (("by_status", _QUEUED), ("by_worker_status", _B_QUEUED)):
            for job_id in (_DAMAGED, 99):
                database = getattr(content.databases, index)
                content.transaction.put(key, pack_number(job_id), db=database)

    store, problems = _after(closed, damage)
    with store:
        assert {problem.job_id for problem in problems} == {_DAMAGED, 99}
        assert [job.id for job in store.claim(limit=_JOBS)] == list(range(5, _JOBS + 1))
        assert len(store.completed()) == _DAMAGED


@pytest.mark.parametrize(
    "counter", [layout.NEXT_ID, layout.NEXT_CLAIM, layout.NEXT_OWNER, layout.NEXT_WORKER]
)
@pytest.mark.parametrize("value", [0, 1])
def test_counters_that_are_too_low_are_found_and_overwrite_no_job(
    counter: bytes, value: int, closed: Path
) -> None:
    with quelmdb.open(closed) as store:
        store.claim()
        before = {job.id: job for job in store.all()}

    def damage(content: Raw) -> None:
        content.transaction.put(counter, pack_number(value), db=content.databases.meta)

    store, problems = _after(closed, damage)
    with store:
        assert {problem.rule for problem in problems} == {"counters"}
        if counter == layout.NEXT_ID:
            for insert in (
                lambda: store.insert(Job("a")),
                lambda: store.update(Job("a")),
                lambda: store.insert_many([Job("a"), Job("a", id=50)]),
            ):
                with pytest.raises(CorruptStoreError):
                    insert()
            assert {job.id: job for job in store.all()} == before


def test_counters_that_are_missing_are_found(closed: Path) -> None:
    def damage(content: Raw) -> None:
        content.transaction.delete(layout.NEXT_ID, db=content.databases.meta)

    store, problems = _after(closed, damage)
    with store:
        assert [problem.rule for problem in problems] == ["counters"]
        with pytest.raises(CorruptStoreError, match="next_id"):
            store.insert(Job("a"))
        assert len(store.claim(limit=_JOBS)) == _JOBS


@pytest.mark.parametrize("value", [b"", b"short", b"x" * 15])
def test_owners_that_are_none_are_found(value: bytes, closed: Path) -> None:
    def damage(content: Raw) -> None:
        content.transaction.put(pack_number(1), value, db=content.databases.owners)

    with quelmdb.open(closed) as store:
        store.claim()
    store, problems = _after(closed, damage)
    with store:
        assert "owners" in {problem.rule for problem in problems}
        assert len(store.claim(limit=_JOBS)) == _JOBS  # whose owner is dead, whoever it was


@pytest.mark.parametrize("database", ["workers", "worker_names"])
def test_a_damaged_name_never_becomes_another_workers(database: str, closed: Path) -> None:
    """Names have no checksum, but stand twice."""

    def damage(content: Raw) -> None:
        key, value = (b"a", pack_number(2)) if database == "workers" else (pack_number(1), b"c")
        content.transaction.put(key, value, db=getattr(content.databases, database))

    store, problems = _after(closed, damage)
    with store:
        assert "worker names" in {problem.rule for problem in problems}
        assert [job.worker for job in store.all()] == ["b"] * 5
        assert len(list(store.all("b"))) == 5
        for use in (
            lambda: store.find(1),
            lambda: store.counts("a"),
            lambda: list(store.all("a")),
            lambda: store.insert(Job("a")),
            lambda: store.workers(),
        ):
            with pytest.raises((CorruptRecordError, CorruptStoreError)):
                use()
        assert [job.worker for job in store.claim(limit=_JOBS)] == ["b"] * 5


def test_a_name_that_is_no_text_is_found(closed: Path) -> None:
    def damage(content: Raw) -> None:
        content.transaction.put(pack_number(1), b"\xff", db=content.databases.worker_names)

    store, problems = _after(closed, damage)
    with store:
        assert "worker names" in {problem.rule for problem in problems}
        assert len(list(store.all())) == 5
