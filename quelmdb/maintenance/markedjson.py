"""Values as JSON, exactly: what JSON lacks is a map with one key that begins with "$".

    bytes                          {"$bytes": base64}
    datetime, date                 {"$datetime": ISO 8601}, {"$date": ISO 8601}
    UUID                           {"$uuid": text}
    Decimal                        {"$decimal": text}
    a float that is no number      {"$float": "nan", "inf" or "-inf"}
    an integer above 1,024 bits    {"$int": hexadecimal}
    a map with a key that is bytes, or text that begins with "$"
                                   {"$map": [[key, value], ...]}

All else is itself, so `loads(dumps(value)) == value` for all that `quelmdb.codec`
carries (tuples are lists there, too).
"""

from __future__ import annotations

import json
import math
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final, NoReturn
from uuid import UUID

from quelmdb.errors import DecodeError, EncodeError

# Python refuses to turn longer ones into decimal digits, and others' JSON readers too.
_LONGEST_INT: Final = 1024

# Inside JSON these stand in strings only, and on a terminal or in an editor they
# do harm: C1 control characters, line separators, marks that change the direction.
_ESCAPED: Final = {
    code: f"\\u{code:04x}"
    for code in (*range(0x7F, 0xA0), *range(0x2028, 0x202F), *range(0x2066, 0x206A))
}


def dumps(value: Any, indent: int | None = None) -> str:
    """`value` as JSON, on one line unless `indent` is given.

    Raises `EncodeError` for what the codec does not carry.
    """
    separators = (",", ": ") if indent else (",", ":")
    text = json.dumps(mark(value), ensure_ascii=False, indent=indent, separators=separators)
    return text.translate(_ESCAPED)


def loads(text: str | bytes) -> Any:
    """The value that `dumps` was given. Raises `DecodeError` where `text` is no JSON,
    or has a mark that is none of the above."""
    try:
        return json.loads(
            text,
            object_pairs_hook=_unmark,
            parse_constant=_refuse_constant,
            parse_float=_parse_float,
        )
    except DecodeError:
        raise
    except RecursionError:
        raise DecodeError("it is nested too deep") from None
    except ValueError as error:
        raise DecodeError(f"it is no JSON: {error}") from None


def mark(value: Any) -> Any:
    """`value` made of what JSON has."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return value if value.bit_length() <= _LONGEST_INT else {"$int": hex(value)}
    if isinstance(value, float):
        return value if math.isfinite(value) else {"$float": str(value)}
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {"$bytes": b64encode(value).decode()}
    if isinstance(value, Mapping):
        if all(isinstance(key, str) and not key.startswith("$") for key in value):
            return {key: mark(item) for key, item in value.items()}
        return {"$map": [[mark(key), mark(item)] for key, item in value.items()]}
    if isinstance(value, Sequence):
        return [mark(item) for item in value]
    for kind, name, text in _MARKED:
        if isinstance(value, kind):
            return {name: text(value)}
    raise EncodeError(f"a {type(value).__name__} has no place in JSON as written here")


_MARKED: Final[tuple[tuple[type, str, Callable[[Any], str]], ...]] = (
    (datetime, "$datetime", datetime.isoformat),
    (date, "$date", date.isoformat),
    (UUID, "$uuid", str),
    (Decimal, "$decimal", str),
)


def _unmark(pairs: list[tuple[str, Any]]) -> Any:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise DecodeError("a map has the same key twice")
    if not any(key.startswith("$") for key in found):
        return found
    name, content = pairs[0]
    read = _READERS.get(name)
    if len(pairs) > 1 or read is None:
        raise DecodeError(f"a map with the keys {', '.join(map(repr, found))} is no known mark")
    try:
        return read(content)
    except (ValueError, TypeError, ArithmeticError) as error:
        raise DecodeError(f"{name} does not fit its content: {error}") from None


def _map(pairs: Any) -> dict[str | bytes, Any]:
    found: dict[str | bytes, Any] = {}
    for key, value in pairs:
        if not isinstance(key, (str, bytes)):
            raise DecodeError(f"a key is text or bytes, not {type(key).__name__}")
        if key in found:
            raise DecodeError("a map has the same key twice")
        found[key] = value
    return found


def _float(text: str) -> float:
    if text not in ("nan", "inf", "-inf"):
        raise ValueError(f"{text!r} is none of nan, inf, -inf")
    return float(text)


def _int(text: str) -> int:
    return int(text, 16)  # base 16 has no limit of digits, and takes linear time


def _decimal(text: str) -> Decimal:
    number = Decimal(_text(text))
    if not number.is_finite():
        raise ValueError(f"{text!r} is no number")
    return number


def _text(content: object) -> str:
    if not isinstance(content, str):
        raise TypeError(f"it is {type(content).__name__}, not text")
    return content


_READERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "$bytes": lambda text: b64decode(_text(text), validate=True),
    "$datetime": datetime.fromisoformat,
    "$date": date.fromisoformat,
    "$uuid": lambda text: UUID(_text(text)),
    "$decimal": _decimal,
    "$float": _float,
    "$int": _int,
    "$map": _map,
}


def _refuse_constant(name: str) -> NoReturn:
    raise DecodeError(f"{name} is no JSON")


def _parse_float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise DecodeError(f"the number {text[:40]} is out of range")
    return number
