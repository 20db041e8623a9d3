"""Plain jobs that are claimed or completed, many at a time: the path of a busy runner.

Plain are jobs that have no entry among the options, and of which nothing stands outside of their
records. All that is done for each of them alone is done here for lists of them, which takes half
the time. Those that are not plain, or not as they should be, are left to `moves`, which looks at
each by itself and tells its error.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import Final, NamedTuple

from quelmdb import by_option, index
from quelmdb.engine import put_all
from quelmdb.errors import DecodeError
from quelmdb.extras import glance, with_outcome
from quelmdb.job import Job
from quelmdb.layout import STATUS_CODES
from quelmdb.recordlayout import (
    RARE,
    RECORD_VERSION,
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


class _Plain(NamedTuple):
    """Records that are plain, and what they say."""

    ids: Sequence[int]
    keys: Sequence[bytes]
    records: Sequence[bytes]
    headers: Sequence[Header]
    places: Sequence[int]
    """Where each stands among all that were found."""


def _plain_among(writer: Writer, found: Found, status: Status) -> _Plain | None:
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
        return _Plain(ids, keys, stored, headers, places)
    chosen = itemgetter(*places)
    return _Plain(chosen(ids), chosen(keys), chosen(stored), chosen(headers), places)


def start_all(writer: Writer, found: Found, claim: int) -> dict[int, Job]:
    """Claims those of the queued jobs that were found which are plain, each under the number
    `claim` + its place; returns them by their places."""
    plain = _plain_among(writer, found, Status.QUEUED)
    if plain is None:
        return {}
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
    writer: Writer, found: Found, claims: Sequence[int], outcomes: Sequence[Content]
) -> dict[int, Job]:
    """Completes those of the started jobs that were found which are plain; returns them by
    their places. None of them, where one is not held under its claim, or has a result that is
    too big for its record."""
    plain = _plain_among(writer, found, Status.STARTED)
    if plain is None:
        return {}
    headers: list[Header] = []
    bodies: list[bytes] = []
    now = writer.now
    for place, header, record, arguments in zip(
        plain.places, plain.headers, plain.records, arguments_of(plain.records), strict=True
    ):
        _, _, flags, attempt, worker, _, length, created, _, claim = header
        too_big, _, extras, _ = outcomes[place]
        if claim != claims[place] or too_big:
            return {}
        if flags:
            merged = with_outcome(extras_of(record, length), extras)
            if merged is None:
                return {}
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
    plain: _Plain,
    was: int,
    status: int,
    headers: Sequence[Header],
    bodies: Sequence[bytes],
) -> dict[int, Job]:
    writer.touched = True
    transaction, databases = writer.transaction, writer.databases
    keys, records = plain.keys, pack_records(plain.keys, headers, bodies)
    workers = [header[4] for header in headers]
    index.move_alike(transaction, databases, keys, workers, was, status)
    put_all(transaction, databases.jobs, list(zip(keys, records, strict=True)))
    jobs = plain_jobs(writer.known_workers, plain.ids, records, headers)
    return dict(zip(plain.places, jobs, strict=True))
