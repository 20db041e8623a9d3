"""Dumps that are damaged, cut, or none: what is wrong is named, and no other error is raised."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import quelmdb
from quelmdb import (
    DecodeError,
    Job,
    JobStore,
    MemoryStore,
    QuelmdbError,
    TooLargeError,
    UnsupportedFormatError,
)
from quelmdb.codec import SEQUENCE_START, encode_map
from quelmdb.maintenance.dump import dump_cbor, dump_jsonl, load
from tests.dumps import FORMS, VALUES, Dump, dumped, items, lines


@pytest.fixture
def store() -> Iterator[JobStore]:
    with MemoryStore() as made:
        made.initialize()
        yield made


@pytest.fixture
def copy(tmp_path: Path) -> Iterator[JobStore]:
    with quelmdb.open(tmp_path / "copy") as made:
        yield made
        assert made.check() == []


def test_a_job_that_this_store_does_not_carry_is_named(tmp_path: Path) -> None:
    jobs = [{"id": n, "status": "queued", "arguments": "x" * n} for n in (1, 2, 100, 3)]
    with quelmdb.open(tmp_path / "small", argument_limit=50) as store:
        with pytest.raises(TooLargeError, match=r"^item 4: .*before it: 2\)$"):
            load(store, io.BytesIO(items(*jobs)))
        assert list(store.all().ids()) == [1, 2]
        assert store.check() == []


@pytest.mark.parametrize("dump", FORMS)
def test_a_dump_that_was_cut_anywhere_is_an_error(
    dump: Dump, store: JobStore, tmp_path: Path
) -> None:
    store.insert_many(Job("w", n) for n in range(3))
    stream = dumped(store, dump)
    for length in range(len(stream) - (dump is dump_jsonl)):  # the last line may lack its end
        with MemoryStore() as copy, pytest.raises(DecodeError):
            load(copy, io.BytesIO(stream[:length]))


def test_a_dump_that_lacks_a_job_in_the_middle_is_an_error(copy: JobStore) -> None:
    header, one, _, *others = lines(*({"id": n, "status": "queued"} for n in (1, 2, 3))).splitlines(
        keepends=True
    )
    with pytest.raises(DecodeError, match=r"^line 4: the dump has 2 jobs, and its end says 3"):
        load(copy, io.BytesIO(b"".join([header, one, *others])))
    assert list(copy.all().ids()) == [1, 3]


@pytest.mark.parametrize("dump", FORMS)
def test_what_stands_behind_the_end_of_a_dump_is_not_passed_over(
    dump: Dump, store: JobStore, copy: JobStore
) -> None:
    store.insert_many([Job("w")] * 3)
    data = dumped(store, dump)
    with pytest.raises(DecodeError, match=r"behind the end .* before it: 3\)$"):
        load(copy, io.BytesIO(data + data))
    assert len(copy.all()) == 3


def test_a_dump_of_a_newer_version_is_refused(copy: JobStore) -> None:
    for stream in (
        b'{"quelmdb":"dump","version":2}\n',
        SEQUENCE_START + encode_map({"quelmdb": "dump", "version": 2}),
    ):
        with pytest.raises(UnsupportedFormatError, match="version 2"):
            load(copy, io.BytesIO(stream))


GOOD = {"id": 1, "status": "queued"}

NO_DUMPS = {
    "empty": b"",
    "zeros": b"\0" * 10_000,
    "text": b"hello\n",
    "pickle": b"\x80\x04]\x94.",
    "json without header": b'{"id":1}\n',
    "json array": b"[]\n",
    "cbor without header": SEQUENCE_START + encode_map({"id": 1}),
    "only the tag": SEQUENCE_START,
    "another tag": b"\xd9\xd9\xf8\xa0",
    "half a tag": b"\xd9\xd9",
}


@pytest.mark.parametrize("stream", NO_DUMPS.values(), ids=NO_DUMPS.keys())
def test_what_is_no_dump_is_refused(stream: bytes, copy: JobStore) -> None:
    with pytest.raises(DecodeError):
        load(copy, io.BytesIO(stream))
    assert list(copy.all()) == []


BAD_LINES = {
    "half a line": b'{"id":2,"sta',
    "no JSON": b"nonsense\n",
    "an empty line": b"\n",
    "bytes that are no text": b'{"id":2,"status":"queued","worker":"\xff"}\n',
    "no map": b"[2]\n",
    "no id": b'{"status":"queued"}\n',
    "no status": b'{"id":2}\n',
    "an unknown field": b'{"id":2,"status":"queued","colour":1}\n',
    "an unknown status": b'{"id":2,"status":"lost"}\n',
    "a status that is no text": b'{"id":2,"status":[]}\n',
    "an id of text": b'{"id":"2","status":"queued"}\n',
    "an id of 0": b'{"id":0,"status":"queued"}\n',
    "a fractional id": b'{"id":2.0,"status":"queued"}\n',
    "a bad time": b'{"id":2,"status":"queued","created_at":"yesterday"}\n',
    "a time without zone": b'{"id":2,"status":"queued","created_at":"2024-01-01T00:00:00"}\n',
    "a time that is a number": b'{"id":2,"status":"queued","created_at":5}\n',
    "a negative attempt": b'{"id":2,"status":"queued","attempt":-1}\n',
    "an error that is no text": b'{"id":2,"status":"failed","error":{}}\n',
    "an empty worker": b'{"id":2,"status":"queued","worker":""}\n',
    "NaN": b'{"id":2,"status":"queued","arguments":NaN}\n',
    "an infinite number": b'{"id":2,"status":"queued","arguments":1e999}\n',
    "an endless integer": b'{"id":2,"status":"queued","arguments":' + b"9" * 5000 + b"}\n",
    "the same key twice": b'{"id":2,"id":2,"status":"queued"}\n',
    "an unknown mark": b'{"id":2,"status":"queued","arguments":{"$eval":"1"}}\n',
    "a mark beside a key": b'{"id":2,"status":"queued","arguments":{"$uuid":"x","a":1}}\n',
    "no base64": b'{"id":2,"status":"queued","arguments":{"$bytes":"?"}}\n',
    "no number": b'{"id":2,"status":"queued","arguments":{"$decimal":"sNaN"}}\n',
    "no float": b'{"id":2,"status":"queued","arguments":{"$float":"1.5"}}\n',
    "no pairs": b'{"id":2,"status":"queued","arguments":{"$map":[1]}}\n',
    "a list as key": b'{"id":2,"status":"queued","arguments":{"$map":[[[],1]]}}\n',
    "a key twice in pairs": b'{"id":2,"status":"queued","arguments":{"$map":[["a",1],["a",1]]}}\n',
    "a date of another type": b'{"id":2,"status":"queued","arguments":{"$date":5}}\n',
    "a bottomless nest": b'{"id":2,"status":"queued","arguments":' + b"[" * 100_000,
}


@pytest.mark.parametrize("line", BAD_LINES.values(), ids=BAD_LINES.keys())
def test_a_bad_line_is_named_and_what_stands_before_it_is_loaded(
    line: bytes, copy: JobStore
) -> None:
    with pytest.raises(DecodeError, match=r"^line 3: .*before it: 1\)$") as caught:
        load(
            copy, io.BytesIO(lines(GOOD, ended=False) + line + lines({"id": 9, "status": "queued"}))
        )
    assert "\n" not in str(caught.value)
    assert list(copy.all().ids()) == [1]


BAD_ITEMS = {
    "half an item": encode_map({"id": 2, "status": "queued"})[:-3],
    "a list": b"\x81\x01",
    "a number": b"\x05",
    "an endless string": bytes.fromhex("5b7fffffffffffffff") + b"x",
    "an endless array": bytes.fromhex("9b7fffffffffffffff"),
    "an endless map": bytes.fromhex("bb7fffffffffffffff"),
    "indefinite length": bytes.fromhex("bf6161019f01ffff"),
    "a bottomless nest": b"\x81" * 100_000,
    "a shared reference": bytes.fromhex("a1626964d81c82d81d0001"),
    "a regular expression": bytes.fromhex("a1626964d823612a"),
    "an unknown tag": bytes.fromhex("a1626964d9ffff01"),
    "a break": b"\xff",
    "undefined": bytes.fromhex("a1626964f7"),
    "integer keys": bytes.fromhex("a10101"),
    "the same key twice": bytes.fromhex("a26269640162696402"),
    "bytes that are no text": bytes.fromhex("a162696461ff"),
    "a lone surrogate": bytes.fromhex("a162696463eda080"),
    "an unknown field": encode_map({"id": 2, "status": "queued", "colour": 1}),
    "a key of bytes": bytes.fromhex("a142696402"),
    "a time that is a number": encode_map({"id": 2, "status": "queued", "created_at": 5}),
}


@pytest.mark.parametrize("item", BAD_ITEMS.values(), ids=BAD_ITEMS.keys())
def test_a_bad_item_is_named_and_what_stands_before_it_is_loaded(
    item: bytes, copy: JobStore
) -> None:
    with pytest.raises(DecodeError, match=r"^item 3: .*before it: 1\)$"):
        load(copy, io.BytesIO(items(GOOD, ended=False) + item))
    assert list(copy.all().ids()) == [1]


@settings(deadline=None)
@given(
    data=st.binary(max_size=60),
    start=st.sampled_from([b"", SEQUENCE_START, items(ended=False), lines(ended=False)]),
)
def test_no_bytes_raise_anything_but_our_errors(data: bytes, start: bytes) -> None:
    with MemoryStore() as store:
        store.initialize()
        with contextlib.suppress(QuelmdbError):
            load(store, io.BytesIO(start + data))
        assert store.check() == []


@settings(deadline=None)
@given(data=st.data())
def test_a_flipped_or_cut_dump_raises_our_errors_or_loads(data: st.DataObject) -> None:
    with MemoryStore() as store:
        store.initialize()
        store.insert_many(Job("w", value) for value in VALUES if value != VALUES[11])
        dump = data.draw(st.sampled_from([dump_cbor, dump_jsonl]))
        stream = bytearray(dumped(store, dump))
    at = data.draw(st.integers(0, len(stream) - 1))
    if data.draw(st.booleans()):
        del stream[at:]
    else:
        stream[at] ^= 1 << data.draw(st.integers(0, 7))
    with MemoryStore() as copy:
        with contextlib.suppress(QuelmdbError):
            load(copy, io.BytesIO(stream))
        assert copy.check() == []


def test_numbers_that_python_does_not_tell_in_digits_are_an_error_like_any_other(
    copy: JobStore,
) -> None:
    huge = 10**5000
    with pytest.raises(UnsupportedFormatError, match="int of"):
        load(copy, io.BytesIO(SEQUENCE_START + encode_map({"quelmdb": "dump", "version": huge})))
    header = encode_map({"quelmdb": "dump", "version": 1})
    end = encode_map({"quelmdb": "end", "jobs": huge})
    with pytest.raises(DecodeError, match="int of"):
        load(copy, io.BytesIO(SEQUENCE_START + header + end))
