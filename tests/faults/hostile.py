"""Bytes that somebody made to do harm, and values that were damaged: more than chance finds."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import cbor2
import hypothesis.strategies as st

from quelmdb.codec import Codec

SIZE: Final = 2**17  # of a bomb, in bytes, about

encode: Final = Codec(2**30).encode

VALUES: Final[tuple[Any, ...]] = (
    *(None, True, False, [], {}, "", b"", 0, 23, 24, 255, 2**16, 2**32, 2**64 - 1, -1, -(2**64)),
    *(1.5, float("nan"), float("-inf"), 2**80, -(2**90), Decimal("1.25"), Decimal("-1e-20")),
    *(UUID(int=7), date(2024, 2, 29), datetime(2024, 1, 1, 12, 30, 15, 123456, tzinfo=UTC)),
    datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=5, minutes=30))),
    {"user": 7, "template": "welcome"},
    [1, [2, {"a": [3.5, b"\xf7", "\x1equelmd"]}], "é" * 30],
    {b"k": 1, "k": {"deep": [[[[None]]]]}},
)
ENCODED: Final = tuple(map(encode, VALUES))

# --- Mutations ----------------------------------------------------------------

_TAGS: Final = (0, 1, 2, 3, 4, 5, 24, 25, 28, 29, 30, 35, 36, 37, 100, 256, 258, 260, 1004, 55799)
_TIMES: Final = (
    *("2024-01-01T00:00:00Z", "2024-01-01T00:00:00+05:30", "2024-01-01T00:00:00.1234567Z"),
    *("2024-01-01T00:00:00", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"),
    *("2024-01-01T24:00:00Z", "2024-01-01T00:00:60Z", "2024-01-01T00:00:00+24:00"),
    *("2024-01-01T00:00:00-00:00", "2024-01-01T00:00:00.Z", "2024-02-30", "20240101"),
)
_HEADS: Final = (b"\x1b", b"\x3b", b"\x5b", b"\x7b", b"\x9b", b"\xbb", b"\x9f", b"\xbf", b"\x5f")
_PIECES: Final = (
    *ENCODED,
    *(cbor2.dumps(cbor2.CBORTag(tag, 0))[:-1] for tag in _TAGS),
    *(head + cbor2.dumps(text) for text in _TIMES for head in (b"", b"\xc0", b"\xd9\x03\xec")),
    *(head + bytes(8) for head in _HEADS),
    *(head + b"\xff" * 8 for head in _HEADS),
    *(
        b"\xf7",
        b"\xf8\x20",
        b"\xff",
        b"\xf9\x7e\x01",
        b"\x62\xed\xa0\x80"[:3],
        b"\x81",
        b"\xa1\x61a",
    ),
)


def mutated(rng: random.Random, data: bytes) -> bytes:
    """Some bytes of it changed, left out or put in."""
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(len(found) + 1)
        match rng.randrange(6):
            case 0 | 1 if at < len(found):
                found[at] ^= 1 << rng.randrange(8)
            case 2 if at < len(found):
                found[at] = rng.randrange(256)
            case 3:
                del found[at : at + rng.randrange(1, 4)]
            case 4:
                found[at:at] = found[: rng.randrange(1, 8)]
            case _:
                found[at:at] = rng.choice(_PIECES)
    return bytes(found)


# --- For Hypothesis -----------------------------------------------------------


def _head(kind: int, number: int) -> bytes:
    for width, code in ((1, 24), (2, 25), (4, 26), (8, 27)):
        if number < 24:
            return bytes([kind << 5 | number])
        if number < 2 ** (8 * width):
            return bytes([kind << 5 | code]) + number.to_bytes(width, "big")
    raise ValueError(number)


_number = st.one_of(st.integers(0, 30), st.integers(0, 2**64 - 1))
_lie = st.one_of(st.just(0), st.just(0), st.just(0), st.integers(-2, 2), st.just(2**40))


def _array(items: list[bytes], lie: int) -> bytes:
    return _head(4, max(0, len(items) + lie)) + b"".join(items)


def _map(items: list[tuple[bytes, bytes]], lie: int) -> bytes:
    return _head(5, max(0, len(items) + lie)) + b"".join(key + value for key, value in items)


def _containers(inner: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return st.one_of(
        st.builds(_array, st.lists(inner, max_size=4), _lie),
        st.builds(_map, st.lists(st.tuples(inner, inner), max_size=3), _lie),
        st.builds(lambda tag, item: _head(6, tag) + item, st.sampled_from(_TAGS) | _number, inner),
        st.builds(lambda items: b"\x9f" + b"".join(items) + b"\xff", st.lists(inner, max_size=3)),
    )


items: Final[st.SearchStrategy[bytes]] = st.recursive(
    st.one_of(
        st.sampled_from(_PIECES),
        st.builds(_head, st.sampled_from((0, 1, 7)), _number),
        st.builds(lambda data: _head(2, len(data)) + data, st.binary(max_size=20)),
        st.builds(lambda text: _head(3, len(text.encode())) + text.encode(), st.text(max_size=9)),
        st.binary(max_size=12),
    ),
    _containers,
    max_leaves=12,
)
"""What looks like CBOR, with lengths that lie now and then."""

# --- Bombs --------------------------------------------------------------------


def _repeated(unit: bytes, size: int = SIZE) -> bytes:
    """An array of so many of them that it has about `size` bytes."""
    count = size // len(unit)
    return _head(4, count) + unit * count


def _many_keys(key: Callable[[int], bytes], count: int = 10_000) -> bytes:
    return _head(5, count) + b"".join(key(number) + b"\x01" for number in range(count))


def _bignum(value: int) -> bytes:
    return b"\xc2" + cbor2.dumps(value.to_bytes(-(-value.bit_length() // 8), "big"))


_PRIME: Final = 2**61 - 1  # Python's hash of an integer is its remainder by this

BOMBS: Final[dict[str, bytes]] = {
    "arrays that each refer to the one before": b"\xd8\x1c\x82" * 60 + b"\x01\x01" * 60,
    "a reference to itself": b"\xd8\x1c\x81\xd8\x1d\x00",
    "many shared references": _repeated(b"\xd8\x1c\x80"),
    "decimals with the largest exponents": _repeated(b"\xc4\x82\x19\x18\x00\x01"),
    "a decimal with a huge exponent": b"\xc4\x82\x1b\x00\xff\xff\xff\xff\xff\xff\xff\x01",
    "a decimal with a bignum for an exponent": b"\xc4\x82" + _bignum(2**4000) + b"\x01",
    "a decimal with endless digits": b"\xc4\x82\x01" + _bignum(2 ** (8 * SIZE) - 1),
    "decimals with many digits": _repeated(b"\xc4\x82\x01" + _bignum(2**12_000)),
    "bigfloats": _repeated(b"\xc5\x82\x1a\x3b\x9a\xca\x00\x01"),
    "a huge integer": _bignum(2 ** (8 * SIZE) - 1),
    "a huge negative one": b"\xc3" + _bignum(2 ** (8 * SIZE) - 1)[1:],
    "an integer of nothing but zeros": b"\xc2" + cbor2.dumps(bytes(SIZE)),
    "regular expressions": _repeated(b"\xd8\x23" + cbor2.dumps("(a+)+" * 20 + "$")),
    "MIME messages": _repeated(b"\xd8\x24" + cbor2.dumps("a: b\n" * 100)),
    "huge lengths within each other": b"\x9b\x00\xff\xff\xff\xff\xff\xff\xff" * 60,
    "huge strings": _repeated(b"\x5a\x7f\xff\xff\xff"),
    "deep arrays": b"\x81" * SIZE,
    "deep maps": b"\xa1\x61a" * (SIZE // 3),
    "deep tags": b"\xc0" * SIZE,
    "deep arrays without a length": b"\x9f" * SIZE,
    "colliding integer keys": _many_keys(lambda n: _bignum(2**64 + _PRIME * n)),
    "colliding UUID keys": _many_keys(lambda n: b"\xd8\x25\x50" + (_PRIME * n).to_bytes(16, "big")),
    "colliding decimal keys": _many_keys(lambda n: b"\xc4\x82\x00" + _bignum(2**64 + _PRIME * n)),
    "keys that are tuples": _many_keys(lambda n: b"\x82\x1a" + n.to_bytes(4, "big") + b"\x01"),
    "a key many times": _many_keys(lambda n: b"\x61a"),
    "strings without a length": _repeated(b"\x5f\x41a\xff"),
    "text that is no UTF-8": _head(3, SIZE) + b"\xff" * SIZE,
    "surrogates": _repeated(b"\x63\xed\xa0\x80"),
    "NaNs of every kind": _repeated(b"\xfb\x7f\xf8\x00\x00\x00\x00\x00\x01"),
    "times long ago and ahead": _repeated(b"\xc0" + cbor2.dumps("9999-12-31T23:59:59-23:59")),
    "times as numbers": _repeated(b"\xc1\xfb\x7e\x37\xe4\x3c\x88\x00\x75\x9c"),
    "an endless time": b"\xc0" + _head(3, SIZE) + b"1" * SIZE,
    "sets": _repeated(b"\xd9\x01\x02\x81\x01"),
    "a set of colliding integers": b"\xd9\x01\x02"
    + _head(4, 10_000)
    + b"".join(_bignum(2**64 + _PRIME * n) for n in range(10_000)),
    "addresses": _repeated(b"\xd9\x01\x04\x44\x7f\x00\x00\x01"),
    "strings that refer to others": b"\xd9\x01\x00" + _repeated(b"\xd8\x19\x00"),
    "CBOR within CBOR": b"\xd8\x18" * 100 + cbor2.dumps(b"\xd8\x18" * 1000),
    "tags of tags": b"\xda\x00\x01\x00\x00" * 25_000 + b"\x01",
    "empty arrays": _repeated(b"\x80"),
    "empty maps": _repeated(b"\xa0"),
    "simple values": _repeated(b"\xf8\x20"),
    "undefined": _repeated(b"\xf7"),
}
