"""The values of a job's fields: what they may be, and how times and workers are told."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, Final

from quelmdb.errors import DecodeError, InvalidJobError
from quelmdb.shown import shown


class AnyWorker(Enum):
    """The type of `ANY`, which stands for "all workers" where None is a worker."""

    ANY = "any worker"

    def __repr__(self) -> str:
        return "ANY"


ANY: Final = AnyWorker.ANY

Worker = str | type | Callable[..., Any] | None
WorkerFilter = Worker | AnyWorker

# An id that a caller chooses; the store counts on from the largest, up to MAX_ID.
MAX_CHOSEN_ID: Final = 2**62
MAX_ID: Final = 2**63 - 1
MAX_ATTEMPT: Final = 2**32 - 1
MAX_OWNER: Final = 2**32 - 1
MAX_WORKER_BYTES: Final = 500
MAX_ERROR: Final = 2**16
_CUT: Final = "\n[...]\n"

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_FIRST: Final = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
_LAST: Final = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND


def worker_name(worker: Worker) -> str | None:
    """The name that stands for `worker`: itself, ``module:qualname``, or None.

    Raises `InvalidJobError` where it is empty, no text, or longer than
    `MAX_WORKER_BYTES` in UTF-8.
    """
    if worker is None:
        return None
    if type(worker) is str and worker.isascii() and 0 < len(worker) <= MAX_WORKER_BYTES:
        return worker
    if isinstance(worker, str):
        name = str(worker)
    elif isinstance(worker, type) or inspect.isroutine(worker):
        # A script's own module has another name in processes that it spawns.
        module = "__main__" if worker.__module__ == "__mp_main__" else worker.__module__
        name = f"{module}:{worker.__qualname__}"
    else:
        raise InvalidJobError(
            f"a worker is a name, a class, a function or None, not {type(worker).__name__}",
            found=worker,
        )
    return text_of("a worker name", name, MAX_WORKER_BYTES)


def text_of(what: str, text: object, limit: int) -> str:
    """`text` where it has 1 to `limit` bytes in UTF-8. Raises `InvalidJobError`."""
    if not isinstance(text, str):
        raise InvalidJobError(f"{what} is text, not {type(text).__name__}", found=text)
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise InvalidJobError(
            f"{what} {shown(text)} cannot be written as UTF-8: {error.reason}", found=text
        ) from None
    if not 0 < size <= limit:
        raise InvalidJobError(
            f"{what} has 1 to {limit} bytes in UTF-8, this one has {size}",
            expected=limit,
            found=size,
        )
    return str(text)


def check_id(value: object, limit: int = MAX_ID) -> int:
    """`value` where it is an id: an int from 1 to `limit`. Raises `InvalidJobError`."""
    if type(value) is not int:
        raise InvalidJobError(
            f"an id is an int, not {type(value).__name__} ({shown(value)})", found=value
        )
    if not 0 < value <= limit:
        raise InvalidJobError(
            f"an id is between 1 and {limit}, not {shown(value)}", expected=limit, found=value
        )
    return value


def microseconds(time: datetime) -> int:
    """An aware datetime as whole microseconds since 1970 (UTC)."""
    if not isinstance(time, datetime):
        raise InvalidJobError(f"a time is a datetime, not {type(time).__name__}", found=time)
    if time.tzinfo is None or time.utcoffset() is None:
        raise InvalidJobError(f"{shown(time)} has no time zone; give an aware datetime", found=time)
    return checked_time((time - _EPOCH) // _MICROSECOND)


def checked_time(micros: int) -> int:
    """`micros` where it is a time that a datetime can tell. Raises `InvalidJobError`."""
    if type(micros) is not int or not _FIRST <= micros <= _LAST:
        raise InvalidJobError(
            "a time is an int of microseconds since 1970 (UTC), years 1 to 9999, not "
            f"{shown(micros)}",
            found=micros,
        )
    return micros


def time_of(micros: int) -> datetime:
    """Microseconds since 1970 as an aware UTC datetime."""
    try:
        return _EPOCH + timedelta(microseconds=micros)
    except OverflowError:
        raise DecodeError(f"{micros} microseconds is no time", found=micros) from None


def error_text(error: object) -> str:
    """An error as it is kept: text for people, never refused. A lone surrogate is
    escaped, and of more than `MAX_ERROR` characters the middle is left out.

    Raises `InvalidJobError` where it is no text.
    """
    if not isinstance(error, str):
        raise InvalidJobError(f"an error is text, not {type(error).__name__}", found=error)
    return shortened(error, MAX_ERROR).encode("utf-8", "backslashreplace").decode()


def shortened(text: str, limit: int) -> str:
    """At most `limit` characters of it: the middle of what is longer is left out."""
    if len(text) <= limit:
        return text
    half = limit // 2 - len(_CUT)
    return text[:half] + _CUT + text[-half:]


def headline(error: str) -> str:
    """The line of an error that says most: of a traceback the last one, where Python names the
    exception, of any other text the first."""
    lines = error.strip().splitlines() or [""]
    return lines[-1 if lines[0].startswith("Traceback") else 0]


def count_of(name: str, value: int, limit: int) -> int:
    """`value` where it is an int from 0 to `limit`. Raises `InvalidJobError`."""
    if type(value) is not int or not 0 <= value <= limit:
        raise InvalidJobError(
            f"{name} is an int between 0 and {limit}, not {shown(value)}",
            expected=limit,
            found=value,
        )
    return value
