"""What a job is: its fields, checked when it is made, and decoded when they are looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, Final

from quelmdb.errors import DecodeError
from quelmdb.options import PLAIN, Failure, Options, Progress, failures_of, options_of
from quelmdb.shown import shown
from quelmdb.status import Status, status_of
from quelmdb.values import (
    MAX_ATTEMPT,
    MAX_ID,
    MAX_OWNER,
    Worker,
    check_id,
    count_of,
    error_text,
    microseconds,
    time_of,
    worker_name,
)

Decoded = tuple[Any, Any, str | None, tuple[Failure, ...]]
"""Arguments, result, error and failures."""

Decode = Callable[[bytes], Decoded]
"""Makes them of the record of a stored job. Raises `DecodeError`."""


def id_of(job_or_id: Job | int | None) -> int | None:
    """The id that find and destroy mean: a job stands for its id, None for nothing."""
    if isinstance(job_or_id, Job):
        return job_or_id.id
    return None if job_or_id is None else check_id(job_or_id)


class Job:
    """One job: an immutable value. `replace` makes a changed copy.

    Compares and pickles by value. Every field is checked when the job is made
    (`InvalidJobError`), except arguments and result, which the store checks when
    it encodes them. Of a job that was read from a store, arguments, result and
    error are decoded when first looked at, which raises `DecodeError` where
    their bytes are no value.
    """

    __slots__ = (
        "_arguments",
        "_attempt",
        "_claim",
        "_created_at",
        "_decode",
        "_error",
        "_failures",
        "_id",
        "_options",
        "_owner",
        "_record",
        "_result",
        "_status",
        "_updated_at",
        "_worker",
    )

    _id: int | None
    _worker: str | None
    _status: Status
    _created_at: int | None
    _updated_at: int | None
    _attempt: int
    _claim: int
    _owner: int
    _arguments: Any
    _result: Any
    _error: str | None
    _failures: tuple[Failure, ...]
    _options: Options
    # What a store reads, a store decodes: `_decode(record)` returns arguments,
    # result, error and failures. None once they are there.
    _decode: Decode | None
    _record: bytes

    def __init__(
        self,
        worker: Worker = None,
        arguments: Any = None,
        *,
        id: int | None = None,
        status: Status | str = Status.QUEUED,
        created_at: datetime | None = None,
        updated_at: datetime | None = None,
        attempt: int = 0,
        claim: int = 0,
        owner: int = 0,
        result: Any = None,
        error: str | None = None,
        run_at: datetime | None = None,
        priority: int = 0,
        unique_key: str | None = None,
        max_attempts: int | None = None,
        progress: Progress | None = None,
        failures: Iterable[Failure] = (),
    ) -> None:
        self._id = None if id is None else check_id(id)
        self._worker = worker_name(worker)
        self._status = status if type(status) is Status else status_of(status)
        self._created_at = None if created_at is None else microseconds(created_at)
        self._updated_at = None if updated_at is None else microseconds(updated_at)
        self._attempt = count_of("attempt", attempt, MAX_ATTEMPT)
        self._claim = count_of("claim", claim, MAX_ID)
        self._owner = count_of("owner", owner, MAX_OWNER)
        self._error = None if error is None else error_text(error)
        self._arguments = arguments
        self._result = result
        self._decode = None
        self._failures = failures_of(failures) if failures else ()
        self._options = PLAIN
        if (
            run_at
            or priority != 0
            or unique_key is not None
            or max_attempts is not None
            or progress
        ):
            self._options = options_of(run_at, priority, unique_key, max_attempts, progress)

    @property
    def id(self) -> int | None:
        """The number under which a store keeps it; None until it is stored."""
        return self._id

    @property
    def worker(self) -> str | None:
        """The name of the worker whose job it is."""
        return self._worker

    @property
    def status(self) -> Status:
        """Where the job stands."""
        return self._status

    @property
    def created_at(self) -> datetime | None:
        """When it was inserted (UTC, microseconds)."""
        return None if self._created_at is None else time_of(self._created_at)

    @property
    def updated_at(self) -> datetime | None:
        """When its record was last written (UTC, microseconds)."""
        return None if self._updated_at is None else time_of(self._updated_at)

    @property
    def attempt(self) -> int:
        """How often it was claimed and not released."""
        return self._attempt

    @property
    def claim(self) -> int:
        """The number of its latest claim, 0 before the first. It only grows, in
        the whole store: a fence for writes elsewhere."""
        return self._claim

    @property
    def owner(self) -> int:
        """The number of the process that holds it, 0 where none does."""
        return self._owner

    @property
    def arguments(self) -> Any:
        """What the worker is to work on."""
        if self._decode is not None:
            self._materialise()
        return self._arguments

    @property
    def result(self) -> Any:
        """What `complete` was given."""
        if self._decode is not None:
            self._materialise()
        return self._result

    @property
    def error(self) -> str | None:
        """What `fail` was given."""
        if self._decode is not None:
            self._materialise()
        return self._error

    @property
    def failures(self) -> tuple[Failure, ...]:
        """The latest attempts that did not complete it, at most 10, oldest first."""
        if self._decode is not None:
            self._materialise()
        return self._failures

    @property
    def run_at(self) -> datetime | None:
        """The time before which it is not to run."""
        run_at = self._options.run_at
        return None if run_at is None else time_of(run_at)

    @property
    def priority(self) -> int:
        """Jobs of a higher one are claimed first."""
        return self._options.priority

    @property
    def unique_key(self) -> str | None:
        """No other job of the store that is scheduled, queued or started has it."""
        return self._options.unique_key

    @property
    def max_attempts(self) -> int | None:
        """How many attempts it has; None for no limit."""
        return self._options.max_attempts

    @property
    def progress(self) -> Progress | None:
        """What its worker has told of how far it got."""
        return self._options.progress

    def _materialise(self) -> None:
        # Another thread may do the same: what it takes away last is looked at first.
        record, decode = self._record, self._decode
        if decode is not None:
            self._arguments, self._result, self._error, self._failures = decode(record)
            self._decode = None
            self._record = b""

    def as_dict(self) -> dict[str, Any]:
        """Every field by its name, in the order of docs/contract.md."""
        return {name: getattr(self, name) for name in FIELDS}

    def replace(self, **changes: Any) -> Job:
        """A copy with these fields changed."""
        return Job(**{**self.as_dict(), **changes})

    __replace__ = replace  # copy.replace of Python 3.13

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Job) and self.as_dict() == other.as_dict()

    def __hash__(self) -> int:
        return hash((self._id, self._worker, self._status, self._updated_at))

    def __reduce__(self) -> tuple[Callable[[dict[str, Any]], Job], tuple[dict[str, Any]]]:
        return _from_dict, (self.as_dict(),)

    def __repr__(self) -> str:
        shown = []
        for name in FIELDS:
            try:
                value = getattr(self, name)
            except DecodeError:
                shown.append(f"{name}=<damaged>")
                continue
            if not is_empty(name, value):
                shown.append(f"{name}={_shown(value)}")
        return f"Job({', '.join(shown)})"


def _shown(value: Any) -> str:
    return f"'{value}'" if isinstance(value, Status | datetime) else shown(value)


NUMBERS: Final = ("attempt", "claim", "owner", "priority")  # 0 where there is nothing to say


def is_empty(name: str, value: Any) -> bool:
    """Whether a field says nothing: None, no failures, or a number that is 0."""
    return value is None or (name in NUMBERS and value == 0) or (name == "failures" and not value)


FIELDS: Final = (
    "id",
    "worker",
    "arguments",
    "status",
    "created_at",
    "updated_at",
    "attempt",
    "claim",
    "owner",
    "result",
    "error",
    "run_at",
    "priority",
    "unique_key",
    "max_attempts",
    "progress",
    "failures",
)


def stored_job(
    id: int,
    worker: str | None,
    status: Status,
    created_at: int,
    updated_at: int,
    attempt: int,
    claim: int,
    owner: int,
    record: bytes,
    decode: Decode,
    options: Options = PLAIN,
) -> Job:
    """A job as a store keeps it: fields it has checked before (times in microseconds),
    and a record of which `decode` makes arguments, result, error and failures when they
    are looked at. For stores alone; this is the path of every job that is listed."""
    job: Job = _new(Job)
    job._id = id
    job._worker = worker
    job._status = status
    job._created_at = created_at
    job._updated_at = updated_at
    job._attempt = attempt
    job._claim = claim
    job._owner = owner
    job._record = record
    job._decode = decode
    job._options = options
    return job


_new: Final = object.__new__


def _from_dict(fields: dict[str, Any]) -> Job:
    return Job(**fields)
