"""What a store is and holds, for people."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime
from functools import cache

from quelmdb import by_option, index, layout
from quelmdb.directory import Opened
from quelmdb.engine import Transaction
from quelmdb.environment import Environment
from quelmdb.owners import Owner
from quelmdb.status import Status
from quelmdb.values import time_of


@dataclass(frozen=True, slots=True)
class ReaderSlot:
    """A process and thread with a place in LMDB's table of readers, and the
    transaction that it reads (None: none at the moment)."""

    pid: int
    thread: str
    transaction: int | None
    since: datetime | None
    """When the snapshot was taken; None of a read that is none, and where the system does not
    tell (of another user's process; anywhere but on Linux)."""


@dataclass(frozen=True, slots=True)
class StoreInfo:
    """One look at a store. Sizes are bytes: of the data file, and of its part in use."""

    path: str
    generation: int
    format_version: int
    durability: str
    uuid: str
    file_bytes: int
    used_bytes: int
    counts: dict[Status, int]
    workers: dict[str | None, dict[Status, int]]
    readers: list[ReaderSlot]
    owners: list[Owner]
    paused: list[str | None]
    """Workers of which nothing is claimed."""
    next_due: datetime | None
    """When the next scheduled job is due."""
    free_bytes: int
    """About how much of the part in use holds nothing: free, or free as soon as nobody
    reads what stood there."""
    transaction: int
    """The last transaction that was committed: a reader of one before it keeps old pages."""
    next_id: int
    """Above every id that was ever given out: it tells how many jobs come."""
    next_claim: int
    """The same of claims."""


def store_info(opened: Opened, owners: list[Owner]) -> StoreInfo:
    """Looks at an open store, at one point in time. O(workers)."""

    def work(environment: Environment, transaction: Transaction) -> StoreInfo:
        databases = environment.databases

        def meta(key: bytes) -> bytes:
            return transaction.get(key, b"", db=databases.meta)

        def counts(worker: int | None) -> dict[Status, int]:
            workers = None if worker is None else (worker,)
            return {
                status: index.count(transaction, index.Keys(databases, (code,), workers))
                for code, status in enumerate(layout.STATUSES)
            }

        due = by_option.next_due(transaction, databases)
        return StoreInfo(
            path=str(opened.path),
            generation=int(environment.directory.name),
            format_version=layout.unpack_number(meta(layout.FORMAT_KEY)),
            durability=meta(layout.DURABILITY_KEY).decode(),
            uuid=str(uuid.UUID(bytes=layout.checked_uuid(meta(layout.UUID_KEY)))),
            file_bytes=(environment.directory / layout.DATA_FILE).stat().st_size,
            used_bytes=environment.used_bytes(),
            counts=counts(None),
            workers={
                environment.names.name(transaction, number): counts(number)
                for number in index.workers(transaction, databases)
            },
            readers=_reader_slots(environment),
            owners=owners,
            paused=[
                environment.names.name(transaction, number)
                for number in sorted(by_option.paused(transaction, databases))
            ],
            next_due=None if due is None else time_of(due),
            free_bytes=environment.recyclable(transaction),
            transaction=transaction.id(),
            next_id=layout.unpack_number(meta(layout.NEXT_ID)),
            next_claim=layout.unpack_number(meta(layout.NEXT_CLAIM)),
        )

    return opened.read(work)


def _reader_slots(environment: Environment) -> list[ReaderSlot]:
    """LMDB prints a heading, then pid, thread and transaction ("-" for none) a line."""
    slots = []
    held_by = cache(environment.held_by)
    for line in environment.readers().splitlines():
        fields = line.split()
        if len(fields) == 3 and fields[0].isdigit():
            pid, thread = int(fields[0]), fields[1]
            number = None if fields[2] == "-" else int(fields[2])
            since = None if number is None else held_by(pid).get((thread, number))
            slots.append(ReaderSlot(pid, thread, number, since))
    return slots
