"""Jobs as a stream of bytes, and back: `dump_cbor`, `dump_jsonl`, `load`.

    CBOR   a sequence (RFC 8742): the self-described tag, a header
           {"quelmdb": "dump", "version": 1}, then a map for each job, then
           {"quelmdb": "end", "jobs": how many}, so that a dump that was cut is seen
    JSONL  the same, a line each, in UTF-8; what JSON lacks is marked as
           `quelmdb.maintenance.markedjson` tells, times of a job are ISO 8601 text

A job's map has the fields of `quelmdb.job.FIELDS`, without those that are None,
and without an attempt, claim, owner or priority of 0. Jobs stand by ascending id. Both
forms are exact: loaded into an empty store they give the same jobs, but that one
that was started is queued.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from itertools import count
from typing import Any, Final, NamedTuple, Protocol

from quelmdb import codec
from quelmdb.errors import (
    CodecError,
    CorruptRecordError,
    DecodeError,
    JobError,
    QuelmdbError,
    UnsupportedFormatError,
)
from quelmdb.job import FIELDS, Job, is_empty
from quelmdb.maintenance import markedjson
from quelmdb.persistence import JobStore
from quelmdb.reader import JobView, Reader
from quelmdb.shown import shown
from quelmdb.status import Status
from quelmdb.writes import OnConflict

Progress = Callable[[int], object]
"""Is told how many jobs are done, now and then and at the end."""

Select = Callable[[Reader], JobView]
"""Chooses the jobs of a dump: a listing by ascending id."""

VERSION: Final = 1

_HEADER: Final[dict[str, Any]] = {"quelmdb": "dump", "version": VERSION}
_TIMES: Final = ("created_at", "updated_at", "run_at")

_BATCH: Final = 1_000
_BATCH_BYTES: Final = 32 * 2**20
_BUFFER: Final = 2**16

log = logging.getLogger(__name__)


class Sink(Protocol):
    """Where a dump goes: a binary stream."""

    def write(self, data: bytes, /) -> object: ...


class Source(Protocol):
    """Where a dump comes from: a binary stream."""

    def readinto(self, buffer: Any, /) -> int | None: ...


# --- Out -------------------------------------------------------------------


def dump_cbor(
    reader: Reader,
    stream: Sink,
    progress: Progress | None = None,
    select: Select = Reader.all,
) -> int:
    """Writes every job [that `select` chooses] to `stream` as a CBOR sequence, and returns
    how many.

    Of a store it is one point in time, under a snapshot that is held until all
    is written. A job whose bytes cannot be read is logged and left out.
    """
    start = codec.SEQUENCE_START + codec.encode_map(_HEADER)
    return _dump(reader, stream, start, codec.encode_map, fields_of, progress, select)


def dump_jsonl(
    reader: Reader,
    stream: Sink,
    progress: Progress | None = None,
    select: Select = Reader.all,
) -> int:
    """Writes every job [that `select` chooses] to `stream` as JSON Lines, and returns how
    many. Else as `dump_cbor`."""

    def line(fields: dict[str, Any]) -> bytes:
        return (markedjson.dumps(fields) + "\n").encode()

    return _dump(reader, stream, line(_HEADER), line, json_fields_of, progress, select)


def fields_of(job: Job) -> dict[str, Any]:
    """The map that stands for a job. Raises `DecodeError` where the job's bytes are no value."""
    fields = {name: value for name, value in job.as_dict().items() if not is_empty(name, value)}
    fields["status"] = job.status.value
    if job.progress:
        fields["progress"] = list(job.progress)
    if job.failures:
        fields["failures"] = list(map(list, job.failures))
    return fields


def json_fields_of(job: Job) -> dict[str, Any]:
    """The map that stands for a job in JSON Lines."""
    fields = fields_of(job)
    for name in _TIMES:
        if name in fields:
            fields[name] = fields[name].isoformat()
    return fields


def json_line(job: Job, indent: int | None = None) -> str:
    """The job as it stands in JSON Lines, without the end of the line."""
    return markedjson.dumps(json_fields_of(job), indent)


def _dump(
    reader: Reader,
    stream: Sink,
    start: bytes,
    encode: Callable[[dict[str, Any]], bytes],
    describe: Callable[[Job], dict[str, Any]],
    progress: Progress | None,
    select: Select,
) -> int:
    written = 0
    with _one_moment(reader) as moment:
        stream.write(start)
        for job in select(moment):
            try:
                data = encode(describe(job))
            except (DecodeError, CorruptRecordError) as error:
                log.warning("job %s is left out: %s", job.id, error)
                continue
            stream.write(data)
            written += 1
            if progress is not None and written % _BATCH == 0:
                progress(written)
    stream.write(encode({"quelmdb": "end", "jobs": written}))
    if progress is not None:
        progress(written)
    return written


def _one_moment(reader: Reader) -> AbstractContextManager[Reader]:
    return reader.snapshot() if isinstance(reader, JobStore) else nullcontext(reader)


# --- In --------------------------------------------------------------------


class Loaded(NamedTuple):
    """What a load has done."""

    loaded: int
    """Jobs whose ids were not taken."""
    skipped: int
    """Jobs of the dump that were left out: their ids were taken."""
    replaced: int
    """Stored jobs that gave way to those of the dump."""


def load(
    store: JobStore,
    stream: Source,
    progress: Progress | None = None,
    on_conflict: OnConflict = "error",
) -> Loaded:
    """Stores every job of a dump, whichever its form, and returns what it did.

    Jobs come back as they were, under their ids. One that was started is queued,
    with the attempt and the claim number it had: whoever held it in the old
    store holds nothing in this one. An id that is taken, also by an earlier job of the
    dump, is an error, or its job is skipped, or takes the place of what is stored: who
    holds that then has lost its claim. Memory is bounded by a batch of jobs.

    Stops at the first job that cannot be loaded: `DecodeError` where its bytes
    are no job, `JobExistsError` where its id is taken (of "error"), `DuplicateJobError`
    where its unique key is, `EncodeError` or `TooLargeError` where this store does not
    carry it. All before it is done then; the message names the line or item, and says how
    many jobs that were.
    """
    counted = _Counted(stream)
    loading = _Loading(store, progress, on_conflict)
    failure: DecodeError | None = None
    buffered: io.BufferedReader = io.BufferedReader(counted, _BUFFER)
    with buffered:
        try:
            for where, job in _jobs(buffered):
                loading.add(where, job)
                if counted.bytes > _BATCH_BYTES:
                    loading.flush()
                    counted.bytes = 0
        except DecodeError as error:
            failure = error
    loading.flush()
    if failure is not None:
        raise loading.explained(failure)
    return loading.result


class _Counted(io.RawIOBase):
    """Passes bytes on and counts them: `bytes` may be set back."""

    def __init__(self, stream: Source) -> None:
        self._stream = stream
        self.bytes = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        size = self._stream.readinto(buffer)
        self.bytes += size or 0
        return size


class _Loading:
    """Jobs on their way into a store, a batch at a time."""

    def __init__(self, store: JobStore, progress: Progress | None, on_conflict: OnConflict) -> None:
        self._store = store
        self._progress = progress
        self._on_conflict = on_conflict
        self._pending: list[tuple[str, Job]] = []
        self.result = Loaded(0, 0, 0)

    def add(self, where: str, job: Job) -> None:
        self._pending.append((where, job))
        if len(self._pending) == _BATCH:
            self.flush()

    def flush(self) -> None:
        pending, self._pending = self._pending, []
        if not pending:
            return
        try:
            self._restore([job for _, job in pending])
        except (JobError, CodecError):
            self._one_by_one(pending)
        except QuelmdbError as error:
            raise self.explained(error) from None
        if self._progress is not None:
            self._progress(sum(self.result))

    def _restore(self, jobs: list[Job]) -> None:
        """Stores all of them, or raises and stores none."""
        taken = self._count_taken(jobs) if self._on_conflict == "replace" else 0
        stored = len(self._store.restore(jobs, self._on_conflict))
        loaded, skipped, replaced = self.result
        self.result = Loaded(
            loaded + stored - taken, skipped + len(jobs) - stored, replaced + taken
        )

    def _count_taken(self, jobs: list[Job]) -> int:
        """How many of them stand under ids that are taken, also by earlier ones. Beside
        writers it is a moment old when they are replaced."""
        seen: set[int | None] = set()
        taken = 0
        for job in jobs:
            taken += job.id in seen or self._is_stored(job)
            seen.add(job.id)
        return taken

    def _is_stored(self, job: Job) -> bool:
        try:
            return self._store.find(job) is not None
        except CorruptRecordError:
            return True

    def _one_by_one(self, jobs: list[tuple[str, Job]]) -> None:
        for where, job in jobs:
            try:
                self._restore([job])
            except QuelmdbError as error:
                raise self.explained(error, f"{where}: ") from None

    def explained(self, error: QuelmdbError, where: str = "") -> QuelmdbError:
        loaded, skipped, replaced = self.result
        others = f", skipped: {skipped:,}" if skipped else ""
        others += f", replaced: {replaced:,}" if replaced else ""
        error.args = (f"{where}{error} (jobs loaded before it: {loaded:,}{others})",)
        return error


def _jobs(stream: io.BufferedReader) -> Iterator[tuple[str, Job]]:
    """The jobs, each with the place where it stands."""
    first = stream.peek(1)[:1]
    if first == codec.SEQUENCE_START[:1]:
        unit, values = "item", codec.decode_sequence(stream)
    elif first == b"{":
        unit, values = "line", map(markedjson.loads, stream)
    else:
        raise DecodeError(
            f"this is no dump: it begins with {first!r}, where one has CBOR's tag or '{{'"
            if first
            else "this is no dump: it is empty"
        )
    for number in count(1):
        where = f"{unit} {number}"
        try:
            value = next(values, _END)
            if number == 1:
                _check_header(value)
                continue
            if _is_end(value, number - 2):
                # Two dumps in one stream, say: half of it would be lost, and nobody told.
                if stream.peek(1):
                    raise DecodeError("there is more behind the end of the dump: load one a time")
                return
            job = _job_of(value)
        except UnsupportedFormatError:
            raise
        except (CodecError, JobError) as error:
            raise DecodeError(f"{where}: {error}") from None
        yield where, job


_END: Final = object()


def _is_end(value: object, jobs: int) -> bool:
    """Whether it closes a dump of so many jobs. Raises where the dump was cut."""
    if value is _END:
        raise DecodeError(
            "the dump was cut off here: the end that says how many jobs it has is missing"
        )
    if not isinstance(value, dict) or value.get("quelmdb") != "end":
        return False
    if value.get("jobs") != jobs:
        raise DecodeError(f"the dump has {jobs} jobs, and its end says {shown(value.get('jobs'))}")
    return True


def _check_header(value: object) -> None:
    if not isinstance(value, dict) or value.get("quelmdb") != "dump":
        raise DecodeError("this is no dump of quelmdb: its header is missing")
    version = value.get("version")
    if version != VERSION:
        raise UnsupportedFormatError(
            f"the dump has version {shown(version)}, and this quelmdb reads version {VERSION}",
            expected=VERSION,
            found=version,
        )


def _job_of(value: object) -> Job:
    if not isinstance(value, dict):
        raise DecodeError(f"a job is a map, not {type(value).__name__}")
    unknown = value.keys() - set(FIELDS)
    if unknown:
        raise DecodeError(f"a job has no field {min(map(repr, unknown))}")
    missing = {"id", "status"} - value.keys()
    if missing:
        raise DecodeError(f"the job has no {min(missing)}")
    for name in _TIMES:
        if isinstance(value.get(name), str):
            value[name] = _time(value[name])
    if value["status"] == Status.STARTED:
        value["status"] = Status.QUEUED
    return Job(**value)


def _time(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise DecodeError(f"{text!r} is no time in ISO 8601") from None
