"""Plain jobs that are claimed or completed, many at a time: the path of a busy runner.

Plain are jobs that have no entry among the options, and of which nothing stands outside of their
records. All that is done for each of them alone is done here for lists of them, which takes half
the time. Those that are not plain, or not as they should be, are left to `moves`, which looks at
each by itself and tells its error.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Final, NamedTuple

from quelmdb import by_option, index
from quelmdb.engine import put_all
from quelmdb.errors import DecodeError
from quelmdb.extras import glance, with_outcome
from quelmdb.job import Job
from quelmdb.layout import (
    RARE,
    RECORD_VERSION,
    STATUS_CODES,
    Header,
    arguments_of,
    bodies_of,
    extras_of,
    pack_records,
    unpack_records,
)
from quelmdb.records import Content, plain_jobs
from quelmdb.status import Status
from quelmdb.values import MAX_ATTEMPT
from quelmdb.writer import Writer

Found = Sequence[tuple[int, bytes, bytes | None]]
"""Id, key and record of each, as `Writer.records` returns them."""

_QUEUED: Final = STATUS_CODES[Status.QUEUED]
_STARTED: Final = STATUS_CODES[Status.STARTED]
_COMPLETED: Final = STATUS_CODES[Status.COMPLETED]
_FEWEST: Final = 2  # below it the lists cost more than they save


class Plain(NamedTuple):
    """Records that are plain, and what they say."""

    ids: Sequence[int]
    keys: Sequence[bytes]
    records: Sequence[bytes]
    headers: Sequence[Header]
    places: Sequence[int]
    """Where each stands among all that were found."""


def plain_among(writer: Writer, found: Found, status: Status) -> Plain | None:
    """Those of what was found that are plain and have that status; None where they are too few
    for lists, or somebody wants to be told of each."""
    if len(found) < _FEWEST or writer.events is not None or writer.new_names:
        return None
    ids, keys, stored = zip(*found, strict=True)
    if None in stored or len(set(ids)) < len(ids):
        return None
    headers = unpack_records(keys, stored)
    if headers is None:
        return None
    known, code = writer.known_workers, STATUS_CODES[status]
    places = [
        place
        for place, header in enumerate(headers)
        if header[1] == code
        and header[4] in known
        and (not header[2] or (header[2] == RARE and _has_no_entry(stored[place], header[6])))
    ]
    if len(places) < _FEWEST:
        return None
    if len(places) == len(found):
        return Plain(ids, keys, stored, headers, places)
    chosen = itemgetter(*places)
    return Plain(chosen(ids), chosen(keys), chosen(stored), chosen(headers), places)


def start_all(writer: Writer, plain: Plain, claim: int) -> list[Job]:
    """Claims queued jobs, each under the number `claim` + its place."""
    owner, now = writer.owner(), writer.now
    headers = [
        (
            RECORD_VERSION,
            _STARTED,
            flags,
            attempt + 1 if attempt < MAX_ATTEMPT else attempt,
            worker,
            owner,
            length,
            created,
            now,
            claim + place,
        )
        for place, (_, _, flags, attempt, worker, _, length, created, _, _) in zip(
            plain.places, plain.headers, strict=True
        )
    ]
    return _put(writer, plain, _QUEUED, _STARTED, headers, bodies_of(plain.records))


def complete_all(
    writer: Writer, plain: Plain, claims: Sequence[int], outcomes: Sequence[Content]
) -> list[Job] | None:
    """Completes started jobs; `claims` and `outcomes` are those of all that were found. None,
    and nothing is changed, where one is not held under its claim, or has a result that is too
    big for its record."""
    headers: list[Header] = []
    bodies: list[bytes] = []
    now = writer.now
    for place, header, record, arguments in zip(
        plain.places, plain.headers, plain.records, arguments_of(plain.records), strict=True
    ):
        _, _, flags, attempt, worker, _, length, created, _, claim = header
        too_big, _, extras, _ = outcomes[place]
        if claim != claims[place] or too_big:
            return None
        if flags:
            merged = with_outcome(extras_of(record, length), extras)
            if merged is None:
                return None
            flags, extras = merged
        headers.append(
            (RECORD_VERSION, _COMPLETED, flags, attempt, worker, 0, length, created, now, claim)
        )
        bodies.append(arguments + extras)
    return _put(writer, plain, _STARTED, _COMPLETED, headers, bodies)


def _has_no_entry(record: bytes, length: int) -> bool:
    """Whether the options of a record can be read, and ask for no entry."""
    try:
        return by_option.has_none(glance(extras_of(record, length))[0])
    except DecodeError:
        return False


def _put(
    writer: Writer,
    plain: Plain,
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


def merged(plain: Plain, jobs: Sequence[Job], others: Iterable[tuple[int, Job]]) -> list[Job]:
    """The plain jobs, and others with their places, in the order in which they were found."""
    placed = [*zip(plain.places, jobs, strict=True), *others]
    return [job for _, job in sorted(placed, key=itemgetter(0))]
