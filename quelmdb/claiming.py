"""Claiming and taking back, inside of the transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from quelmdb import bulk, by_option, index
from quelmdb.codec import Codec
from quelmdb.endings import failure_of
from quelmdb.errors import CorruptRecordError
from quelmdb.extras import outcome_of
from quelmdb.job import Job
from quelmdb.layout import NEXT_CLAIM
from quelmdb.moves import Change, Move, move_all, move_rest, prepare, prepare_rare
from quelmdb.options import DIED
from quelmdb.recordlayout import CANCEL_REQUESTED, RARE
from quelmdb.records import corrupt_record
from quelmdb.requests import Verb
from quelmdb.status import Status
from quelmdb.stored import Stored, verified
from quelmdb.values import MAX_ATTEMPT, MAX_ID
from quelmdb.writer import Writer

Report = Callable[[CorruptRecordError], None]
"""Is told of a corrupt job, which is passed over."""

_DUE_AT_A_TIME: Final = 256  # jobs that a claim makes queued, so that it stays short
_CODEC: Final = Codec()  # of errors


class Claim:
    """Takes up to `limit` queued jobs of these workers (of all, where there is no name)."""

    __slots__ = ("_limit", "_names", "_report")

    def __init__(self, names: Sequence[str | None], limit: int, report: Report) -> None:
        self._names = names
        self._limit = limit
        self._report = report

    def __call__(self, writer: Writer) -> list[Job]:
        claimed: list[Job] = []
        taken: frozenset[int] = frozenset()
        workers = writer.numbers_of(self._names)
        if by_option.is_used(writer.transaction, writer.databases):
            make_due(writer, self._report)
            workers = writer.without_paused(workers)
            first = by_option.first_in_line(
                writer.transaction, writer.databases, workers, self._limit
            )
            claimed += self._start_all(writer, first)
            taken = frozenset(first)
        keys = writer.keys(Status.QUEUED, workers)
        after: int | None = None
        complete = False
        while len(claimed) < self._limit and not complete:
            room = self._limit - len(claimed)
            size = room + len(taken)
            ids, complete = index.scan(writer.transaction, keys, after, reverse=False, size=size)
            complete = complete and len(ids) <= size
            ids = ids[:size]
            if ids:
                chosen = [job_id for job_id in ids if job_id not in taken] if taken else ids
                claimed += self._start_all(writer, chosen[:room], after)
                after = ids[-1] if len(chosen) <= room else chosen[room - 1]
        return claimed

    def _start_all(self, writer: Writer, ids: Sequence[int], last: int | None = None) -> list[Job]:
        """Claims these jobs; `last` was the one before them."""
        found = writer.records(ids)
        claim = writer.counters.next(NEXT_CLAIM, MAX_ID, len(ids)) if ids else 0
        done = {} if last in ids else bulk.start_all(writer, found, claim)
        others = {}
        if len(done) < len(found):
            for place, (job_id, key, record) in enumerate(found):
                if place not in done:
                    try:
                        if job_id == last:
                            raise corrupt_record(job_id, "two workers have it in the index")
                        others[place] = _start(writer, job_id, key, record, claim + place)
                    except CorruptRecordError as error:
                        self._report(error)
                last = job_id
        return move_rest(writer, done, others)


def _start(writer: Writer, job_id: int, key: bytes, record: bytes | None, claim: int) -> Move:
    stored = None if record is None else verified(job_id, key, record)
    if stored is None or stored.status is not Status.QUEUED:
        raise corrupt_record(job_id, "it is among the queued jobs of the index, and is none")
    attempt = min(stored.attempt + 1, MAX_ATTEMPT)
    started = prepare(writer, stored, Status.STARTED, attempt, writer.owner(), claim)
    if writer.events is not None:
        writer.tell("claimed", started.job, stored)
    return started


def make_due(writer: Writer, report: Report) -> None:
    """What is scheduled and due becomes queued, some of it at a time. An entry of a job that
    cannot be read is deleted: it would be in the way of those behind it."""
    due = by_option.due(writer.transaction, writer.databases, writer.now, _DUE_AT_A_TIME)
    moves = []
    for job_id, key, record in writer.records(list(due)):
        try:
            stored = None if record is None else verified(job_id, key, record)
            if stored is None or stored.status is not Status.SCHEDULED:
                raise corrupt_record(job_id, "it is among the due jobs of the index, and is none")
            moves.append(prepare(writer, stored, Status.QUEUED, stored.attempt, 0, stored.claim))
        except CorruptRecordError as error:
            report(error)
            writer.touched = True
            by_option.remove(writer.transaction, writer.databases, due[job_id])
    move_all(writer, moves)


def rescue(ids: Iterable[int], dead: set[int], report: Report) -> Verb[list[Job]]:
    """Takes back those of these jobs that are started by an owner among `dead`."""

    def apply(writer: Writer) -> list[Job]:
        still_dead = writer.dead_among(dead)
        moves = []
        for job_id in ids:
            try:
                stored = writer.find(job_id)
                if stored and stored.status is Status.STARTED and stored.owner in still_dead:
                    moves.append(_rescued(writer, stored))
            except CorruptRecordError as error:
                report(error)
        return move_all(writer, moves)

    return apply


def _rescued(writer: Writer, stored: Stored) -> Move:
    most = stored.options.max_attempts
    status, outcome = Status.QUEUED, None
    if stored.flags & CANCEL_REQUESTED:
        status = Status.CANCELLED
    elif most is not None and stored.attempt >= most:
        status = Status.FAILED
        error = f"{DIED}: attempt {stored.attempt} of {most} was the last"
        outcome = outcome_of(_CODEC, None, error)
    failure = failure_of(stored, writer.now, DIED, died=True)
    attempt, claim = stored.attempt, stored.claim
    try:
        change = Change(outcome, failure=failure)
        rescued = prepare_rare(writer, stored, status, attempt, 0, claim, change)
    except CorruptRecordError:
        if stored.flags & RARE:
            raise
        # A result or an error that cannot be decoded keeps nobody from running it again.
        rescued = prepare(writer, stored, status, attempt, 0, claim)
    writer.tell("rescued", rescued.job, stored)
    return rescued
