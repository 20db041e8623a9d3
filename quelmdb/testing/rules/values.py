"""What arguments, results and errors may be, and that nobody can change what is stored."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from quelmdb.codec import DEFAULT_LIMIT
from quelmdb.errors import EncodeError, TooLargeError
from quelmdb.job import FIELDS, Job
from quelmdb.persistence import Persistence
from quelmdb.testing.harness import PersistenceHarness
from quelmdb.testing.rules.helpers import found, unchanged
from quelmdb.values import MAX_ERROR


def _nested(depth: int) -> Any:
    value: Any = "bottom"
    for _ in range(depth):
        value = [value]
    return value


def _cyclic() -> list[Any]:
    value: list[Any] = [1]
    value.append(value)
    return value


VALUES: dict[str, Any] = {
    "none": None,
    "true": True,
    "false": False,
    "zero": 0,
    "negative": -1,
    "big": 2**64,
    "huge": -(2**200),
    "float": 1.5,
    "float of a whole number": 2.0,
    "infinity": math.inf,
    "empty text": "",
    "text": "grüße, мир, \U0001f600",
    "text with a nul": "a\0b",
    "no bytes": b"",
    "bytes": bytes(range(256)),
    "empty list": [],
    "list": [1, "two", 3.0, None, True, [4, [5]]],
    "empty map": {},
    "map": {"a": {"b": [1, {"c": None}]}, "": 0, "ü": 1},
    "map with bytes for keys": {b"\xff": 1, "text": 2},
    "time": datetime(2024, 2, 29, 1, 2, 3, 456_789, tzinfo=UTC),
    "time of a zone": datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=5, minutes=30))),
    "date": date(1999, 12, 31),
    "uuid": UUID("12345678-1234-5678-1234-567812345678"),
    "decimal": Decimal("-12.50"),
    "small decimal": Decimal("1E-20"),
    "deep": _nested(60),
}

# Around every size at which a store may keep a value elsewhere or in pieces.
SIZES = [0, 1, 23, 24, 300, 383, 384, 511, 512, 1000, 1021, 1024, 1030, 1999, 2000, 2001]
SIZES += [4000, 4096, 10_000, 65_536, 1_000_000]

REFUSED: dict[str, tuple[Any, str]] = {
    "set": ({"users": [1, {2}]}, "$.users[1]"),
    "object": ([object()], "$[0]"),
    "complex": ({"a": {"b": 1j}}, "$.a.b"),
    "function": (len, "$"),
    "time without zone": ({"when": datetime(2024, 1, 1)}, "$.when"),
    "surrogate": (["fine", "\ud800"], "$[1]"),
    "decimal that is no number": ([Decimal("NaN")], "$[0]"),
}


def typed(value: Any) -> Any:
    """Something that is equal only where values and all their types are."""
    if isinstance(value, dict):
        return {key: typed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [typed(item) for item in value]
    if isinstance(value, Decimal):
        return value.as_tuple()
    return type(value), value


class ValueRules(PersistenceHarness):
    @pytest.mark.parametrize("value", VALUES.values(), ids=VALUES.keys())
    def test_arguments_and_results_come_back_as_they_were(
        self, store: Persistence, value: Any
    ) -> None:
        job = store.insert(Job("a", value, result=value))
        for read in (job, found(store, job), *store.all()):
            assert typed(read.arguments) == typed(value)
            assert typed(read.result) == typed(value)
        updated = store.update(Job("a", [value], id=job.id, result={"r": value}))
        assert typed(updated.arguments) == typed([value])
        assert typed(found(store, job).result) == typed({"r": value})

    def test_a_float_that_is_no_number_comes_back(self, store: Persistence) -> None:
        assert math.isnan(found(store, store.insert(Job("a", math.nan))).arguments)

    def test_tuples_come_back_as_lists(self, store: Persistence) -> None:
        job = store.insert(Job("a", (1, (2, 3)), result={"t": ()}))
        assert typed(job.arguments) == typed([1, [2, 3]])
        assert typed(found(store, job).result) == typed({"t": []})

    @pytest.mark.parametrize("value", [bytearray(b"abc"), memoryview(b"abc")])
    def test_buffers_come_back_as_bytes(self, store: Persistence, value: object) -> None:
        assert typed(found(store, store.insert(Job("a", [value]))).arguments) == typed([b"abc"])

    @pytest.mark.parametrize("size", SIZES)
    def test_arguments_results_and_errors_of_every_size_come_back(
        self, store: Persistence, size: int
    ) -> None:
        text = "é" * (size // 2) + "x" * (size % 2)
        before = store.insert(Job("a", "before"))
        error = text[:MAX_ERROR]
        job = store.insert(Job("a", text, result=[text], error=error))
        after = store.insert(Job("a", "after"))
        assert (job.arguments, job.result, job.error) == (text, [text], error)
        assert list(store.all()) == [before, job, after]

    @pytest.mark.parametrize("size", SIZES)
    def test_a_value_of_any_size_can_replace_a_larger_and_a_smaller_one(
        self, store: Persistence, size: int
    ) -> None:
        job = store.insert(Job("a", b"x" * 3000, result=b"y" * 6000, error="z" * 5000))
        for length in (size, 7000, size, 0):
            shorter = min(length, MAX_ERROR)
            updated = store.update(
                Job("a", b"1" * length, id=job.id, result=b"2" * length, error="3" * shorter)
            )
            assert updated.arguments == b"1" * length
            assert updated.result == b"2" * length
            assert updated.error == "3" * shorter
            assert found(store, job) == updated

    def test_big_values_of_neighbours_do_not_mix(self, store: Persistence) -> None:
        jobs = [store.insert(Job("a", bytes([n]) * 5000, result=bytes([n]))) for n in range(5)]
        store.destroy(jobs[1])
        store.update(jobs[2].replace(arguments="small"))
        assert found(store, jobs[3]).arguments == b"\x03" * 5000
        assert [job.result for job in store.all()] == [b"\x00", b"\x02", b"\x03", b"\x04"]

    def test_an_id_used_again_has_nothing_of_the_destroyed_job(self, store: Persistence) -> None:
        job = store.insert(Job("a", b"x" * 9000, result=b"y" * 9000, error="z" * 9000))
        store.destroy(job)
        again = store.insert(Job("a", b"1" * 3000, id=job.id))
        assert (again.arguments, again.result, again.error) == (b"1" * 3000, None, None)
        assert found(store, job) == again

    @pytest.mark.parametrize(("value", "path"), REFUSED.values(), ids=REFUSED.keys())
    def test_what_cannot_be_carried_is_refused_with_its_place(
        self, store: Persistence, value: Any, path: str
    ) -> None:
        stored = store.insert(Job("a"))
        for job in (Job("a", value), Job("a", result=value)):
            with unchanged(store), pytest.raises(EncodeError) as caught:
                store.insert(job)
            assert caught.value.path == path
            with unchanged(store), pytest.raises(EncodeError):
                store.update(job.replace(id=stored.id))

    @pytest.mark.parametrize(
        "value", [{1: 2}, {None: 1}, {(1, 2): 3}, {"\udfff": 1}, _cyclic(), _nested(100)]
    )
    def test_keys_cycles_and_depth_are_refused(self, store: Persistence, value: Any) -> None:
        with unchanged(store), pytest.raises(EncodeError):
            store.insert(Job("a", value))
        with unchanged(store), pytest.raises(EncodeError):
            store.update(Job("a", result=value))

    def test_an_error_text_is_never_refused(self, store: Persistence) -> None:
        odd = store.insert(Job("a", error="what \ud800 is this"))
        assert found(store, odd).error == "what \\ud800 is this"
        long = store.insert(Job("a", error="begin" + "x" * DEFAULT_LIMIT + "end"))
        text = found(store, long).error
        assert text is not None
        assert len(text) <= MAX_ERROR
        assert text.startswith("begin")
        assert text.endswith("end")

    def test_what_is_too_large_is_refused(self, store: Persistence) -> None:
        stored = store.insert(Job("a"))
        value = bytes(DEFAULT_LIMIT)
        for job in (Job("a", value), Job("a", result=value)):
            with unchanged(store), pytest.raises(TooLargeError) as caught:
                store.insert(job)
            assert caught.value.expected == DEFAULT_LIMIT
            with unchanged(store), pytest.raises(TooLargeError):
                store.update(job.replace(id=stored.id))

    def test_a_change_of_the_given_arguments_does_not_reach_the_store(
        self, store: Persistence
    ) -> None:
        arguments = {"list": [1]}
        job = store.insert(Job("a", arguments, result=arguments))
        arguments["list"].append(2)
        assert found(store, job).arguments == {"list": [1]}
        assert found(store, job).result == {"list": [1]}
        assert job.arguments == {"list": [1]}

    def test_a_change_of_read_arguments_does_not_reach_the_store(self, store: Persistence) -> None:
        job = store.insert(Job("a", {"list": [1]}, result=[1]))
        for read in (job, found(store, job), *store.all()):
            read.arguments["list"].append(2)
            read.result.append(2)
        assert found(store, job).arguments == {"list": [1]}
        assert found(store, job).result == [1]

    @pytest.mark.parametrize("field", FIELDS)
    def test_a_job_that_was_read_cannot_be_changed(self, store: Persistence, field: str) -> None:
        for job in self._as_read(store):
            with pytest.raises(AttributeError):
                setattr(job, field, None)

    def test_jobs_that_were_read_pickle_and_copy(self, store: Persistence) -> None:
        for job in self._as_read(store):
            assert pickle.loads(pickle.dumps(job)) == job
            assert copy.copy(job) == job
            assert copy.deepcopy(job) == job

    def test_jobs_that_were_read_compare_by_value(self, store: Persistence) -> None:
        one, *others = self._as_read(store)
        for other in others:
            assert other == one
            assert hash(other) == hash(one)
            assert other != other.replace(arguments="other")
            assert Job(**other.as_dict()) == other

    def test_a_job_that_was_read_can_be_looked_at_after_its_store_changed(
        self, store: Persistence
    ) -> None:
        jobs = list(self._as_read(store))
        store.update(Job("b", b"x" * 5000, id=jobs[0].id))
        store.destroy(jobs[0])
        for number in range(50):
            store.insert(Job("b", bytes([number]) * 3000))
        for job in jobs:
            assert (job.arguments, job.result, job.error) == ({"n": [1]}, "r" * 3000, "e")

    @staticmethod
    def _as_read(store: Persistence) -> Iterator[Job]:
        job = store.insert(Job("a", {"n": [1]}, status="failed", result="r" * 3000, error="e"))
        yield job
        yield found(store, job)
        yield from store.failed("a")
