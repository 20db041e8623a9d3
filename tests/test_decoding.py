"""Decoding of many values at once, and of what jobs of a listing hold: nobody gets another's
value, whatever the bytes are."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path

import pytest

import quelmdb
from quelmdb import DecodeError, Job, Status, codec
from quelmdb.codec import Codec, decode, decode_all
from tests.damage import raw

pytest_plugins = ["tests.fixtures"]

_JOBS = 200
_encode = Codec().encode
_MARK = codec._MARK_ITEM


def _one_by_one(items: Iterable[bytes]) -> list[object] | None:
    try:
        return [decode(item) for item in items]
    except DecodeError:
        return None


VALUES = [
    None,
    {"user": 7, "template": "welcome"},
    [1, [2, {"a": [3.5, b"\xf7", "\x1equelmd"]}]],
    quelmdb.values.time_of(0),
    Decimal("1.25"),
    2**80,
    "x" * 1000,
    {"deep": codec.MAX_DEPTH},
]


def test_values_decoded_at_once_are_those_decoded_one_by_one() -> None:
    items = [_encode(value) for value in VALUES]
    assert decode_all(items) == VALUES
    assert decode_all([]) == []
    assert decode_all(items * 50) == VALUES * 50


def test_values_decoded_at_once_share_nothing() -> None:
    values = decode_all([_encode([[]])] * 2)
    assert values is not None
    first, second = values
    first[0].append(1)
    assert second == [[]]


@pytest.mark.parametrize("depth", [codec.MAX_DEPTH, codec.MAX_DEPTH + 1])
def test_the_limit_of_depth_is_the_same_at_once(depth: int) -> None:
    item = b"\x81" * depth + b"\x01"
    values = decode_all([item, item])
    assert (values is None) == (_one_by_one([item]) is None) == (depth > codec.MAX_DEPTH)


# What swallows the bytes behind it, or leaves its own to what stands before.
_FRAGMENTS = [
    *(b"\x01", b"\x82\x01", b"\x02\x03", b"\x83", b"\xa1", b"\xa1\x61a", b"\x41", b"\x4a", b"\x69"),
    *(b"\x78", b"\x79\x00", b"\x5f", b"\x9f", b"\xff", b"\xf7", b"\xf8", b"\xe0", b"\x1b", b"\xc0"),
    *(b"\xc2", b"\xc4\x82", b"\xd9\x01\x00", b"\xd8\x1c", b"", b"\x9a\x00\x00\x00\x04"),
    *(_MARK, _MARK[:1], _MARK[:4], _MARK[4:], _MARK[1:], b"\x82" + _MARK, _MARK + b"\x01"),
]


def test_a_damaged_value_never_changes_its_neighbours(long: bool) -> None:
    dice = random.Random(7)
    decoded = 0
    for _ in range(200_000 if long else 20_000):
        items = [
            b"".join(dice.choices(_FRAGMENTS, k=dice.choice((0, 1, 1, 2))))
            for _ in range(dice.randint(1, 4))
        ]
        values = decode_all(items)
        if values is not None:
            decoded += 1
            assert values == _one_by_one(items), items
    assert decoded > 100


def test_a_value_that_has_the_mark_is_decoded_all_the_same(path: Path) -> None:
    with quelmdb.open(path) as store:
        store.insert_many(Job("a", {"n": n, "text": codec._MARK}) for n in range(_JOBS))
        assert [job.arguments["n"] for job in store.all()] == list(range(_JOBS))
        assert {job.arguments["text"] for job in store.all()} == {codec._MARK}


@pytest.mark.parametrize("hostile", [b"\x82\x01", b"\x01\x02", b"\xf7", _MARK + b"\x01", b""])
def test_beside_a_damaged_value_all_others_of_a_listing_are_decoded(
    tmp_path: Path, hostile: bytes
) -> None:
    path = tmp_path / "jobs.qdb"
    with quelmdb.open(path) as store:
        store.insert_many(Job("a", {"n": n}) for n in range(1, _JOBS + 1))
    with raw(path) as content:
        content.change_arguments(70, hostile)
    with quelmdb.open(path) as store:
        for job in store.all():
            if job.id == 70:
                with pytest.raises(DecodeError):
                    _ = job.arguments
            else:
                assert job.arguments == {"n": job.id}


def test_the_content_of_a_listing_is_the_same_in_any_order_of_looking(path: Path) -> None:
    with quelmdb.open(path) as store:
        store.insert_many(Job("a", {"n": n % 3}, status="started") for n in range(_JOBS))
        store.update_many(
            Job("a", {"n": 0}, id=n, status="failed", result=[n], error=str(n))
            for n in range(5, _JOBS, 7)
        )
        store.update(Job("a", b"x" * 5000, id=90))
        expected = [store.find(n) for n in range(1, _JOBS + 1)]
        for seed in range(3):
            jobs = list(store.all())
            for job in random.Random(seed).sample(jobs, 150):
                _ = job.arguments
            assert jobs == expected


def test_equal_arguments_of_a_listing_are_not_shared(path: Path) -> None:
    with quelmdb.open(path) as store:
        store.insert_many(Job("a", {"n": []}) for _ in range(_JOBS))
        for job in store.all():
            job.arguments["n"].append(job.id)
            assert job.arguments == {"n": [job.id]}


def test_a_listing_whose_arguments_nobody_looks_at_decodes_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("something is decoded")

    with quelmdb.open(path) as store:
        store.insert_many(Job("a", {"n": n}, status=Status.FAILED) for n in range(_JOBS))
        monkeypatch.setattr("quelmdb.records.decode", refuse)
        monkeypatch.setattr("quelmdb.records.decode_all", refuse)
        for view in (store.all(), store.failed("a"), store.failed(reverse=True)):
            shown = [(job.id, job.worker, job.status, job.created_at) for job in view]
            assert len(shown) == _JOBS


def test_threads_that_look_at_the_same_jobs_all_see_their_content(path: Path) -> None:
    wrong: list[object] = []

    def look(jobs: list[Job]) -> None:
        try:
            wrong.extend(job for job in jobs if job.arguments != {"n": job.id})
        except BaseException as error:
            wrong.append(error)

    with quelmdb.open(path) as store:
        store.insert_many(Job("a", {"n": n}) for n in range(1, _JOBS + 1))
        for _ in range(30):
            jobs = list(store.all())
            threads = [threading.Thread(target=look, args=(jobs,)) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    assert not wrong


def test_a_value_may_be_decoded_within_the_decoding_of_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As by a signal handler, which Python runs wherever it gets to."""
    inner = []

    def interrupted(value: object) -> Decimal:
        inner.append(decode(_encode({"inner": True})))
        return Decimal(value)  # type: ignore[arg-type]

    items = [_encode({"outer": Decimal("1.5")}), _encode([1, 2])]
    monkeypatch.setattr(codec, "Decimal", interrupted)
    assert decode(items[0]) == {"outer": Decimal("1.5")}
    assert decode_all(items) == [{"outer": Decimal("1.5")}, [1, 2]]
    assert inner == [{"inner": True}] * 2


def test_decoders_that_wait_for_use_hold_no_big_values() -> None:
    for size in (10, 2**20, 10):
        assert decode(_encode(b"x" * size)) == b"x" * size
    assert codec._spare
    assert all(len(source.getvalue()) <= codec._KEPT for source, _ in codec._spare)
