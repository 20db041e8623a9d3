"""Jobs that change their status: claimed, ended, released, rescued.

Their arguments stay where they are. Several are put together: one call of LMDB for
each database is quicker than one for each job.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from quelmdb import index
from quelmdb.engine import put_all
from quelmdb.job import Job, Status
from quelmdb.layout import (
    ARGUMENTS_OUTSIDE,
    RECORD_VERSION,
    STATUS_CODES,
    body_of,
    pack_record,
    split_body,
)
from quelmdb.records import Content, delete_parts, put_parts
from quelmdb.writer import Stored, Writer, parts_of


class Move(NamedTuple):
    """A job that is ready to be put."""

    job: Job
    """As it is stored afterwards."""
    stored: Stored
    record: bytes
    status: int


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

    Raises `CorruptRecordError`; where no outcome is given before anything is changed.
    """
    flags, code = stored.flags, STATUS_CODES[status]
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
    worker, length, created, now = (
        stored.worker,
        stored.arguments_length,
        stored.created_at,
        writer.now,
    )
    header = (RECORD_VERSION, code, flags, attempt, worker, owner, length, created, now, claim)
    record = pack_record(stored.key, header, body)
    job = writer.job(writer.name_of(stored), stored.key, header, record)
    return Move(job, stored, record, code)


def move(writer: Writer, prepared: Move) -> Job:
    """Puts one."""
    job, stored, record, status = prepared
    writer.touched = True
    transaction, databases = writer.transaction, writer.databases
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
