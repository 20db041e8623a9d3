"""Arguments and results as CBOR: what can be carried, its limits, strict decoding.

The only module that knows cbor2. What `Codec.encode` writes, `decode` reads back:
maps whose keys are text or bytes, arrays (tuples come back as lists), text, bytes,
integers of any size, floats, booleans, None, and, as tags, `datetime` (aware),
`date`, `UUID` and `Decimal`. All else is refused, on both sides: reading trusts no
byte (huge lengths, deep nesting, shared references, colliding keys, tags that
run code are errors at once).
"""

from __future__ import annotations

import marshal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime
from decimal import Decimal
from io import BufferedReader, BytesIO
from types import NoneType
from typing import IO, Any, Final, NoReturn
from uuid import UUID

import cbor2

from quelmdb.errors import CodecError, DecodeError, EncodeError, TooLargeError

MAX_DEPTH: Final = 64
DEFAULT_LIMIT: Final = 16 * 2**20
LARGEST_LIMIT: Final = 2**30

# A scaled integer with an exponent like 10**9 is a few bytes that take minutes to
# turn into an int; these are the bounds of IEEE 754 decimal128.
_MAX_EXPONENT: Final = 6144
_MAX_DIGITS: Final = 4300

_SCALARS: Final = frozenset((str, int, float, bool, NoneType, bytes))
_TEXT: Final = frozenset((str,))
_ATOMS: Final = (int, float, NoneType, bytes, bytearray, memoryview, date, UUID)

# cbor2's own decoders serve the tags that are wanted: 0 (datetime), 2 and 3
# (big integers), 37 (UUID), 1004 (date). The tags that it knows beside them:
_REFUSED_TAGS: Final = (
    *(1, 5, 25, 28, 29, 30, 35, 36, 52, 54, 100, 256, 258, 260, 261),
    *(43000, 43001, 55799),
)


def _refuse(value: object, immutable: bool) -> object:
    raise ValueError("it has a tag that is not among those that are written")


def _refuse_tag(tag: cbor2.CBORTag, immutable: bool) -> object:
    raise ValueError(f"it has the unknown tag {tag.tag}")


def _decimal(value: Any, immutable: bool) -> Decimal:
    exponent, digits = value
    if type(exponent) is not int or type(digits) is not int:
        raise ValueError("a decimal has an exponent and digits that are integers")
    if abs(exponent) > _MAX_EXPONENT or digits.bit_length() > _MAX_DIGITS * 3:
        raise ValueError("a decimal is out of range")
    return Decimal((digits < 0, tuple(map(int, str(abs(digits)))), exponent))


_SEMANTICS: Final[Mapping[int, Callable[[Any, bool], Any]]] = {
    **dict.fromkeys(_REFUSED_TAGS, _refuse),
    4: _decimal,
}


def _decoder(source: IO[bytes], max_depth: int) -> cbor2.CBORDecoder:
    return cbor2.CBORDecoder(
        source,
        max_depth=max_depth,
        allow_indefinite=False,
        allow_duplicate_keys=False,
        strict_hashable_types=True,
        semantic_decoders=_SEMANTICS,
        tag_hook=_refuse_tag,
    )


# Decoders that nobody uses now, with their sources: to make one takes as long as to
# decode a small value. Whoever uses one has taken it from here, so that neither another
# thread nor a signal handler in the middle of it meets a decoder at work.
_spare: Final[list[tuple[BytesIO, cbor2.CBORDecoder]]] = []
_KEPT: Final = 2**16  # the most bytes that a spare source may hold on to


def decode(data: bytes) -> Any:
    """The value that `data` is, all of it. Raises `DecodeError`. O(len(data))."""
    try:
        source, decoder = _spare.pop()
    except IndexError:
        source = BytesIO()
        decoder = _decoder(source, MAX_DEPTH)
    BytesIO.__init__(source, data)
    try:
        value = decoder.decode()
    except Exception as error:  # whatever a hostile byte makes of the decoder
        raise DecodeError(f"{len(data)} bytes are no value: {_reason(error)}") from None
    if source.tell() != len(data):
        raise DecodeError(f"{len(data)} bytes are no single value")
    if len(data) <= _KEPT:
        _spare.append((source, decoder))
    if _has_simple(value):
        raise DecodeError(f"{len(data)} bytes are no value: it has one that is not written")
    return value


def _reason(error: Exception) -> BaseException:
    """Why something is no value. Raises `MemoryError` where it may well be one."""
    reason = error.__cause__ or error
    if isinstance(reason, MemoryError):
        raise reason from None
    return reason


_MARK: Final = "\x1equelmdb\x1f"  # begins with what is nowhere else in it: see below
_MARK_BYTES: Final = _MARK.encode()
_MARK_ITEM: Final = cbor2.dumps(_MARK)
_ARRAY: Final = b"\x9a"  # begins an array, and 4 bytes tell its length


def decode_all(items: Sequence[bytes]) -> list[Any] | None:
    """What `decode` makes of each, in half the time; None where that is not certain,
    because one of them is no value, or has the bytes of the mark in it.

    They are decoded as one array, in which each is followed by a mark. A damaged one
    could swallow the beginning of the next, or leave its own end to it, but not
    unnoticed: the bytes of the mark occur once for each item, never overlapping, and
    only they make a text that equals it (there is one way to write it, as lengths are
    definite). So if every second value is a mark, these are the marks, in order, and
    the value between two of them is what all of the bytes between them make.
    """
    marked = b"".join([item + _MARK_ITEM for item in items])
    if marked.count(_MARK_BYTES) != len(items):
        return None
    source = BytesIO(_ARRAY + (2 * len(items)).to_bytes(4, "big") + marked)
    try:
        values = _decoder(source, MAX_DEPTH + 1).decode()
    except Exception:  # that of one item: it is found again where that is decoded alone
        return None
    if values[1::2].count(_MARK) != len(items) or source.read(1) or _has_simple(values):
        return None
    return values[::2]  # type: ignore[no-any-return]


def _has_simple(value: Any) -> bool:
    """Whether it has "undefined" or another simple value, for which cbor2 has no option."""
    try:
        marshal.dumps(value)  # by far the quickest way to ask for the types of all parts
    except ValueError:
        return _find_simple(value)
    return False


def _find_simple(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_find_simple, value.values()))
    if isinstance(value, list):
        return any(map(_find_simple, value))
    return value is cbor2.undefined or isinstance(value, cbor2.CBORSimpleValue)


def _encode_view(encoder: cbor2.CBOREncoder, value: memoryview) -> None:
    encoder.encode_bytes(value.tobytes())  # cbor2 would write an array of numbers


def _encode_decimal(encoder: cbor2.CBOREncoder, value: Decimal) -> None:
    if not value.is_finite():
        raise ValueError("it is no number")  # cbor2 would write a float
    encoder.encode_decimal(value)


def _refuse_to_encode(encoder: cbor2.CBOREncoder, value: object) -> None:
    raise ValueError("it is no value")


_ENCODERS: Final[Mapping[type, Callable[[cbor2.CBOREncoder, Any], None]]] = {
    memoryview: _encode_view,
    Decimal: _encode_decimal,
    cbor2.CBORSimpleValue: _refuse_to_encode,
    type(cbor2.undefined): _refuse_to_encode,
}


class Codec:
    """Encodes within the limits of one store."""

    def __init__(self, limit: int = DEFAULT_LIMIT) -> None:
        """`limit`: the most bytes that one encoded value may have, up to 1 GiB."""
        if type(limit) is not int or not 0 < limit <= LARGEST_LIMIT:
            raise ValueError(f"the limit is between 1 and {LARGEST_LIMIT} bytes, not {limit!r}")
        self.limit = limit

    def encode(self, value: Any, what: str = "arguments") -> bytes:
        """`value` as CBOR that `decode` reads. `what` names it in errors.

        Raises `EncodeError` for what cannot be carried (its `path` says where in
        the structure), `TooLargeError` above the limit.
        """
        try:
            if (type(value) is dict and _is_flat(value)) or _is_plain(value, self.limit):
                data = cbor2.dumps(value)
            else:  # find what is wrong before cbor2, which has no limit of depth, sees it
                _Search(value, what, self.limit)
                data = cbor2.dumps(value, encoders=_ENCODERS)
                decode(data)
        except (CodecError, MemoryError):
            raise
        except Exception as error:  # a surrogate, or whatever the caller's own types raise
            _Search(value, what, self.limit)
            raise EncodeError(f"{what} cannot be stored: {error}", path="$") from None
        if len(data) > self.limit:
            raise _too_large(what, len(data), self.limit)
        return data


def _too_large(what: str, size: int, limit: int) -> TooLargeError:
    return TooLargeError(
        f"{what} have {size:,} bytes or more as CBOR, and the limit is {limit:,}; keep big "
        "things in files, or open the store with a larger limit",
        expected=limit,
        found=size,
    )


def _is_plain(value: Any, limit: int) -> bool:
    """Whether it is made of scalars, lists, tuples and maps with text for keys alone,
    not too deep and not too many: such a value needs no second look."""
    kind = type(value)
    if kind in _SCALARS:
        return True
    level = [value]
    seen = 0
    for _ in range(MAX_DEPTH + 1):
        below: list[Any] = []
        for item in level:
            kind = type(item)
            if kind is dict:
                if not _TEXT.issuperset(map(type, item)):
                    return False
                below += item.values()
            elif kind is list or kind is tuple:
                below += item
            elif kind not in _SCALARS:
                return False
        if not below:
            return True
        seen += len(below)  # each takes a byte or more
        if seen > limit:
            return False
        level = below
    return False


def _is_flat(value: dict[Any, Any]) -> bool:
    for key, item in value.items():
        if type(key) is not str or type(item) not in _SCALARS:
            return False
    return True


class _Search:
    """Walks a value, and raises `EncodeError` for the first part that cannot be carried."""

    def __init__(self, value: Any, what: str, limit: int) -> None:
        self._what = what
        self._limit = limit
        self._seen = 0
        self._above: list[int] = []  # the containers that the walk is in, by identity
        self._walk(value, "$")

    def _walk(self, value: Any, path: str) -> None:
        self._seen += 1
        if self._seen > self._limit:
            raise _too_large(self._what, self._seen, self._limit)
        if isinstance(value, str):
            self._text(value, path)
        elif isinstance(value, datetime):
            if value.utcoffset() is None:
                self._refuse(path, "is a datetime without a time zone; make it aware")
        elif isinstance(value, Decimal):
            self._decimal(value, path)
        elif isinstance(value, Mapping):
            with self._inside(value, path):
                for key, item in value.items():
                    self._key(key, path)
                    self._walk(item, f"{path}.{key if isinstance(key, str) else repr(key)}")
        elif isinstance(value, Sequence) and not isinstance(value, _ATOMS):
            with self._inside(value, path):
                for number, item in enumerate(value):
                    self._walk(item, f"{path}[{number}]")
        elif not isinstance(value, _ATOMS):
            self._refuse(
                path, f"is a {type(value).__name__}, which has no place in CBOR as stored here"
            )

    @contextmanager
    def _inside(self, container: object, path: str) -> Iterator[None]:
        if id(container) in self._above:
            self._refuse(path, "contains itself")
        if len(self._above) == MAX_DEPTH:
            self._refuse(path, f"is nested deeper than {MAX_DEPTH} levels")
        self._above.append(id(container))
        yield
        self._above.pop()

    def _key(self, key: object, path: str) -> None:
        if not isinstance(key, (str, bytes)):
            self._refuse(path, f"has the key {key!r}; keys are text or bytes")
        if isinstance(key, str):
            self._text(key, f"{path} (a key)")

    def _text(self, text: str, path: str) -> None:
        try:
            text.encode()
        except UnicodeEncodeError:
            self._refuse(path, f"has a lone surrogate, which is no text: {text[:40]!r}")

    def _decimal(self, value: Decimal, path: str) -> None:
        _, digits, exponent = value.as_tuple()
        if not isinstance(exponent, int):
            self._refuse(path, f"is the decimal {value}, which is no number")
        elif abs(exponent) > _MAX_EXPONENT or len(digits) > _MAX_DIGITS:
            self._refuse(path, f"is a decimal out of range (exponent {exponent})")

    def _refuse(self, path: str, reason: str) -> NoReturn:
        raise EncodeError(f"{self._what} cannot be stored: {path} {reason}", path=path)


# --- Sequences (RFC 8742): many values in one stream ------------------------

SEQUENCE_START: Final = bytes.fromhex("d9d9f7")  # tag 55799, "this is CBOR" (RFC 8949, 3.4.6)


def encode_map(fields: Mapping[str, Any]) -> bytes:
    """`fields` as one item of a sequence. Each value has the limits of a value of
    its own, whatever the limit of the store that it came from.

    Raises as `Codec.encode` does.
    """
    if all(map(_is_simple, fields.values())):
        with suppress(UnicodeEncodeError):  # whose field is named below
            return cbor2.dumps(fields)
    data = BytesIO()
    cbor2.CBOREncoder(data).encode_length(5, len(fields))
    for name, value in fields.items():
        data.write(cbor2.dumps(name))
        data.write(_UNLIMITED.encode(value, name))
    return data.getvalue()


def _is_simple(value: Any) -> bool:
    return _is_plain(value, LARGEST_LIMIT) or (type(value) is datetime and value.tzinfo is UTC)


def decode_sequence(stream: BufferedReader) -> Iterator[Any]:
    """The items of a sequence, one by one, without the tag that it may begin with.

    Nothing is read beyond the item that is wanted, but for the buffer of the
    stream. Raises `DecodeError` where bytes are no value, or end within one.
    """
    if stream.peek(1)[:1] == SEQUENCE_START[:1] and stream.read(3) != SEQUENCE_START:
        raise DecodeError("it begins with a tag that is not the one of a CBOR sequence")
    decoder = _decoder(stream, MAX_DEPTH + 1)
    while stream.peek(1):
        try:
            value = decoder.decode()
        except OSError:
            raise
        except cbor2.CBORDecodeEOF:
            raise DecodeError("the bytes end in the middle of it") from None
        except Exception as error:  # whatever a hostile byte makes of the decoder
            raise DecodeError(f"the bytes are no value: {_reason(error)}") from None
        yield value


_UNLIMITED: Final = Codec(LARGEST_LIMIT)
