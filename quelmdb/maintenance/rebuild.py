"""Whole jobs, put into a new generation by ascending id, with every entry that they ask for."""

from __future__ import annotations

from typing import Final, NamedTuple

from quelmdb import by_option, index, layout, recordlayout
from quelmdb.codec import Codec
from quelmdb.engine import Databases, Engine, Transaction, append_new
from quelmdb.extras import Outside, rare_of, unpacked
from quelmdb.maintenance.numbers import Report, Used
from quelmdb.options import Options
from quelmdb.persistence import Problem
from quelmdb.records import append_parts
from quelmdb.status import Status

NOBODY: Final = layout.pack_owner(0, 0, b"")
"""What stands for an owner of whom nothing is known: it is dead."""

_STARTED: Final = layout.STATUS_CODES[Status.STARTED]
_COMMON: Final = frozenset((recordlayout.EXTRA_RESULT, recordlayout.EXTRA_ERROR))
_PIECE: Final = 4_000  # jobs that are put in a transaction,
_PIECE_BYTES: Final = 16 * 2**20  # or fewer
_CODEC: Final = Codec()


class Whole(NamedTuple):
    """A job of which everything can be read."""

    id: int
    key: bytes
    header: recordlayout.Header
    record: bytes
    outside: Outside
    options: Options


class Rebuilt:
    """Jobs on their way into a new generation."""

    def __init__(
        self, engine: Engine, databases: Databases, owners: set[int], used: Used, report: Report
    ) -> None:
        """`owners` are those that it has already."""
        self._engine = engine
        self._databases = databases
        self._owners = owners
        self._used = used
        self._report = report
        self._pending: list[Whole] = []
        self._bytes = 0

    def add(self, job: Whole) -> None:
        """To be called by ascending ids; `flush` puts the last ones."""
        self._pending.append(job)
        self._bytes += len(job.record) + sum(len(content) for _, content in job.outside)
        if len(self._pending) >= _PIECE or self._bytes >= _PIECE_BYTES:
            self.flush()

    def flush(self) -> None:
        """Puts what is pending, in one transaction."""
        items, by_status, by_worker_status = [], [], []
        with self._engine.begin(write=True) as transaction:
            for given in self._pending:
                job = self._with_own_key(transaction, self._with_owner(transaction, given))
                _, status, _, _, worker, owner, _, _, _, claim = job.header
                self._used.see(layout.NEXT_ID, job.id)
                self._used.see(layout.NEXT_CLAIM, claim)
                self._used.see(layout.NEXT_OWNER, owner)
                items.append((job.key, job.record))
                by_status.append((layout.STATUS_KEYS[status], job.key))
                by_worker_status.append((layout.worker_status_key(worker, status), job.key))
                append_parts(transaction, self._databases, job.id, job.outside)
            append_new(transaction, self._databases.jobs, items)
            index.append(transaction, self._databases, by_status, by_worker_status)
        self._pending = []
        self._bytes = 0

    def _with_owner(self, transaction: Transaction, job: Whole) -> Whole:
        """A started job's owner is known, and no other job has one."""
        version, status, flags, attempt, worker, owner, length, created, updated, claim = job.header
        if not owner:
            return job
        if status != _STARTED:
            name = layout.STATUSES[status]
            self._report(Problem("owner", f"is {name}, and owner {owner} had it", job.id))
            header = version, status, flags, attempt, worker, 0, length, created, updated, claim
            record = recordlayout.pack_record(job.key, header, recordlayout.body_of(job.record))
            return job._replace(header=header, record=record)
        if owner not in self._owners:
            self._report(
                Problem("owner", f"owner {owner}, who has it, is unknown: taken for dead", job.id)
            )
            key = layout.pack_number(owner)
            transaction.put(key, NOBODY, db=self._databases.owners)
            self._owners.add(owner)
        return job

    def _with_own_key(self, transaction: Transaction, job: Whole) -> Whole:
        """Puts what its options ask for; without its unique key where another job, which
        has a smaller id, has it."""
        _, status, _, _, worker, *_ = job.header
        entries = by_option.entries(job.id, worker, status, job.options)
        unique_key = job.options.unique_key
        if unique_key is not None and layout.unique_key_of(unique_key) in entries:
            holder = by_option.holder(transaction, self._databases, unique_key)
            if holder is not None:
                self._report(
                    Problem(
                        "by_option",
                        f"has lost its unique key {unique_key!r}: job {holder} has it, too",
                        job.id,
                    )
                )
                job = _with_options(job, job.options._replace(unique_key=None))
                entries = by_option.entries(job.id, worker, status, job.options)
        by_option.replace(transaction, self._databases, by_option.NO_ENTRIES, entries)
        return job


def _with_options(job: Whole, options: Options) -> Whole:
    """A job with other options, and its times, its result and all else as they were."""
    arguments, inside = recordlayout.split_body(job.record)
    extras = unpacked(inside)
    extras.pop(recordlayout.EXTRA_OPTIONS, None)
    extras |= rare_of(options, ())
    version, status, flags, attempt, worker, owner, length, created, updated, claim = job.header
    if extras.keys() <= _COMMON:
        flags &= ~recordlayout.RARE
    header = version, status, flags, attempt, worker, owner, length, created, updated, claim
    body = arguments + (_CODEC.encode(extras) if extras else b"")
    record = recordlayout.pack_record(job.key, header, body)
    return job._replace(header=header, record=record, options=options)
