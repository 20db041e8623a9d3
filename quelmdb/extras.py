"""What stands behind the arguments of a record: result, error, options, failures.

A CBOR map of short names to bytes, and nothing at all where there is nothing to say.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

from quelmdb.codec import Codec, decode
from quelmdb.errors import DecodeError, InvalidJobError
from quelmdb.options import PLAIN, Failure, Options, failures_of, options_of
from quelmdb.recordlayout import (
    ERROR,
    ERROR_OUTSIDE,
    EXTRA_CLAIMED,
    EXTRA_ERROR,
    EXTRA_FAILURES,
    EXTRA_OPTIONS,
    EXTRA_RESULT,
    FAILURES,
    FAILURES_OUTSIDE,
    INLINE_BESIDE_OPTIONS,
    INLINE_EXTRA,
    RARE,
    RESULT,
    RESULT_OUTSIDE,
    pack_reference,
)
from quelmdb.values import microseconds, time_of

Extras = dict[str, bytes]

Outside = tuple[tuple[int, bytes], ...]
"""Parts for `payloads`: (part, content)."""

_CODEC: Final = Codec()  # of what is made here
_PLACES: Final = (
    (EXTRA_RESULT, RESULT, RESULT_OUTSIDE),
    (EXTRA_ERROR, ERROR, ERROR_OUTSIDE),
    (EXTRA_FAILURES, FAILURES, FAILURES_OUTSIDE),
)
PART_OF: Final = {name: part for name, part, _ in _PLACES}
FLAG_OF: Final = {name: flag for name, _, flag in _PLACES}
_OUTCOME: Final = frozenset((EXTRA_RESULT, EXTRA_ERROR))


def outcome_of(codec: Codec, result: Any, error: str | None) -> Extras:
    """A result and an error, encoded. Raises `EncodeError`, `TooLargeError`."""
    extras = {}
    if result is not None:
        extras[EXTRA_RESULT] = codec.encode(result, "result")
    if error is not None:
        # It has a bound of its own, below every limit that makes sense: `fail` is
        # called by handlers of exceptions, and must not be refused for its text.
        extras[EXTRA_ERROR] = _CODEC.encode(error)
    return extras


def rare_of(options: Options, failures: Sequence[Failure]) -> Extras:
    """Options and failures, encoded."""
    extras = {}
    if options != PLAIN:
        run_at, priority, unique_key, max_attempts, progress = options
        told = None if progress is None else list(progress)
        extras[EXTRA_OPTIONS] = _CODEC.encode([run_at, priority, unique_key, max_attempts, told])
    if failures:
        extras[EXTRA_FAILURES] = _CODEC.encode(
            [
                [attempt, microseconds(started), microseconds(ended), error, died]
                for attempt, started, ended, error, died in failures
            ]
        )
    return extras


def packed(extras: Extras) -> tuple[int, bytes, Outside]:
    """How extras stand in a record: flags, bytes, and what is too big and stands outside."""
    if not extras:
        return 0, b"", ()
    flags = 0 if extras.keys() <= _OUTCOME else RARE
    limit = INLINE_BESIDE_OPTIONS if flags else INLINE_EXTRA
    inside = dict(extras)
    outside = []
    for name, part, flag in _PLACES:
        content = extras.get(name)
        if content is not None and len(content) > limit:
            inside[name] = pack_reference(content)
            outside.append((part, content))
            flags |= flag
    return flags, _CODEC.encode(inside), tuple(outside)


def unpacked(data: bytes) -> Extras:
    """The map of a record. Raises `DecodeError`."""
    if len(data) > _SMALL:
        return _unpacked(data)
    return dict(_remembered(data))


def _unpacked(data: bytes) -> Extras:
    extras = decode(data) if data else {}
    if not isinstance(extras, dict) or not all(type(value) is bytes for value in extras.values()):
        raise DecodeError("its extras are no map of bytes")
    return extras


# Jobs of a worker mostly ask for the same, and have nothing else here.
_SMALL: Final = 64  # bytes of what is remembered
_remembered: Final = lru_cache(1024)(_unpacked)


def decoded_outcome(extras: Extras) -> tuple[Any, str | None]:
    """Result and error. Raises `DecodeError`."""
    result, error = extras.get(EXTRA_RESULT), extras.get(EXTRA_ERROR)
    text = None if error is None else decode(error)
    if not isinstance(text, str | None):
        raise DecodeError("its error is no text")
    return None if result is None else decode(result), text


def glance(data: bytes) -> tuple[Options, bool]:
    """Of extras of which nothing stands outside: the options, and whether there is neither a
    result, nor an error, nor a failure. Raises `DecodeError`."""
    return _glance(data) if len(data) > _SMALL else _remembered_glance(data)


def _glance(data: bytes) -> tuple[Options, bool]:
    extras = unpacked(data)
    return decoded_options(extras), extras.keys().isdisjoint(PART_OF)


_remembered_glance: Final = lru_cache(1024)(_glance)


def decoded_options(extras: Extras) -> Options:
    """Raises `DecodeError`."""
    data = extras.get(EXTRA_OPTIONS)
    return PLAIN if data is None else _options(data)


@lru_cache(1024)
def _options(data: bytes) -> Options:
    try:
        run_at, *others = decode(data)
        return options_of(None if run_at is None else time_of(run_at), *others)
    except (InvalidJobError, TypeError, ValueError) as error:
        raise DecodeError(f"its options are none: {error}") from None


def with_outcome(data: bytes, outcome: bytes) -> tuple[int, bytes] | None:
    """Flags and bytes of extras that get a result and an error, all of it inside, in the place
    of those that they had; None where it is too much for that. Raises `DecodeError`."""
    extras = unpacked(data)
    if extras.keys() & _OUTCOME or outcome:
        kept = {name: value for name, value in extras.items() if name not in _OUTCOME}
        flags, inside, outside = packed(kept | unpacked(outcome))
        return None if outside else (flags, inside)
    return RARE, data


def decoded_failures(extras: Extras) -> tuple[Failure, ...]:
    """Raises `DecodeError`."""
    data = extras.get(EXTRA_FAILURES)
    if data is None:
        return ()
    try:
        return failures_of(
            (attempt, time_of(started), time_of(ended), error, died)
            for attempt, started, ended, error, died in decode(data)
        )
    except (InvalidJobError, TypeError, ValueError) as error:
        raise DecodeError(f"its failures are none: {error}") from None


def claimed_at(extras: Extras, claim: int) -> int | None:
    """When that claim was made, where the record says so. It is for the account of an attempt
    alone: damaged it counts as absent, and keeps nobody from ending the job."""
    data = extras.get(EXTRA_CLAIMED)
    if data is None:
        return None
    try:
        of, time = decode(data)
    except (TypeError, ValueError):
        return None
    return time if of == claim and type(time) is int else None


def claimed(claim: int, time: int) -> Extras:
    """What `claimed_at` reads."""
    return {EXTRA_CLAIMED: _CODEC.encode([claim, time])}
