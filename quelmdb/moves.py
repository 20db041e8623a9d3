"""Jobs that change their status: claimed, ended, released, rescued, cancelled.

Their arguments stay where they are. Several are put together: one call of LMDB for
each database is quicker than one for each job.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import Final, NamedTuple

from quelmdb import by_option, index
from quelmdb.engine import put_all
from quelmdb.extras import (
    FLAG_OF,
    PART_OF,
    Extras,
    decoded_failures,
    packed,
    rare_of,
    unpacked,
)
from quelmdb.job import Job
from quelmdb.layout import STATUS_CODES
from quelmdb.options import MAX_FAILURES, PLAIN, Failure, Options
from quelmdb.recordlayout import (
    ARGUMENTS_OUTSIDE,
    CANCEL_REQUESTED,
    ERROR_OUTSIDE,
    EXTRA_ERROR,
    EXTRA_OPTIONS,
    EXTRA_RESULT,
    FAILURES_OUTSIDE,
    RARE,
    RECORD_VERSION,
    RESULT_OUTSIDE,
    body_of,
    pack_record,
    split_body,
)
from quelmdb.records import OUTSIDE, Content, corrupt_record, delete_parts, put_parts, stored_parts
from quelmdb.status import Status
from quelmdb.stored import Stored, parts_of
from quelmdb.writer import AWAKENING, Writer

_EXTRAS_OUTSIDE: Final = RESULT_OUTSIDE | ERROR_OUTSIDE | FAILURES_OUTSIDE


class Move(NamedTuple):
    """A job that is ready to be put."""

    job: Job
    """As it is stored afterwards."""
    stored: Stored
    record: bytes
    status: int


class Change(NamedTuple):
    """What changes behind the arguments of a job that has, or gets, more than an outcome."""

    outcome: Extras | None = None
    """Result and error; None: they stay."""
    options: Options | None = None
    """None: they stay."""
    failure: Failure | None = None
    """To be put behind the others."""
    others: Extras | None = None
    """Put in the place of what has these names."""


def prepare(
    writer: Writer,
    stored: Stored,
    status: Status,
    attempt: int,
    owner: int,
    claim: int,
    outcome: Content | None = None,
) -> Move:
    """The move of a stored job to another status [with another result and error, whose
    parts that stand outside of the record are put at once].

    Raises `CorruptRecordError` before anything is changed.
    """
    flags = stored.flags & ~CANCEL_REQUESTED
    if flags & RARE:
        change = Change() if outcome is None else Change(outcome_in(outcome))
        return prepare_rare(writer, stored, status, attempt, owner, claim, change)
    if outcome is None:
        body = body_of(stored.record)
    else:
        outcome_flags, _, extras, outside = outcome
        body = split_body(stored.record)[0] + extras
        if outside or flags & ~ARGUMENTS_OUTSIDE:
            writer.touched = True
            outdated = parts_of(flags & ~ARGUMENTS_OUTSIDE)
            delete_parts(writer.transaction, writer.databases, stored.id, *outdated)
            put_parts(writer.transaction, writer.databases, stored.id, outside)
        flags = (flags & ARGUMENTS_OUTSIDE) | outcome_flags
    worker = writer.name_of(stored)
    return _made(writer, stored, worker, status, flags, attempt, owner, claim, body)


def prepare_rare(
    writer: Writer,
    stored: Stored,
    status: Status,
    attempt: int,
    owner: int,
    claim: int,
    change: Change,
    requested: int = 0,
) -> Move:
    """The same of a job that has options or failures, or gets some. Its entries among the
    options, and its parts outside of the record, are changed at once.

    `requested` is the flag of a cancellation that is asked for, or 0.
    """
    if stored.flags & OUTSIDE:
        writer.read(stored)  # raises where any of it is damaged
    worker = writer.name_of(stored)
    had, options = stored.options, change.options
    options = had if options is None else options
    extras = _changed(writer, stored, change)
    flags, inside, outside = packed(extras)
    code = STATUS_CODES[status]
    writer.touched = True
    left = by_option.entries(stored.id, stored.worker, stored.code, had)
    entered = by_option.entries(stored.id, stored.worker, code, options)
    by_option.replace(writer.transaction, writer.databases, left, entered)
    outdated = parts_of(stored.flags & ~ARGUMENTS_OUTSIDE)
    delete_parts(writer.transaction, writer.databases, stored.id, *outdated)
    put_parts(writer.transaction, writer.databases, stored.id, outside)
    flags |= (stored.flags & ARGUMENTS_OUTSIDE) | requested
    body = split_body(stored.record)[0] + inside
    return _made(writer, stored, worker, status, flags, attempt, owner, claim, body)


def outcome_in(content: Content) -> Extras:
    """The whole result and error of what was encoded for a record."""
    _, _, inside, outside = content
    extras = unpacked(inside)
    parts = dict(outside)
    return {name: parts.get(PART_OF.get(name, -1), value) for name, value in extras.items()}


def move(writer: Writer, prepared: Move) -> Job:
    """Puts one."""
    job, stored, record, status = prepared
    writer.touched = True
    transaction, databases = writer.transaction, writer.databases
    if status != stored.code:
        index.move(transaction, databases, stored.key, stored.worker, stored.code, status)
    transaction.put(stored.key, record, db=databases.jobs)
    return job


def move_all(writer: Writer, prepared: Sequence[Move]) -> list[Job]:
    """Puts several; no job is among them twice."""
    if len(prepared) < 2:
        return [move(writer, one) for one in prepared]
    writer.touched = True
    transaction, databases = writer.transaction, writer.databases
    entries = [(was.key, was.worker, was.code, status) for _, was, _, status in prepared]
    index.move_all(transaction, databases, entries)
    put_all(transaction, databases.jobs, [(was.key, record) for _, was, record, _ in prepared])
    return [job for job, _, _, _ in prepared]


def move_rest(writer: Writer, done: dict[int, Job], others: dict[int, Move]) -> list[Job]:
    """Puts `others`, and returns them and what is `done` already, by their places."""
    if not others:
        return list(done.values())
    moved = zip(others, move_all(writer, list(others.values())), strict=True)
    return [job for _, job in sorted([*done.items(), *moved], key=itemgetter(0))]


def _made(
    writer: Writer,
    stored: Stored,
    name: str | None,
    status: Status,
    flags: int,
    attempt: int,
    owner: int,
    claim: int,
    body: bytes,
) -> Move:
    code = STATUS_CODES[status]
    if code in AWAKENING:
        writer.awakens = True
    worker, length, created, now = (
        stored.worker,
        stored.arguments_length,
        stored.created_at,
        writer.now,
    )
    header = (RECORD_VERSION, code, flags, attempt, worker, owner, length, created, now, claim)
    record = pack_record(stored.key, header, body)
    job = writer.job(name, stored.key, header, record)
    return Move(job, stored, record, code)


def _changed(writer: Writer, stored: Stored, change: Change) -> Extras:
    """All that is to stand behind its arguments, whole. Raises `CorruptRecordError`."""
    extras = stored.extras
    if stored.flags & _EXTRAS_OUTSIDE:
        parts = stored_parts(writer.transaction, writer.databases, stored.id)
        for name, flag in FLAG_OF.items():
            if stored.flags & flag:
                extras[name] = parts.get(PART_OF[name], b"")
    if change.outcome is not None:
        extras.pop(EXTRA_RESULT, None)
        extras.pop(EXTRA_ERROR, None)
        extras |= change.outcome
    if change.options is not None:
        extras.pop(EXTRA_OPTIONS, None)
        extras |= rare_of(change.options, ())
    if change.failure is not None:
        try:
            failures = decoded_failures(extras)
        except ValueError as error:
            raise corrupt_record(stored.id, error) from None
        extras |= rare_of(PLAIN, (*failures, change.failure)[-MAX_FAILURES:])
    return extras | (change.others or {})
