"""What few jobs have: when they are to run, before whom, how often, and how far they got.

Jobs without any of it share one object, `PLAIN`, and pay nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, Final, NamedTuple, TypeVar

from quelmdb.errors import InvalidJobError
from quelmdb.shown import shown
from quelmdb.values import (
    MAX_ATTEMPT,
    count_of,
    error_text,
    microseconds,
    shortened,
    text_of,
)

_T = TypeVar("_T")

MAX_PRIORITY: Final = 2**31 - 1
MAX_UNIQUE_KEY_BYTES: Final = 200
MAX_NOTE: Final = 100  # characters
MAX_FAILURES: Final = 10  # that are kept of a job, the latest
MAX_FAILURE: Final = 1_000  # characters of the error of each
DIED: Final = "the process that had it died"
_MAX_STEPS: Final = 2**63 - 1


class Progress(NamedTuple):
    """How far a job has got: `done` of `total` steps (None: nobody knows), and a note."""

    done: int
    total: int | None = None
    note: str | None = None


class Failure(NamedTuple):
    """An attempt that did not complete its job."""

    attempt: int
    started_at: datetime
    """When it was claimed."""
    ended_at: datetime
    error: str
    """Of more than `MAX_FAILURE` characters the middle is left out."""
    died: bool = False
    """Whether it ended because its process died."""


class Options(NamedTuple):
    """What a job may ask for, and its progress."""

    run_at: int | None = None
    """Not before this time, in microseconds since 1970."""
    priority: int = 0
    unique_key: str | None = None
    max_attempts: int | None = None
    progress: Progress | None = None


PLAIN: Final = Options()


def options_of(
    run_at: datetime | None,
    priority: int,
    unique_key: str | None,
    max_attempts: int | None,
    progress: Progress | Iterable[Any] | None,
) -> Options:
    """Checked. Raises `InvalidJobError`."""
    if max_attempts is not None and count_of("max_attempts", max_attempts, MAX_ATTEMPT) == 0:
        raise InvalidJobError("max_attempts is 1 or more, or None for no limit", found=0)
    return Options(
        None if run_at is None else microseconds(run_at),
        count_of("priority", priority, MAX_PRIORITY),
        None if unique_key is None else text_of("a unique key", unique_key, MAX_UNIQUE_KEY_BYTES),
        max_attempts,
        None if progress is None else _unpacked("progress", progress_of, progress),
    )


def progress_of(done: int, total: int | None = None, note: str | None = None) -> Progress:
    """Checked; a note is cut to `MAX_NOTE` characters. Raises `InvalidJobError`."""
    return Progress(
        count_of("done", done, _MAX_STEPS),
        None if total is None else count_of("total", total, _MAX_STEPS),
        None if note is None else error_text(note)[:MAX_NOTE],
    )


def failures_of(failures: Iterable[Failure | Iterable[Any]]) -> tuple[Failure, ...]:
    """Checked; the latest `MAX_FAILURES`. Raises `InvalidJobError`."""
    try:
        given = list(failures)
    except TypeError:
        raise InvalidJobError(
            f"failures are a list, not {shown(failures)}", found=failures
        ) from None
    return tuple(_unpacked("a failure", _failure, failure) for failure in given[-MAX_FAILURES:])


def _unpacked(what: str, make: Callable[..., _T], fields: Iterable[Any]) -> _T:
    try:
        return make(*fields)
    except TypeError as error:
        if isinstance(error, InvalidJobError):
            raise
        raise InvalidJobError(
            f"{what} has other fields than {shown(fields)}", found=fields
        ) from None


def _failure(
    attempt: int, started_at: datetime, ended_at: datetime, error: str, died: bool = False
) -> Failure:
    microseconds(started_at)
    microseconds(ended_at)
    if type(died) is not bool:
        raise InvalidJobError(f"died is a bool, not {shown(died)}", found=died)
    text = shortened(error_text(error), MAX_FAILURE)
    return Failure(count_of("attempt", attempt, MAX_ATTEMPT), started_at, ended_at, text, died)
