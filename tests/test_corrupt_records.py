"""Records, values and indexes that are damaged within sound pages: each is found by `check`,
and everything else goes on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

import quelmdb
from quelmdb import CorruptRecordError, DecodeError, Job, JobExistsError, recordlayout
from tests import inmemory
from tests.damage import Raw, raw

tmp_path = inmemory.tmp_path

_JOBS = 10
_BIG = b"b" * 6000
_DAMAGED = 4  # the id of the job that is


@pytest.fixture
def closed(tmp_path: Path) -> Path:
    """A store with ten queued jobs, closed: odd ones of `a`, even ones of `b`."""
    path = tmp_path / "jobs.qdb"
    with quelmdb.open(path) as store:
        store.insert_many(Job("ba"[n % 2], {"n": n}) for n in range(1, _JOBS + 1))
    return path


def _problems(store: quelmdb.Store, job_id: int | None = _DAMAGED) -> set[str]:
    """The rules that are broken, which must be for that job alone."""
    problems = store.check()
    assert {problem.job_id for problem in problems} <= {job_id}
    return {problem.rule for problem in problems}


# --- Records ------------------------------------------------------------------


def _flip_in_record(content: Raw) -> None:
    record = bytearray(content.record(_DAMAGED))
    record[20] ^= 1
    content.put_record(_DAMAGED, bytes(record))


def _put_bytes(data: bytes) -> Callable[[Raw], None]:
    return lambda content: content.put_record(_DAMAGED, data)


def _set(**fields: int) -> Callable[[Raw], None]:
    return lambda content: content.change_header(_DAMAGED, **fields)


def _move_from_another(content: Raw) -> None:
    """A record that is sound, under an id that is not its own."""
    content.put_record(_DAMAGED, content.record(_DAMAGED + 2))


BAD_RECORDS = {
    "its checksum fails": _flip_in_record,
    "it is empty": _put_bytes(b""),
    "it is short": _put_bytes(b"short"),
    "it is noise": _put_bytes(bytes(range(200))),
    "it is long noise": _put_bytes(b"\1" * 100_000),
    "it is another job's": _move_from_another,
    "it has another version": _set(version=2),
    "its status is unknown": _set(status=17),
    "its flags are unknown": _set(flags=64),
    "its arguments are longer than it": _set(arguments_length=10_000),
    "its claim is beyond all claims": _set(claim=2**63),
    "its worker has no name": _set(worker=99),
    "its arguments are outside, and are not": _set(flags=recordlayout.ARGUMENTS_OUTSIDE),
    "its result is outside, and is not": _set(flags=recordlayout.RESULT_OUTSIDE),
}


@pytest.fixture(params=BAD_RECORDS)
def with_a_bad_record(request: pytest.FixtureRequest, closed: Path) -> Iterator[quelmdb.Store]:
    with raw(closed) as content:
        BAD_RECORDS[request.param](content)
    with quelmdb.open(closed) as store:
        yield store


def test_a_bad_record_raises_where_it_is_asked_for(with_a_bad_record: quelmdb.Store) -> None:
    store = with_a_bad_record
    with store.snapshot() as snapshot:
        for find in (store.find, snapshot.find):
            with pytest.raises(CorruptRecordError, match="quelmdb check") as caught:
                find(_DAMAGED)
            assert caught.value.job_id == _DAMAGED


def test_a_bad_record_is_replaced_whole_or_not_at_all(with_a_bad_record: quelmdb.Store) -> None:
    """Where its head is sound, its place in the indexes is known."""
    store = with_a_bad_record
    new = Job("a", "new", id=_DAMAGED)
    for write in (
        lambda: store.insert(new),
        lambda: store.update(new),
        lambda: store.restore([new], on_conflict="replace"),
        lambda: store.destroy(_DAMAGED),
    ):
        try:
            write()
            damaged = False
        except (CorruptRecordError, JobExistsError):
            damaged = True
        assert ("record" in _problems(store)) is damaged
    assert len(list(store.all())) == _JOBS - 1


def test_listings_log_a_bad_record_once_and_go_on(
    with_a_bad_record: quelmdb.Store, caplog: pytest.LogCaptureFixture
) -> None:
    store = with_a_bad_record
    others = [n for n in range(1, _JOBS + 1) if n != _DAMAGED]
    for _ in range(3):
        assert [job.id for job in store.all()] == others
        assert [job.id for job in store.jobs("queued", reverse=True)] == others[::-1]
        assert [job.id for job in store.incomplete("b")] == [2, 6, 8, 10]
        assert [job.id for job in store.all(after=2, limit=2)] in ([3, 5], [3])
        with store.snapshot() as snapshot:
            assert [job.id for job in snapshot.all("b")] == [2, 6, 8, 10]
    assert list(store.all().ids()) == list(range(1, _JOBS + 1))
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert [f"job {_DAMAGED} is corrupt" in warning.message for warning in warnings]
    assert 1 <= len(warnings) <= 4  # once for the store, once for each snapshot


def test_claim_logs_a_bad_record_once_and_goes_on(
    with_a_bad_record: quelmdb.Store, caplog: pytest.LogCaptureFixture
) -> None:
    store = with_a_bad_record
    claimed = store.claim(limit=5)
    assert [job.id for job in claimed] == [1, 2, 3, 5, 6]
    claimed += store.claim(limit=100)
    assert len(claimed) == _JOBS - 1
    assert store.claim() == []
    assert len([record for record in caplog.records if str(_DAMAGED) in record.message]) == 1
    store.complete_many(claimed)


def test_check_reports_a_bad_record(with_a_bad_record: quelmdb.Store) -> None:
    assert "record" in _problems(with_a_bad_record)


def test_rescue_goes_past_a_bad_record(closed: Path, caplog: pytest.LogCaptureFixture) -> None:
    with quelmdb.open(closed) as store:
        store.claim(limit=6)
    with raw(closed) as content:
        _flip_in_record(content)
    with quelmdb.open(closed) as store:
        assert [job.id for job in store.rescue()] == [1, 2, 3, 5, 6]
        assert store.rescue() == []
        assert len(caplog.records) == 1
        assert _problems(store) == {"record"}


# --- Values -------------------------------------------------------------------

HOSTILE = {
    "no CBOR": b"\xff\xff\xff",
    "the end in the middle": b"\x62a",
    "two values": b"\x01\x01",
    "an array that is huge": b"\x9b\x7f\xff\xff\xff\xff\xff\xff\xff",
    "a text that is huge": b"\x7b\x00\x00\x00\xff\xff\xff\xff\xff",
    "nesting without end": b"\x81" * 900,
    "an array without a length": b"\x9f\x01\xff",
    "a key twice": b"\xa2\x61a\x01\x61a\x02",
    "a map for a key": b"\xa1\xa0\x01",
    "shared references": b"\xd8\x1c\x82\x01\xd8\x1d\x00",
    "a reference to nothing": b"\xd8\x1d\x05",
    "a regular expression": b"\xd8\x23\x66(a+)+$",
    "a MIME message": b"\xd8\x24\x61a",
    "a fraction": b"\xd8\x1e\x82\x01\x02",
    "a set": b"\xd9\x01\x02\x81\x01",
    "an address": b"\xd9\x01\x04\x44\x7f\x00\x00\x01",
    "a decimal of a billion digits": b"\xc4\x82\x1a\x3b\x9a\xca\x00\x01",
    "a bigfloat": b"\xc5\x82\x1a\x3b\x9a\xca\x00\x01",
    "an unknown tag": b"\xd9\x12\x34\x01",
    "text that is no UTF-8": b"\x62\xff\xff",
    "a time that is none": b"\xc0\x63now",
    "undefined": b"\xf7",
    "a simple value": b"\xf8\xff",
    "a break": b"\xff",
    "nothing": b"",
}


@pytest.fixture(params=HOSTILE)
def with_a_hostile_value(request: pytest.FixtureRequest, closed: Path) -> Iterator[quelmdb.Store]:
    with raw(closed) as content:
        content.change_arguments(_DAMAGED, HOSTILE[request.param])
    with quelmdb.open(closed) as store:
        yield store


@pytest.mark.timeout(10)
def test_a_hostile_value_raises_where_it_is_looked_at(with_a_hostile_value: quelmdb.Store) -> None:
    job = with_a_hostile_value.find(_DAMAGED)
    assert job is not None
    assert (job.id, job.worker, job.status) == (_DAMAGED, "b", "queued")
    for _ in range(2):
        with pytest.raises(DecodeError):
            _ = job.arguments
        with pytest.raises(DecodeError):
            job.as_dict()
    assert f"id={_DAMAGED}" in repr(job)


def test_everything_else_goes_on_beside_a_hostile_value(
    with_a_hostile_value: quelmdb.Store,
) -> None:
    store = with_a_hostile_value
    assert len(list(store.all())) == _JOBS
    claimed = store.claim(limit=_JOBS)
    assert len(claimed) == _JOBS
    store.release(claimed.pop(_DAMAGED - 1))
    store.complete_many(claimed)
    (job,) = store.claim()
    store.fail(job, "its arguments cannot be decoded")
    assert [job.id for job in store.failed()] == [_DAMAGED]
    assert _problems(store) == {"record"}
    store.update(Job("b", {"n": 4}, id=_DAMAGED))
    assert store.check() == []


_NUMBER = b"\x05"
_EXTRAS = {
    **{name: extras for name, extras in HOSTILE.items() if extras},
    "a result that is no value": b"\xa1\x61r\x42\xff\xff",
    "an error that is no text": b"\xa1\x61e\x41" + _NUMBER,
    "a result that is no bytes": b"\xa1\x61r" + _NUMBER,
    "a list": b"\x81" + _NUMBER,
}


@pytest.mark.parametrize("extras", _EXTRAS.values(), ids=_EXTRAS)
def test_hostile_results_and_errors_raise_where_they_are_looked_at(
    extras: bytes, closed: Path
) -> None:
    with raw(closed) as content:
        content.change_arguments(_DAMAGED, _NUMBER, extras)
    for attempt in (1, 2):
        with quelmdb.open(closed) as store:  # the second time it is rescued
            job = store.find(_DAMAGED)
            assert job is not None
            with pytest.raises(DecodeError):
                _ = job.error
            assert _problems(store) == {"record"}
            claimed = store.claim(limit=_JOBS)[_DAMAGED - 1]
            assert (claimed.id, claimed.attempt) == (_DAMAGED, attempt)


@pytest.mark.parametrize("micros", [2**63 - 1, -(2**63)])
def test_a_time_that_is_none_raises_where_it_is_looked_at(micros: int, closed: Path) -> None:
    with raw(closed) as content:
        content.change_header(_DAMAGED, created_at=micros, updated_at=micros)
    with quelmdb.open(closed) as store:
        job = list(store.all())[_DAMAGED - 1]
        with pytest.raises(DecodeError):
            _ = job.created_at
        assert f"id={_DAMAGED}" in repr(job)
        assert _problems(store) == {"record"}
        assert len(store.claim(limit=_JOBS)) == _JOBS
    with raw(closed) as content:
        content.change_header(_DAMAGED, created_at=micros, updated_at=micros)
    with quelmdb.open(closed) as store:  # it tells since when a dead process had it
        assert [job.attempt for job in store.claim(limit=_JOBS)] == [2] * _JOBS


# --- Payloads -----------------------------------------------------------------


def _delete_chunk(content: Raw, chunk: int) -> None:
    key = recordlayout.payload_key(_DAMAGED, recordlayout.ARGUMENTS, chunk)
    assert content.transaction.delete(key, db=content.databases.payloads)


def _change_chunk(content: Raw, chunk: int) -> None:
    key = recordlayout.payload_key(_DAMAGED, recordlayout.ARGUMENTS, chunk)
    content.transaction.put(key, b"c" * 2000, db=content.databases.payloads)


@pytest.mark.parametrize("damage", [_delete_chunk, _change_chunk])
@pytest.mark.parametrize("chunk", [0, 1, 2, 3])
def test_damaged_or_missing_chunks_are_a_bad_record(
    damage: Callable[[Raw, int], None], chunk: int, closed: Path
) -> None:
    with quelmdb.open(closed) as store:
        store.update(Job("b", _BIG, id=_DAMAGED))
    with raw(closed) as content:
        damage(content, chunk)
    with quelmdb.open(closed) as store:
        with pytest.raises(CorruptRecordError, match="arguments"):
            store.find(_DAMAGED)
        assert len(list(store.all())) == _JOBS - 1
        assert len(store.claim(limit=_JOBS)) == _JOBS - 1
        assert "record" in _problems(store)
        store.destroy(_DAMAGED)
        assert store.check() == []


def test_orphan_payloads_are_found(closed: Path) -> None:
    with raw(closed) as content:
        for job_id, part in ((3, recordlayout.RESULT), (99, recordlayout.ARGUMENTS)):
            key = recordlayout.payload_key(job_id, part)
            content.transaction.put(key, b"orphan", db=content.databases.payloads)
    with quelmdb.open(closed) as store:
        assert {(problem.rule, problem.job_id) for problem in store.check()} == {
            ("payloads", 3),
            ("payloads", 99),
        }
        assert len(list(store.all())) == _JOBS


@pytest.mark.parametrize("key", [b"k", b"k" * 13, b"k" * 14])
def test_keys_of_payloads_that_are_none_are_found(key: bytes, closed: Path) -> None:
    with raw(closed) as content:
        content.transaction.put(key, b"orphan", db=content.databases.payloads)
    with quelmdb.open(closed) as store:
        assert {problem.rule for problem in store.check()} == {"payloads"}


@pytest.mark.parametrize("run_at", [None, datetime(2020, 1, 1, tzinfo=UTC)], ids=["queued", "due"])
def test_a_damaged_job_keeps_nobody_awake_and_nobody_from_the_others(
    run_at: datetime | None, tmp_path: Path
) -> None:
    path = tmp_path / "jobs.qdb"
    with quelmdb.open(path) as store:
        damaged = store.insert(Job("a", run_at=run_at, status="scheduled" if run_at else "queued"))
    assert damaged.id is not None
    with raw(path) as content:
        record = content.record(damaged.id)
        content.put_record(damaged.id, record[:-1] + bytes([record[-1] ^ 1]))
    with quelmdb.open(path) as store:
        assert store.claim("a") == []
        assert not store.wait("a", timeout=0.2)
        other = store.insert(Job("a"))
        assert store.wait("a", timeout=30)
        assert [job.id for job in store.claim("a", limit=5)] == [other.id]
        assert {problem.job_id for problem in store.check()} == {damaged.id}
