"""What a job is: its fields, its statuses, and which verb may change which status."""

from __future__ import annotations

import inspect
import reprlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from enum import Enum, StrEnum
from typing import Any, Final

from quelmdb.errors import DecodeError, InvalidJobError


class Status(StrEnum):
    """Where a job stands. Que has the four queued, started, completed, failed."""

    SCHEDULED = "scheduled"
    QUEUED = "queued"
    STARTED = "started"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


INCOMPLETE: Final = (Status.SCHEDULED, Status.QUEUED, Status.STARTED)

# verb -> (status before, status after). insert, update and restore set any status.
TRANSITIONS: Final[dict[str, tuple[Status, Status]]] = {
    "claim": (Status.QUEUED, Status.STARTED),
    "complete": (Status.STARTED, Status.COMPLETED),
    "fail": (Status.STARTED, Status.FAILED),
    "release": (Status.STARTED, Status.QUEUED),
    "rescue": (Status.STARTED, Status.QUEUED),
}


class AnyWorker(Enum):
    """The type of `ANY`, which stands for "all workers" where None is a worker."""

    ANY = "any worker"

    def __repr__(self) -> str:
        return "ANY"


ANY: Final = AnyWorker.ANY

Decoded = tuple[Any, Any, str | None]
"""Arguments, result and error."""

Decode = Callable[[bytes], Decoded]
"""Makes them of the record of a stored job. Raises `DecodeError`."""

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
    try:
        size = len(name.encode())
    except UnicodeEncodeError as error:
        raise InvalidJobError(
            f"worker name {name!r} cannot be written as UTF-8: {error.reason}", found=name
        ) from None
    if not 0 < size <= MAX_WORKER_BYTES:
        raise InvalidJobError(
            f"a worker name has 1 to {MAX_WORKER_BYTES} bytes in UTF-8, this one has {size}",
            expected=MAX_WORKER_BYTES,
            found=size,
        )
    return name


def check_id(value: object, limit: int = MAX_ID) -> int:
    """`value` where it is an id: an int from 1 to `limit`. Raises `InvalidJobError`."""
    if type(value) is not int:
        raise InvalidJobError(
            f"an id is an int, not {type(value).__name__} ({value!r})", found=value
        )
    if not 0 < value <= limit:
        raise InvalidJobError(
            f"an id is between 1 and {limit}, not {value}", expected=limit, found=value
        )
    return value


def id_of(job_or_id: Job | int | None) -> int | None:
    """The id that find and destroy mean: a job stands for its id, None for nothing."""
    if isinstance(job_or_id, Job):
        return job_or_id.id
    return None if job_or_id is None else check_id(job_or_id)


def microseconds(time: datetime) -> int:
    """An aware datetime as whole microseconds since 1970 (UTC)."""
    if not isinstance(time, datetime):
        raise InvalidJobError(f"a time is a datetime, not {type(time).__name__}", found=time)
    if time.tzinfo is None or time.utcoffset() is None:
        raise InvalidJobError(f"{time!r} has no time zone; give an aware datetime", found=time)
    return checked_time((time - _EPOCH) // _MICROSECOND)


def checked_time(micros: int) -> int:
    """`micros` where it is a time that a datetime can tell. Raises `InvalidJobError`."""
    if type(micros) is not int or not _FIRST <= micros <= _LAST:
        raise InvalidJobError(
            f"a time is an int of microseconds since 1970 (UTC), years 1 to 9999, not {micros!r}",
            found=micros,
        )
    return micros


def time_of(micros: int) -> datetime:
    """Microseconds since 1970 as an aware UTC datetime."""
    try:
        return _EPOCH + timedelta(microseconds=micros)
    except OverflowError:
        raise DecodeError(f"{micros} microseconds is no time", found=micros) from None


def status_of(value: Any) -> Status:
    """The status that `value` is or names. Raises `InvalidJobError`."""
    if type(value) is Status:
        return value
    try:
        return Status(value)
    except ValueError:
        raise InvalidJobError(
            f"unknown status {value!r}; known are {', '.join(Status)}", found=value
        ) from None


def error_text(error: object) -> str:
    """An error as it is kept: text for people, never refused. A lone surrogate is
    escaped, and of more than `MAX_ERROR` characters the middle is left out.

    Raises `InvalidJobError` where it is no text.
    """
    if not isinstance(error, str):
        raise InvalidJobError(f"an error is text, not {type(error).__name__}", found=error)
    if len(error) > MAX_ERROR:
        half = MAX_ERROR // 2 - len(_CUT)
        error = error[:half] + _CUT + error[-half:]
    return error.encode("utf-8", "backslashreplace").decode()


def _count(name: str, value: int, limit: int) -> int:
    if type(value) is not int or not 0 <= value <= limit:
        raise InvalidJobError(
            f"{name} is an int between 0 and {limit}, not {value!r}", expected=limit, found=value
        )
    return value


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
        "_id",
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
    # What a store reads, a store decodes: `_decode(record)` returns arguments,
    # result and error. None once they are there.
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
    ) -> None:
        self._id = None if id is None else check_id(id)
        self._worker = worker_name(worker)
        self._status = status if type(status) is Status else status_of(status)
        self._created_at = None if created_at is None else microseconds(created_at)
        self._updated_at = None if updated_at is None else microseconds(updated_at)
        self._attempt = _count("attempt", attempt, MAX_ATTEMPT)
        self._claim = _count("claim", claim, MAX_ID)
        self._owner = _count("owner", owner, MAX_OWNER)
        self._error = None if error is None else error_text(error)
        self._arguments = arguments
        self._result = result
        self._decode = None

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

    def _materialise(self) -> None:
        # Another thread may do the same: what it takes away last is looked at first.
        record, decode = self._record, self._decode
        if decode is not None:
            self._arguments, self._result, self._error = decode(record)
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
            if not (value is None or (name in NUMBERS and value == 0)):
                shown.append(f"{name}={_shown(value)}")
        return f"Job({', '.join(shown)})"


_shortened: Final = reprlib.Repr()
_shortened.maxstring = _shortened.maxother = 80
_shortened.maxdict = _shortened.maxlist = 8


def _shown(value: Any) -> str:
    """Long values shortened: a repr is for logs and debuggers."""
    if isinstance(value, Status | datetime):
        return f"'{value}'"
    return _shortened.repr(value)


NUMBERS: Final = ("attempt", "claim", "owner")  # fields that are 0 where there is nothing to say

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
) -> Job:
    """A job as a store keeps it: fields it has checked before (times in microseconds),
    and a record of which `decode` makes arguments, result and error when they are
    looked at. For stores alone; this is the path of every job that is listed."""
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
    return job


_new: Final = object.__new__


def _from_dict(fields: dict[str, Any]) -> Job:
    return Job(**fields)
