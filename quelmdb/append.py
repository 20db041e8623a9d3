"""New jobs, put behind all others: the path of every insert without an id.

Neighbours in a transaction are put together. Each call of LMDB lets go of the
interpreter's lock and has to get it back, so few large calls are far quicker than many
small ones, above all where other threads are busy.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice, repeat
from typing import Any, Final

from quelmdb import index
from quelmdb.engine import append_new, not_the_largest
from quelmdb.job import Job, stored_job
from quelmdb.layout import NEXT_ID, pack_number
from quelmdb.names import Kind
from quelmdb.recordlayout import RECORD_VERSION, pack_record
from quelmdb.records import append_parts, decoder
from quelmdb.status import Status
from quelmdb.values import MAX_ID
from quelmdb.writer import Draft, Writer

_PIECE: Final = 1000  # jobs that are put at a time, so that few objects live at once


class Append:
    """Inserts jobs without ids, which need no entry among the options, and returns them."""

    __slots__ = ("drafts",)

    def __init__(self, drafts: Sequence[Draft]) -> None:
        self.drafts = drafts

    def __call__(self, writer: Writer) -> Any:
        return self.result(_append(writer, self.drafts, repeat(writer.now)))

    def result(self, jobs: list[Job]) -> Any:
        """What it returns where `jobs` were made of its drafts."""
        return jobs


class AppendOne(Append):
    """Inserts one job without an id, and returns it."""

    __slots__ = ()

    def __call__(self, writer: Writer) -> Job:
        """As of several, without the lists and cursors, which cost as much as the puts."""
        ((job, content),) = self.drafts
        flags, arguments, extras, outside = content
        writer.ensure_room((content,), appended=True)
        job_id = writer.counters.next(NEXT_ID, MAX_ID)
        writer.touched = writer.awakens = True
        transaction, databases, now = writer.transaction, writer.databases, writer.now
        name, state, key = job._worker, job._status, pack_number(job_id)
        worker, status, status_key, worker_key = writer.kind_of(name, state)
        header = (RECORD_VERSION, status, flags, 0, worker, 0, len(arguments), now, now, 0)
        record = pack_record(key, header, arguments + extras)
        if outside:
            append_parts(transaction, databases, job_id, outside)
        put = transaction.put
        if not (
            put(key, record, append=True, db=databases.jobs)
            and put(status_key, key, append=True, db=databases.by_status)
            and put(worker_key, key, append=True, db=databases.by_worker_status)
        ):
            raise not_the_largest()
        return stored_job(
            job_id, name, state, now, now, 0, 0, 0, record, decoder(outside), job._options
        )

    def result(self, jobs: list[Job]) -> Any:
        return jobs[0]


def append_all(writer: Writer, appends: Sequence[tuple[Append, int]]) -> list[Any]:
    """What each of these returns; it writes the time that stands beside it."""
    drafts: list[Draft] = []
    times: list[int] = []
    for append, now in appends:
        drafts += append.drafts
        times += [now] * len(append.drafts)
    jobs = iter(_append(writer, drafts, times))
    return [append.result(list(islice(jobs, len(append.drafts)))) for append, _ in appends]


def _append(writer: Writer, drafts: Sequence[Draft], times: Iterable[int]) -> list[Job]:
    if not drafts:
        return []
    writer.ensure_room([content for _, content in drafts], appended=True)
    first = writer.counters.next(NEXT_ID, MAX_ID, len(drafts))
    writer.touched = writer.awakens = True
    timed = zip(range(first, first + len(drafts)), drafts, times, strict=False)
    jobs: list[Job] = []
    for _ in range(0, len(drafts), _PIECE):
        jobs += _append_piece(writer, islice(timed, _PIECE))
    return jobs


def _append_piece(writer: Writer, timed: Iterable[tuple[int, Draft, int]]) -> list[Job]:
    transaction, databases = writer.transaction, writer.databases
    kinds: dict[tuple[str | None, Status], Kind] = {}
    items, by_status, by_worker_status, jobs = [], [], [], []
    for job_id, (job, (flags, arguments, extras, outside)), now in timed:
        key = pack_number(job_id)
        name, state = job._worker, job._status
        kind = kinds.get((name, state))
        if kind is None:
            kind = kinds[name, state] = writer.kind_of(name, state)
        worker, status, status_key, worker_key = kind
        header = (RECORD_VERSION, status, flags, 0, worker, 0, len(arguments), now, now, 0)
        record = pack_record(key, header, arguments + extras)
        items.append((key, record))
        by_status.append((status_key, key))
        by_worker_status.append((worker_key, key))
        if outside:
            append_parts(transaction, databases, job_id, outside)
        decoding = decoder(outside)
        options = job._options
        jobs.append(stored_job(job_id, name, state, now, now, 0, 0, 0, record, decoding, options))
    append_new(transaction, databases.jobs, items)
    index.append(transaction, databases, by_status, by_worker_status)
    return jobs
