"""Damage to what few jobs ask for is found, and harms no other job."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest

import quelmdb
from quelmdb import CorruptRecordError, DecodeError, Job, recordlayout
from quelmdb.codec import Codec
from quelmdb.layout import due_key, pack_number, paused_key, priority_key, unique_key_of
from quelmdb.options import Failure
from quelmdb.testing import ManualClock
from quelmdb.values import microseconds
from tests import inmemory
from tests.damage import raw

pytest_plugins = ["tests.fixtures"]
tmp_path = inmemory.tmp_path

_LATER: Final = timedelta(days=1)


@pytest.fixture
def closed(tmp_path: Path) -> Path:
    """A store of five jobs: one scheduled, one with a priority, one with a key, one with
    failures, one without any of it."""
    path = tmp_path / "damaged.qdb"
    clock = ManualClock()
    with quelmdb.open(path, clock=clock) as store:
        store.insert(Job("a", 1, run_at=clock.time + _LATER))
        store.insert(Job("a", 2, priority=5))
        store.insert(Job("a", 3, unique_key="k"))
        failure = Failure(1, clock.time, clock.time, "oh")
        store.insert(Job("a", 4, failures=[failure], max_attempts=9))
        store.insert(Job("a", 5))
        assert store.check() == []
    return path


_AT: Final = microseconds(ManualClock().time + _LATER)
_OWN: Final = {
    "due": (1, due_key(_AT, 1), b""),
    "priority": (2, priority_key(None, 5, 2), b""),
    "priority of its worker": (2, priority_key(1, 5, 2), b""),
    "unique": (3, unique_key_of("k"), pack_number(3)),
}


@pytest.mark.parametrize("kind", _OWN)
def test_a_missing_entry_is_found_and_the_job_can_still_be_had(kind: str, closed: Path) -> None:
    job_id, key, _ = _OWN[kind]
    with raw(closed) as content:
        assert content.transaction.delete(key, db=content.databases.by_option)
    with quelmdb.open(closed) as store:
        assert {(p.rule, p.job_id) for p in store.check()} == {("by_option", job_id)}
        store.retry_many([1])
        assert sorted(job.id or 0 for job in store.claim(limit=9)) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (kind, value)
        for kind, (_, _, right) in _OWN.items()
        for value in (b"", b"x", pack_number(1), pack_number(99))
        if value != right
    ],
)
def test_an_entry_with_another_value_is_found(kind: str, value: bytes, closed: Path) -> None:
    _, key, _ = _OWN[kind]
    with raw(closed) as content:
        content.transaction.put(key, value, db=content.databases.by_option)
    with quelmdb.open(closed) as store:
        assert "by_option" in {problem.rule for problem in store.check()}
        assert len(store.all()) == 5


_FOREIGN: Final = {
    "of a time that is not its own": due_key(_AT + 1, 1),
    "of a job that is not scheduled": due_key(_AT, 5),
    "of a job without a priority": priority_key(None, 5, 5),
    "of another priority": priority_key(1, 6, 2),
    "of another worker": priority_key(2, 5, 2),
    "of a key that is not its own": unique_key_of("l"),
}


@pytest.mark.parametrize("job_id", [None, 99])
@pytest.mark.parametrize("key", _FOREIGN.values(), ids=_FOREIGN)
def test_a_foreign_entry_is_found_and_claims_pass_over_it(
    key: bytes, job_id: int | None, closed: Path
) -> None:
    """Also one whose job is not there at all."""
    if job_id is not None and key[:1] != b"U":
        key = key[:-8] + job_id.to_bytes(8)
    value = pack_number(job_id or 3) if key[:1] == b"U" else b""
    with raw(closed) as content:
        content.transaction.put(key, value, db=content.databases.by_option)
    clock = ManualClock()
    clock.advance(2 * 86_400_000_000)
    with quelmdb.open(closed, clock=clock) as store:
        assert {problem.rule for problem in store.check()} == {"by_option"}
        assert sorted(job.id or 0 for job in store.claim(limit=9)) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("key", [b"?", b"D", b"Dshort", b"P", b"W1234", b"Z", b"Zshort"])
def test_a_key_that_is_none_is_found(key: bytes, closed: Path) -> None:
    with raw(closed) as content:
        content.transaction.put(key, b"", db=content.databases.by_option)
    with quelmdb.open(closed) as store:
        assert {problem.rule for problem in store.check()} == {"by_option"}
        assert len(list(store.all())) == 5


def test_a_paused_worker_without_a_name_is_found(closed: Path) -> None:
    with raw(closed) as content:
        content.transaction.put(paused_key(77), b"", db=content.databases.by_option)
    with quelmdb.open(closed) as store:
        assert store.check() != []
        assert len(list(store.all())) == 5


_BAD: Final = {
    "noise": b"\xff\x00\xff",
    "nothing": b"",
    "a number": b"\x05",
    "text": b"\x61a",
    "an empty list": b"\x80",
    "a list of too few": b"\x82\x00\x00",
    "a list of too many": b"\x86\xf6\x00\xf6\xf6\xf6\xf6",
    "a time that is none": b"\x85\x1b" + b"\xff" * 8 + b"\x00\xf6\xf6\xf6",
    "a time that is text": b"\x85\x61a\x00\xf6\xf6\xf6",
    "a priority that is text": b"\x85\xf6\x61a\xf6\xf6\xf6",
    "a negative priority": b"\x85\xf6\x20\xf6\xf6\xf6",
    "a key that is a number": b"\x85\xf6\x00\x05\xf6\xf6",
    "no attempts": b"\x85\xf6\x00\xf6\x00\xf6",
    "progress that is a number": b"\x85\xf6\x00\xf6\xf6\x05",
    "progress of texts": b"\x85\xf6\x00\xf6\xf6\x82\x61a\x61b",
    "a map": b"\xa0",
    "a list of lists": b"\x81\x80",
    "a list of numbers": b"\x81\x05",
    "a failure of texts": b"\x81\x85\x61a\x61b\x61c\x61d\x61e",
    "a failure at no time": b"\x81\x85\x01\x1b" + b"\xff" * 8 + b"\x00\x61d\xf4",
    "a deep list": b"\x81" * 5000 + b"\x00",
    "a huge list": b"\x9b" + b"\xff" * 8,
}
_MAPS: Final = {
    f"{name}, {part}": Codec().encode({key: value})
    for name, value in _BAD.items()
    for part, key in (("options", "o"), ("failures", "f"), ("claimed", "c"))
}
_MAPS["no map"] = b"\x81\x05"
_MAPS["no bytes"] = b"\xa1\x61o\x05"
_MAPS["other names"] = b"\xa1\x61x\x41\x05"


@pytest.mark.timeout(60)
@pytest.mark.parametrize("extras", _MAPS.values(), ids=_MAPS)
def test_damaged_options_and_failures_raise_ours_alone_and_harm_no_other_job(
    extras: bytes, closed: Path
) -> None:
    """In each state that is looked at by another verb, of a job that nobody holds."""
    with quelmdb.open(closed) as store:
        store.claim("a", limit=9)  # and who held them has closed it
    with raw(closed) as content:
        content.change_arguments(4, b"\x04", extras)
        content.change_header(4, flags=recordlayout.RARE)
    with quelmdb.open(closed) as store:
        assert {problem.job_id for problem in store.check()} <= {4}
        rescued = [job.id for job in store.rescue()]
        assert {2, 3, 5} <= set(rescued)
        _use(store)
        claimed = {job.id for job in store.claim(limit=9)}
        assert {2, 3, 5} <= claimed
        _use(store)
        store.complete_many(job for job in store.jobs("started") if job.id != 4)
        assert {2, 3, 5} <= set(store.completed().ids())
        assert {problem.job_id for problem in store.check()} <= {4}


def _use(store: quelmdb.Store) -> None:
    """What can be asked of a damaged job, or be done to it."""
    uses: list[Callable[[], object]] = [
        lambda: store.find(4),
        lambda: _look(store.find(4)),
        lambda: store.cancel_requested(Job(id=4, claim=4)),
        lambda: store.progress(Job(id=4, claim=4), 1),
        lambda: store.cancel(4),
        lambda: store.retry(4),
        lambda: store.update(Job("a", 4, id=4, status="started", priority=1)),
    ]
    for use in uses[: random.Random().randrange(3, len(uses) + 1)]:
        with suppress(CorruptRecordError, DecodeError, quelmdb.JobError):
            use()
    assert {job.id for job in store.all()} >= {2, 3, 5}


def _look(job: Job | None) -> None:
    assert job is not None
    job.as_dict()
    repr(job)


def test_failures_outside_of_the_record_that_are_damaged_are_found(closed: Path) -> None:
    now = ManualClock().time
    with quelmdb.open(closed) as store:
        store.insert(Job("a", 6, priority=1, failures=[Failure(1, now, now, "x" * 900)] * 3))
    with raw(closed) as content:
        key = recordlayout.payload_key(6, recordlayout.FAILURES)
        content.transaction.put(key, b"damaged", db=content.databases.payloads)
    with quelmdb.open(closed, clock=ManualClock()) as store:
        with pytest.raises(CorruptRecordError, match="failures"):
            store.find(6)
        assert 6 in {problem.job_id for problem in store.check()}
        assert sorted(job.id or 0 for job in store.claim(limit=9)) == [2, 3, 4, 5]
        store.destroy(6)
        assert store.check() == []
