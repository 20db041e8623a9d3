"""Plain jobs that are claimed or completed, many at a time: the path of a busy runner.

Plain are jobs without options, of which nothing stands outside of their records. All that is
done for each of them alone is done here for lists of them, which takes half the time. Where one
is not plain, or not as it should be, nothing is changed, and each is looked at by itself
(`moves`), where its error is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from quelmdb import index
from quelmdb.engine import put_all
from quelmdb.job import Job
from quelmdb.layout import (
    NEXT_CLAIM,
    RECORD_VERSION,
    STATUS_CODES,
    Header,
    arguments_of,
    bodies_of,
    pack_records,
    unpack_records,
)
from quelmdb.records import Content, plain_jobs
from quelmdb.status import Status
from quelmdb.values import MAX_ATTEMPT, MAX_ID
from quelmdb.writer import Writer

Found = Sequence[tuple[int, bytes, bytes | None]]
"""Id, key and record of each, as `Writer.records` returns them."""

_QUEUED: Final = STATUS_CODES[Status.QUEUED]
_STARTED: Final = STATUS_CODES[Status.STARTED]
_COMPLETED: Final = STATUS_CODES[Status.COMPLETED]
_FEWEST: Final = 2  # below it the lists cost more than they save


class _Plain(NamedTuple):
    ids: Sequence[int]
    keys: Sequence[bytes]
    records: Sequence[bytes]
    headers: Sequence[Header]


def start_all(writer: Writer, found: Found) -> list[Job] | None:
    """Claims queued jobs; None, and nothing is changed, where one of them is not plain, is
    not queued, or is there twice."""
    plain = _plain(writer, found, _QUEUED)
    if plain is None:
        return None
    owner, now = writer.owner(), writer.now
    claim = writer.counters.next(NEXT_CLAIM, MAX_ID, len(found))
    headers = [
        (
            RECORD_VERSION,
            _STARTED,
            0,
            attempt + 1 if attempt < MAX_ATTEMPT else attempt,
            worker,
            owner,
            length,
            created,
            now,
            number,
        )
        for number, (_, _, _, attempt, worker, _, length, created, _, _) in enumerate(
            plain.headers, claim
        )
    ]
    return _put(writer, plain, _QUEUED, _STARTED, headers, bodies_of(plain.records))


def complete_all(
    writer: Writer, found: Found, claims: Sequence[int], outcomes: Sequence[Content]
) -> list[Job] | None:
    """Completes started jobs, each under its claim and with its outcome; None, and nothing is
    changed, where one of them is not plain, has a result that is too big for its record, or is
    not held under that claim."""
    if any(flags for flags, _, _, _ in outcomes):
        return None
    plain = _plain(writer, found, _STARTED)
    if plain is None or [header[-1] for header in plain.headers] != list(claims):
        return None
    now = writer.now
    headers = [
        (RECORD_VERSION, _COMPLETED, 0, attempt, worker, 0, length, created, now, claim)
        for _, _, _, attempt, worker, _, length, created, _, claim in plain.headers
    ]
    bodies = [
        arguments + extras
        for arguments, (_, _, extras, _) in zip(arguments_of(plain.records), outcomes, strict=True)
    ]
    return _put(writer, plain, _STARTED, _COMPLETED, headers, bodies)


def _plain(writer: Writer, found: Found, status: int) -> _Plain | None:
    if len(found) < _FEWEST or writer.events is not None or writer.new_names:
        return None
    ids, keys, stored = zip(*found, strict=True)
    records = [record for record in stored if record is not None]
    if len(records) < len(ids) or len(set(ids)) < len(ids):
        return None
    headers = unpack_records(keys, records)
    known = writer.known_workers
    if headers is None or not all(
        header[1] == status and header[2] == 0 and header[4] in known for header in headers
    ):
        return None
    return _Plain(ids, keys, records, headers)


def _put(
    writer: Writer,
    plain: _Plain,
    was: int,
    status: int,
    headers: Sequence[Header],
    bodies: Sequence[bytes],
) -> list[Job]:
    writer.touched = True
    transaction, databases = writer.transaction, writer.databases
    keys, records = plain.keys, pack_records(plain.keys, headers, bodies)
    workers = [header[4] for header in headers]
    index.move_alike(transaction, databases, keys, workers, was, status)
    put_all(transaction, databases.jobs, list(zip(keys, records, strict=True)))
    return plain_jobs(writer.known_workers, plain.ids, records, headers)
