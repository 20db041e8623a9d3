"""Jobs as they are stored: what a record and its payloads make of a job, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from quelmdb.codec import Codec, decode, decode_all
from quelmdb.engine import Databases, Transaction, append_new
from quelmdb.errors import CorruptRecordError, DecodeError
from quelmdb.extras import (
    FLAG_OF,
    PART_OF,
    Outside,
    decoded_failures,
    decoded_options,
    decoded_outcome,
    glance,
    outcome_of,
    packed,
    rare_of,
    unpacked,
)
from quelmdb.job import Decode, Decoded, Job, stored_job
from quelmdb.layout import STATUSES, Damaged, unpack_number, unpack_numbers
from quelmdb.names import Names
from quelmdb.options import PLAIN
from quelmdb.recordlayout import (
    ARGUMENTS,
    ARGUMENTS_OUTSIDE,
    ERROR,
    ERROR_OUTSIDE,
    FAILURES,
    FAILURES_OUTSIDE,
    FRAME_BYTES,
    INLINE_ARGUMENTS,
    RARE,
    RESULT,
    RESULT_OUTSIDE,
    Header,
    arguments_of,
    chunks,
    extras_of,
    fits_reference,
    flags_of,
    pack_reference,
    payload_key,
    split_body,
    split_payload_key,
    unpack_record,
    unpack_records,
)

OUTSIDE: Final = ARGUMENTS_OUTSIDE | RESULT_OUTSIDE | ERROR_OUTSIDE | FAILURES_OUTSIDE
_FLAGS: Final = 2  # among the fields of the header
_WORKER: Final = 4
_RUN: Final = 64  # records that are decoded at once: who keeps one of the jobs keeps all of them
_new: Final = object.__new__
_NOTHING: Final = object()
_PART_NAMES: Final = {
    ARGUMENTS: "arguments",
    RESULT: "result",
    ERROR: "error",
    FAILURES: "failures",
}

Content = tuple[int, bytes, bytes, Outside]
"""What is variable in a record: flags, arguments and extras as they stand in it, and
what stands outside. A plain tuple, since one is made for every job that is inserted."""


def encode_content(codec: Codec, job: Job) -> Content:
    """All that is variable in a job. Raises `EncodeError`, `TooLargeError`."""
    arguments = codec.encode(job.arguments)
    if (
        len(arguments) <= INLINE_ARGUMENTS
        and job._result is None  # the slots, since `job.arguments` has filled them
        and job._error is None
        and job._options is PLAIN
        and not job._failures
    ):
        return 0, arguments, b"", ()
    argument_flags, arguments, outside = _inline_or_outside(arguments)
    extras = outcome_of(codec, job._result, job._error) | rare_of(job._options, job._failures)
    flags, inside, extras_outside = packed(extras)
    return argument_flags | flags, arguments, inside, outside + extras_outside


def encode_outcome(codec: Codec, result: Any, error: str | None) -> Content:
    """Result and error alone, to be put behind arguments that are stored already."""
    flags, inside, outside = packed(outcome_of(codec, result, error))
    return flags, b"", inside, outside


def _inline_or_outside(arguments: bytes) -> tuple[int, bytes, Outside]:
    if len(arguments) <= INLINE_ARGUMENTS:
        return 0, arguments, ()
    return ARGUMENTS_OUTSIDE, pack_reference(arguments), ((ARGUMENTS, arguments),)


def read_job(
    transaction: Transaction, databases: Databases, names: Names, key: bytes, record: bytes
) -> Job:
    """The job under a key, with what stands outside of its record.

    Raises `CorruptRecordError` where the record, or what it refers to, is damaged.
    """
    try:
        header = unpack_record(key, record)
        number = header[_WORKER]
        known = names.known
        worker = known[number] if number in known else names.name(transaction, number)
        return job_of(transaction, databases, worker, key, header, record)
    except ValueError as error:
        raise corrupt_record(unpack_number(key), error) from None


def read_jobs(
    transaction: Transaction,
    databases: Databases,
    names: Names,
    found: Sequence[tuple[bytes, bytes]],
    room: int,
    report: Callable[[CorruptRecordError], None],
) -> tuple[list[Job], int | None]:
    """The jobs of keys and records, until what stands outside of them has more than
    `room` bytes; and the id of the last one that was read where that is not the last.

    `report` is told of corrupt ones, and of keys whose record is empty because there
    is none, which are left out.
    """
    jobs: list[Job] = []
    for start in range(0, len(found), _RUN):
        some = found[start : start + _RUN]
        run = _inline_jobs(names, some)
        if run is not None:
            jobs += run
            continue
        for key, record in some:
            try:
                job = read_job(transaction, databases, names, key, record)
            except CorruptRecordError as error:
                report(error)
                continue
            jobs.append(job)
            room -= _size_outside(job)
            if room < 0 and key is not found[-1][0]:
                return jobs, job._id
    return jobs, None


def _inline_jobs(names: Names, found: Sequence[tuple[bytes, bytes]]) -> list[Job] | None:
    """The jobs of a few keys and records that are all intact, have nothing outside of
    them and workers that are known; else None, for those who look at each alone."""
    keys, records = zip(*found, strict=True)
    headers = unpack_records(keys, records)
    if headers is None:
        return None
    known = names.known
    for header in headers:
        if header[_FLAGS] & ~RARE or header[_WORKER] not in known:
            return None
    try:
        return plain_jobs(known, unpack_numbers(b"".join(keys)), records, headers)
    except DecodeError:
        return None


def plain_jobs(
    known: Mapping[int, str | None],
    ids: Sequence[int],
    records: Sequence[bytes],
    headers: Sequence[Header],
) -> list[Job]:
    """The jobs of intact records of which nothing stands outside, whose workers are `known`.
    Raises `DecodeError` where their options are none."""
    plain: list[bytes] = []
    decode_plain = _Run(plain).decode  # one for all: to look it up makes a new one
    jobs: list[Job] = []
    for job_id, record, header in zip(ids, records, headers, strict=True):
        _, status, flags, attempt, worker, owner, length, created, updated, claim = header
        job: Job = _new(Job)  # as `stored_job`, the call of which takes a fifth of the time
        job._id = job_id
        job._worker = known[worker]
        job._status = STATUSES[status]
        job._created_at = created
        job._updated_at = updated
        job._attempt = attempt
        job._claim = claim
        job._owner = owner
        job._record = record
        job._options = PLAIN
        has_outcome = False
        if len(record) > FRAME_BYTES + length:
            has_outcome = True
            if flags:
                job._options, is_bare = glance(extras_of(record, length))
                has_outcome = not is_bare
        if has_outcome:
            job._decode = _decode_inline
        else:
            plain.append(record)
            job._decode = decode_plain
        jobs.append(job)
    return jobs


class _Run:
    """Records of a listing that have arguments alone, each of which a job holds until
    somebody looks at them.

    The first one is decoded alone; with the second it looks like a loop over all of
    them, which are decoded at once then: that takes half the time.
    """

    __slots__ = ("_ahead", "_begun", "_records")

    def __init__(self, records: Sequence[bytes]) -> None:
        self._records = records
        self._begun = False
        self._ahead: dict[bytes, Any] = {}  # arguments by record, each for one job

    def decode(self, record: bytes) -> Decoded:
        """What one of the records has. Raises `DecodeError`."""
        if self._begun and self._records:
            records, self._records = self._records, ()
            arguments = decode_all(arguments_of(records))
            if arguments is not None:
                self._ahead = dict(zip(records, arguments, strict=True))
        self._begun = True
        value = self._ahead.pop(record, _NOTHING)
        return _decode_inline(record) if value is _NOTHING else (value, None, None, ())


def job_of(
    transaction: Transaction,
    databases: Databases,
    worker: str | None,
    key: bytes,
    header: Header,
    record: bytes,
) -> Job:
    """The job of an intact record. Raises `Damaged` where its payloads are damaged."""
    _, status, flags, attempt, _, owner, _, created, updated, claim = header
    decoding: Decode = _decode_inline
    options = PLAIN
    if flags & OUTSIDE:
        decoding = partial(_decode, _outside(transaction, databases, key, record))
    if flags & RARE:
        options = decoded_options(unpacked(split_body(record)[1]))
    return stored_job(
        unpack_number(key),
        worker,
        STATUSES[status],
        created,
        updated,
        attempt,
        claim,
        owner,
        record,
        decoding,
        options,
    )


def decoder(outside: Outside) -> Decode:
    """What decodes a record that was just made, with what was put outside of it."""
    return partial(_decode, dict(outside)) if outside else _decode_inline


def corrupt_record(job_id: int, reason: object) -> CorruptRecordError:
    """The error for a record that is none."""
    return CorruptRecordError(
        f"job {job_id} is corrupt: {reason}; `quelmdb check` lists all such jobs", job_id=job_id
    )


def stored_parts(transaction: Transaction, databases: Databases, job_id: int) -> dict[int, bytes]:
    """What stands in `payloads` for a job, by part. O(its size)."""
    parts: dict[int, list[bytes]] = {}
    with transaction.cursor(databases.payloads) as cursor:
        if cursor.set_range(payload_key(job_id, 0)):
            for key, chunk in cursor:
                owner, part, _ = split_payload_key(key)
                if owner != job_id:
                    break
                parts.setdefault(part, []).append(chunk)
    return {part: b"".join(pieces) for part, pieces in parts.items()}


def put_parts(
    transaction: Transaction, databases: Databases, job_id: int, outside: Outside
) -> None:
    """Writes what stands outside of a record."""
    for part, data in outside:
        with transaction.cursor(databases.payloads) as cursor:
            cursor.putmulti(list(chunks(job_id, part, data)))


def append_parts(
    transaction: Transaction, databases: Databases, job_id: int, outside: Outside
) -> None:
    """As `put_parts`, for the largest id of all. Pages are filled: in the middle they
    are split for every chunk, and stay half empty."""
    for part, data in outside:
        append_new(transaction, databases.payloads, list(chunks(job_id, part, data)))


def delete_parts(transaction: Transaction, databases: Databases, job_id: int, *parts: int) -> None:
    """Deletes these parts of a job. O(their chunks)."""
    for part in parts:
        prefix = payload_key(job_id, part)[:-4]
        with transaction.cursor(databases.payloads) as cursor:
            found = cursor.set_range(payload_key(job_id, part))
            while found and cursor.key().startswith(prefix):
                found = cursor.delete() and bool(cursor.key())


def _outside(
    transaction: Transaction, databases: Databases, key: bytes, record: bytes
) -> dict[int, bytes]:
    """The verified content of every part that stands outside of an intact record."""
    parts = stored_parts(transaction, databases, unpack_number(key))
    for part, reference in references(record).items():
        if not fits_reference(reference, parts.get(part, b"")):
            raise Damaged(f"its {_PART_NAMES[part]}, outside of the record, are damaged")
    return parts


def references(record: bytes) -> dict[int, bytes]:
    """The references of an intact record, by part. Raises `DecodeError` for a bad map."""
    flags = flags_of(record)
    arguments, inside = split_body(record)
    found = {ARGUMENTS: arguments} if flags & ARGUMENTS_OUTSIDE else {}
    if flags & (OUTSIDE & ~ARGUMENTS_OUTSIDE):
        extras = unpacked(inside)
        for name, part in PART_OF.items():
            if flags & FLAG_OF[name]:
                found[part] = extras.get(name, b"")
    return found


def _decode_inline(record: bytes) -> Decoded:
    arguments, inside = split_body(record)
    if not inside:
        return decode(arguments), None, None, ()
    extras = unpacked(inside)
    return decode(arguments), *decoded_outcome(extras), decoded_failures(extras)


def _decode(outside: dict[int, bytes], record: bytes) -> Decoded:
    arguments, inside = split_body(record)
    extras = unpacked(inside)
    for name, part in PART_OF.items():
        if part in outside:
            extras[name] = outside[part]
    arguments = outside.get(ARGUMENTS, arguments)
    return decode(arguments), *decoded_outcome(extras), decoded_failures(extras)


def _size_outside(job: Job) -> int:
    """The bytes that a job which was just read has in memory beside its record."""
    return sum(map(len, job._decode.args[0].values())) if isinstance(job._decode, partial) else 0
