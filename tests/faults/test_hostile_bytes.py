"""Bytes that are hostile: they are a value of those that are written, or an error of the
library, and cost no more than their size allows."""

from __future__ import annotations

import io
import resource
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Final

import hypothesis.strategies as st
from hypothesis import HealthCheck, given, seed, settings

from quelmdb import DecodeError, layout, recordlayout
from quelmdb.codec import decode, decode_all, decode_sequence
from quelmdb.extras import (
    claimed_at,
    decoded_failures,
    decoded_options,
    decoded_outcome,
    glance,
    unpacked,
    with_outcome,
)
from tests.children import Child, in_child
from tests.faults.figures import Tell
from tests.faults.hostile import BOMBS, ENCODED, encode, items, mutated
from tests.faults.seeds import new_seed, seeded

pytest_plugins = ["tests.fixtures"]

# What a byte may become: an empty map of one byte is an object of 64, in a list of 8 more.
_BYTES_A_BYTE: Final = 100
_ROOM: Final = 2**25  # for all else
_CPU_SECONDS: Final = 20  # for what takes one at most

_SHORT: Final = settings(
    max_examples=100, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)
_LONG: Final = settings(_SHORT, max_examples=70_000)


def _examples(test: Callable[..., None], long: bool) -> int:
    """Runs a test of Hypothesis with new examples, and returns how many these were."""
    number = new_seed()
    chosen = _LONG if long else _SHORT
    seed(number)(chosen(test))()
    return chosen.max_examples


# --- Values -------------------------------------------------------------------


def _is_value_or_error(data: bytes) -> bool:
    """Whether it is a value: then it can be written again, and read again as the same."""
    try:
        value = decode(data)
    except DecodeError:
        return False
    written = encode(value)
    again = decode(written)
    assert encode(again) == written, data  # by which also two NaNs are equal
    assert type(again) is type(value), data
    return True


def test_what_looks_like_cbor_is_an_error_or_a_value_that_can_be_written_again(
    long: bool, figure: Tell
) -> None:
    values = 0

    @given(items)
    def test(data: bytes) -> None:
        nonlocal values
        values += _is_value_or_error(data)

    count = _examples(test, long)
    figure(f"{count:,} items by Hypothesis: {values:,} values, all others errors, 0 else")


def test_mutations_of_values_are_an_error_or_a_value_that_can_be_written_again(
    long: bool, figure: Tell
) -> None:
    rng = seeded()
    count = 1_000_000 if long else 10_000
    values = sum(_is_value_or_error(mutated(rng, rng.choice(ENCODED))) for _ in range(count))
    assert values
    figure(f"{count:,} mutations: {values:,} values, {count - values:,} errors, 0 else")


def test_mutations_decoded_at_once_are_what_each_of_them_is(long: bool, figure: Tell) -> None:
    rng = seeded()
    runs, decoded = 100_000 if long else 2_000, 0
    for _ in range(runs):
        some = [rng.choice(ENCODED) for _ in range(rng.randrange(1, 5))]
        some[rng.randrange(len(some))] = mutated(rng, rng.choice(ENCODED))
        values = decode_all(some)
        if values is not None:
            decoded += 1
            assert list(map(encode, values)) == [encode(decode(data)) for data in some], some
    assert decoded
    figure(f"{runs:,} runs of values with a mutated one: {decoded:,} decoded at once, 0 wrong")


def test_extras_are_an_error_or_what_they_say(long: bool, figure: Tell) -> None:
    rng = seeded()
    count, whole = 200_000 if long else 4_000, 0
    for _ in range(count):
        parts = {
            name: mutated(rng, data) if rng.randrange(3) else data
            for name, data in _PARTS.items()
            if rng.randrange(2)
        }
        data = encode(parts)
        if rng.randrange(4) == 0:
            data = mutated(rng, data)
        whole += _reads_extras(data)
    assert whole
    figure(f"{count:,} maps of extras: {whole:,} whole, all others errors, 0 else")


_PARTS: Final = {
    "r": encode({"sent": True}),
    "e": encode("why"),
    "f": encode([[1, 1_700_000_000_000_000, 1_700_000_000_000_001, "why", False]] * 2),
    "o": encode([1_700_000_000_000_000, 5, "key", 3, [1, 2, "half"]]),
    "c": encode([7, 1_700_000_000_000_000]),
}


def _reads_extras(data: bytes) -> bool:
    try:
        extras = unpacked(data)
    except DecodeError:
        return False
    claimed_at(extras, 7)
    whole = True
    for read in (
        lambda: decoded_outcome(extras),
        lambda: decoded_options(extras),
        lambda: decoded_failures(extras),
        lambda: glance(data),
        lambda: with_outcome(data, b""),
    ):
        try:
            read()
        except DecodeError:
            whole = False
    return whole


# --- What stands in the databases ---------------------------------------------

_UNPACK: Final[tuple[Callable[[bytes], object], ...]] = (
    *(layout.unpack_number, layout.unpack_numbers, layout.unpack_owner, layout.checked_uuid),
    *(
        recordlayout.split_payload_key,
        layout.split_due_key,
        layout.rank_and_id,
        layout.paused_worker,
    ),
    lambda data: recordlayout.unpack_record(bytes(8), data),
    lambda data: layout.split_worker_status(layout.unpack_number(data)),
)


def test_what_is_no_key_number_or_record_is_told_as_damaged(long: bool, figure: Tell) -> None:
    @given(st.sampled_from(_UNPACK), st.one_of(st.binary(max_size=60), st.binary(max_size=9)))
    def test(unpack: Callable[[bytes], object], data: bytes) -> None:
        with suppress(layout.Damaged):
            unpack(data)

    figure(f"{_examples(test, long):,} keys and values: each is one, or is told as damaged")


def test_records_of_any_header_are_told_as_damaged_alone_and_together(
    long: bool, figure: Tell
) -> None:
    byte, word, big = st.integers(0, 255), st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
    near = st.one_of(st.integers(0, 70), word)
    signed = st.integers(-(2**63), 2**63 - 1)

    @given(
        st.tuples(st.just(1) | byte, st.integers(0, 7), byte, word, word, word, near).flatmap(
            lambda head: st.tuples(signed, signed, big).map(lambda tail: head + tail)
        ),
        st.binary(max_size=60),
        big,
    )
    def test(header: recordlayout.Header, body: bytes, number: int) -> None:
        key = layout.pack_number(number)
        record = recordlayout.pack_record(key, header, body)
        together = recordlayout.unpack_records([key], [record])
        try:
            alone = recordlayout.unpack_record(key, record)
        except layout.Damaged:
            assert together is None
            return
        assert together == [alone] == [header]
        arguments, extras = recordlayout.split_body(record)
        assert arguments + extras == body
        assert recordlayout.arguments_of([record]) == [arguments]

    figure(f"{_examples(test, long):,} headers: alone and together they are the same")


# --- Bombs --------------------------------------------------------------------


def _explode(pipe: Connection) -> None:
    """Tells of each bomb its name and then, when it has gone off, whether it is a value, how
    many bytes of memory it took, and seconds of the processor."""
    for name, data in BOMBS.items():
        pipe.send(name)
        began, held = time.process_time(), _data_bytes()
        seconds = int(began) + _CPU_SECONDS
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.RLIM_INFINITY))
        most = held + len(data) * _BYTES_A_BYTE + _ROOM
        resource.setrlimit(resource.RLIMIT_DATA, (most, resource.RLIM_INFINITY))
        value = None
        with suppress(DecodeError):
            value = decode(data)
        took, grown = time.process_time() - began, _data_bytes() - held
        is_value = value is not None
        del value
        assert _is_value_or_error(data) == is_value
        with suppress(DecodeError):
            list(decode_sequence(io.BufferedReader(io.BytesIO(data))))
        pipe.send((is_value, grown, took))


def _data_bytes() -> int:
    """What this process has of memory that `RLIMIT_DATA` counts."""
    with open("/proc/self/status") as status:
        (line,) = (line for line in status if line.startswith("VmData"))
    return int(line.split()[1]) * 1024


def test_bombs_take_no_more_memory_and_time_than_their_size_allows(figure: Tell) -> None:
    """The limits are the system's: beyond them the process gets no memory, or a signal."""
    values, most, slowest = set(), 0.0, (0.0, "")
    with Child(_explode) as child:
        for name in BOMBS:
            try:
                assert child.receive() == name
                is_value, grown, took = child.receive()
            except BaseException as error:
                error.add_note(name)
                raise
            values |= {name} if is_value else set()
            most = max(most, grown / len(BOMBS[name]))
            slowest = max(slowest, (took, name))
    assert values == _HARMLESS
    figure(
        f"{len(BOMBS)} bombs of up to {max(map(len, BOMBS.values())) / 1024:.0f} KiB: "
        f"{len(values)} are values, all others errors; at most {most:.0f} bytes of memory a byte, "
        f"and {slowest[0]:.1f} s ({slowest[1]})"
    )


_HARMLESS: Final = {
    *("decimals with many digits", "times long ago and ahead"),
    *("decimals with the largest exponents", "a huge integer", "a huge negative one"),
    *("an integer of nothing but zeros", "NaNs of every kind", "empty arrays", "empty maps"),
}


def _read_with_little_memory() -> list[str]:
    """What comes of it, in two ways."""
    data = encode([None] * 1_000_000)
    most = _data_bytes() + 2**22  # half of what the list takes
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    told = []
    for reading in (
        lambda: decode(data),
        lambda: list(decode_sequence(io.BufferedReader(io.BytesIO(data)))),
    ):
        try:
            reading()
        except BaseException as error:
            told.append(type(error).__name__)
    return told


def test_where_memory_is_short_a_value_is_not_told_to_be_none() -> None:
    """Else a repair would set whole jobs aside. In a new process, which has none to spare."""
    assert in_child(_read_with_little_memory, method="spawn") == ["MemoryError", "MemoryError"]
