"""Dumps: both forms come back exactly, whatever the values, also into a store with jobs."""

from __future__ import annotations

import io
import math
import os
import threading
import tracemalloc
from collections.abc import Iterator
from datetime import UTC
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import quelmdb
from quelmdb import (
    DecodeError,
    DuplicateJobError,
    Job,
    JobExistsError,
    JobStore,
    JobView,
    MemoryStore,
    Status,
)
from quelmdb.maintenance import markedjson
from quelmdb.maintenance.dump import dump_cbor, dump_jsonl, load
from quelmdb.reader import Reader
from quelmdb.writes import OnConflict
from tests import inmemory, strategies
from tests.dumps import FORMS, VALUES, Dump, dumped, items, lines

tmp_path = inmemory.tmp_path


@pytest.fixture(params=["lmdb", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[JobStore]:
    made = quelmdb.open(tmp_path / "store") if request.param == "lmdb" else MemoryStore()
    made.initialize()
    with made:
        yield made
        assert made.check() == []


@pytest.fixture
def copy(tmp_path: Path) -> Iterator[JobStore]:
    with quelmdb.open(tmp_path / "copy") as made:
        yield made
        assert made.check() == []


def test_values_come_back_exactly_from_marked_json() -> None:
    for value in VALUES:
        back = markedjson.loads(markedjson.dumps(value))
        assert same(value, back), value


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.uuids()
    | st.dates()
    | st.datetimes(timezones=st.just(UTC))
    | st.decimals(allow_nan=False, allow_infinity=False).filter(lambda d: d != 0),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text() | st.sampled_from(["$bytes", "$map"]) | st.binary(), inner)
    ),
    max_leaves=12,
)


@settings(deadline=None)
@given(value=values)
def test_any_value_comes_back_exactly_from_marked_json(value: Any) -> None:
    text = markedjson.dumps(value)
    assert "\n" not in text
    assert same(value, markedjson.loads(text))
    assert same(value, markedjson.loads(markedjson.dumps(value, indent=2)))


@settings(deadline=None)
@given(value=values, result=values, error=st.none() | st.text())
def test_any_job_comes_back_exactly_from_either_form(
    value: Any, result: Any, error: str | None
) -> None:
    with MemoryStore() as store:
        store.initialize()
        store.insert(Job(None, value, status="completed", result=result, error=error))
        for dump in (dump_cbor, dump_jsonl):
            with MemoryStore() as copy:
                copy.initialize()
                assert load(copy, io.BytesIO(dumped(store, dump))) == (1, 0, 0)
                assert dumped(copy) == dumped(store)
                assert copy.check() == []


@settings(deadline=None)
@given(job=strategies.job)
def test_every_field_of_a_job_comes_back_exactly_from_either_form(job: Job) -> None:
    assume(job.status is not Status.STARTED)
    with MemoryStore() as store:
        store.initialize()
        (stored,) = store.restore([job.replace(id=1)])
        for dump in (dump_cbor, dump_jsonl):
            with MemoryStore() as copy:
                copy.initialize()
                load(copy, io.BytesIO(dumped(store, dump)))
                assert list(copy.all()) == [stored]


@pytest.mark.parametrize("dump", FORMS)
def test_a_loaded_store_has_the_same_jobs(dump: Dump, store: JobStore, copy: JobStore) -> None:
    store.insert_many(Job(f"w{n % 3}", value) for n, value in enumerate(VALUES))
    done, failed, released = store.claim(limit=3)
    store.complete(done, {"took": 0.5})
    store.fail(failed, "no\nluck")
    store.release(released)
    store.destroy(20)
    stream = dumped(store, dump)
    assert load(copy, io.BytesIO(stream)) == (len(VALUES) - 1, 0, 0)
    assert dumped(copy, dump) == stream
    assert dumped(copy) == dumped(store)
    assert [job.id for job in copy.all()] == [job.id for job in store.all()]


@pytest.mark.parametrize("dump", FORMS)
def test_falsy_arguments_and_results_are_not_lost(
    dump: Dump, store: JobStore, copy: JobStore
) -> None:
    falsy: list[Any] = [0, False, 0.0, "", [], {}]
    for value in falsy:
        store.insert(Job("w", value))
        (job,) = store.claim(limit=1)
        store.complete(job, value)
    load(copy, io.BytesIO(dumped(store, dump)))
    assert [repr((job.arguments, job.result)) for job in copy.all()] == [
        repr((job.arguments, job.result)) for job in store.all()
    ]


@pytest.mark.parametrize("dump", FORMS)
def test_a_started_job_loads_as_queued_with_its_attempt_and_claim(
    dump: Dump, store: JobStore, copy: JobStore
) -> None:
    store.insert(Job("w"))
    (held,) = store.claim("w")
    load(copy, io.BytesIO(dumped(store, dump)))
    loaded = copy.find(held)
    assert loaded is not None
    assert (loaded.status, loaded.attempt, loaded.owner) == (Status.QUEUED, 1, 0)
    (again,) = copy.claim("w")
    assert again.attempt == 2
    assert again.claim > held.claim
    with pytest.raises(quelmdb.StaleClaim):
        copy.complete(held)


@pytest.mark.parametrize("dump", FORMS)
def test_ids_given_after_a_load_are_above_the_loaded_ones(
    dump: Dump, store: JobStore, copy: JobStore
) -> None:
    store.insert(Job("w", id=1000))
    load(copy, io.BytesIO(dumped(store, dump)))
    assert (copy.insert(Job("w")).id or 0) > 1000


@pytest.mark.parametrize("dump", FORMS)
def test_an_empty_store_dumps_and_loads(dump: Dump, store: JobStore, copy: JobStore) -> None:
    assert load(copy, io.BytesIO(dumped(store, dump))) == (0, 0, 0)
    assert list(copy.all()) == []


def test_arguments_as_deep_as_a_store_takes_dump_and_load(store: JobStore, copy: JobStore) -> None:
    value: Any = "core"
    for _ in range(64):
        value = [value]
    store.insert(Job("deep", value))
    for dump in (dump_cbor, dump_jsonl):
        copy.destroy(1)
        load(copy, io.BytesIO(dumped(store, dump)))
        assert next(iter(copy.all())).arguments == value


def test_a_dump_of_a_store_is_one_point_in_time(tmp_path: Path) -> None:
    with quelmdb.open(tmp_path / "store") as opened:
        written: list[bytes] = []

        class Meddler:
            def write(self, data: bytes, /) -> None:
                written.append(data)
                if len(written) > 1:  # after the header, which comes first
                    opened.insert(Job("late"))

        opened.insert_many([Job("early")] * 50)
        assert dump_cbor(opened, Meddler()) == 50
        assert b"late" not in b"".join(written)
        assert opened.check() == []


def test_dump_and_load_tell_how_far_they_are(store: JobStore, copy: JobStore) -> None:
    store.insert_many([Job("w")] * 2500)
    told: list[int] = []
    stream = io.BytesIO()
    dump_jsonl(store, stream, told.append)
    assert told == [1000, 2000, 2500]
    told.clear()
    stream.seek(0)
    load(copy, stream, told.append)
    assert told == [1000, 2000, 2500]


def test_a_dump_loads_from_a_pipe(store: JobStore, copy: JobStore, tmp_path: Path) -> None:
    store.insert_many([Job("w", "x" * 100)] * 1200)
    data = dumped(store)
    end, start = os.pipe()

    def feed() -> None:
        with open(start, "wb") as pipe:
            pipe.write(data)

    feeder = threading.Thread(target=feed)
    feeder.start()
    with open(end, "rb", buffering=0) as pipe:
        assert load(copy, pipe) == (1200, 0, 0)
    feeder.join()
    assert dumped(copy) == data


def test_an_id_that_is_taken_is_named_and_what_stands_before_it_stays(copy: JobStore) -> None:
    copy.insert(Job("mine", id=3))
    jobs = [{"id": n, "status": "queued"} for n in (1, 2, 3, 4)]
    with pytest.raises(JobExistsError, match=r"^line 4: .*before it: 2\)$"):
        load(copy, io.BytesIO(lines(*jobs)))
    assert list(copy.all().ids()) == [1, 2, 3]


def taken(store: JobStore, *ids: int) -> None:
    store.insert_many(Job("mine", id=n) for n in ids)


THREE = [{"id": n, "status": "queued", "worker": "theirs"} for n in (1, 2, 3)]


@pytest.mark.parametrize(
    ("on_conflict", "result", "workers"),
    [
        ("skip", (2, 1, 0), ["theirs", "mine", "theirs"]),
        ("replace", (2, 0, 1), ["theirs", "theirs", "theirs"]),
    ],
)
def test_a_job_whose_id_is_taken_is_skipped_or_replaced_and_counted(
    store: JobStore, on_conflict: OnConflict, result: tuple[int, ...], workers: list[str]
) -> None:
    taken(store, 2)
    for stream in (lines(*THREE), items(*THREE)):
        store.destroy_many((1, 3))
        store.update(Job("mine", id=2))
        assert load(store, io.BytesIO(stream), on_conflict=on_conflict) == result
        assert [job.worker for job in store.all()] == workers


def test_an_id_that_is_twice_in_a_dump_is_taken_the_second_time(store: JobStore) -> None:
    twice = [{"id": 1, "status": "queued", "arguments": n} for n in (1, 2)]
    assert load(store, io.BytesIO(lines(*twice)), on_conflict="replace") == (1, 0, 1)
    assert [job.arguments for job in store.all()] == [2]
    assert load(store, io.BytesIO(lines(*twice)), on_conflict="skip") == (0, 2, 0)
    store.destroy(1)
    assert load(store, io.BytesIO(lines(*twice)), on_conflict="skip") == (1, 1, 0)
    assert [job.arguments for job in store.all()] == [1]


def test_a_load_that_broke_off_is_done_again_with_skip(store: JobStore, copy: JobStore) -> None:
    store.insert_many([Job("w")] * 2500)
    stream = dumped(store)
    with pytest.raises(DecodeError):
        load(copy, io.BytesIO(stream[: len(stream) // 2]))
    half = len(copy.all())
    assert 0 < half < 2500
    assert load(copy, io.BytesIO(stream), on_conflict="skip") == (2500 - half, half, 0)
    assert dumped(copy) == stream


def test_what_cannot_be_loaded_is_named_with_all_that_was_done_before(copy: JobStore) -> None:
    taken(copy, 1)
    copy.insert(Job("mine", id=9, unique_key="k"))
    jobs = [*THREE, {"id": 4, "status": "queued", "unique_key": "k"}]
    for on_conflict, done in (("skip", "2, skipped: 1"), ("replace", "0, replaced: 3")):
        with pytest.raises(DuplicateJobError, match=rf"^line 5: .*before it: {done}\)$"):
            load(copy, io.BytesIO(lines(*jobs)), on_conflict=on_conflict)  # type: ignore[arg-type]
    assert list(copy.all().ids()) == [1, 2, 3, 9]


def test_who_holds_a_job_that_is_replaced_has_lost_it(store: JobStore) -> None:
    store.insert(Job("w"))
    stream = dumped(store)
    (held,) = store.claim("w")
    assert load(store, io.BytesIO(stream), on_conflict="replace") == (0, 0, 1)
    with pytest.raises(quelmdb.StaleClaim):
        store.complete(held)


@pytest.mark.parametrize("dump", FORMS)
def test_a_dump_of_a_selection_has_those_jobs_alone_and_loads(
    dump: Dump, store: JobStore, copy: JobStore
) -> None:
    store.insert_many(Job(f"w{n % 2}", n) for n in range(10))
    store.cancel_many(range(1, 6))

    def select(reader: Reader) -> JobView:
        return reader.jobs("cancelled", worker="w0", after=1, limit=5)

    stream = io.BytesIO()
    assert dump(store, stream, select=select) == 2
    stream.seek(0)
    assert load(copy, stream) == (2, 0, 0)
    assert list(copy.all().ids()) == [3, 5]


@pytest.mark.parametrize("on_conflict", ["skip", "replace"])
def test_a_load_needs_no_more_memory_for_more_jobs(copy: JobStore, on_conflict: OnConflict) -> None:
    def peak(count: int) -> int:
        copy.destroy_many(copy.all().ids())
        tracemalloc.start()
        load(copy, Endless(count), on_conflict=on_conflict)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(2_000)
    assert peak(8_000) < 1.2 * peak(2_000)


class Endless(io.RawIOBase):
    """A dump of so many jobs, a line at a time."""

    def __init__(self, count: int) -> None:
        self._lines = self._made(count)
        self._rest = b""

    def _made(self, count: int) -> Iterator[bytes]:
        yield lines(ended=False)
        for n in range(1, count + 1):
            yield b'{"id":%d,"status":"queued","arguments":"%s"}\n' % (n, b"x" * 500)
        yield b'{"quelmdb":"end","jobs":%d}\n' % count

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        piece = self._rest or next(self._lines, b"")
        size = min(len(piece), len(buffer))
        buffer[:size], self._rest = piece[:size], piece[size:]
        return size


def same(one: Any, other: Any) -> bool:
    """Equal and of the same type, all the way down; NaN equals itself, 0.0 is not -0.0."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float):
        if math.isnan(one):
            return math.isnan(other)
        return (one, math.copysign(1, one)) == (other, math.copysign(1, other))
    if isinstance(one, Decimal):
        return bool(one.as_tuple() == other.as_tuple())
    return bool(one == other)
