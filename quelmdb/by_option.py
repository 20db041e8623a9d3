"""The index of what few jobs ask for: when they are due, their priority, their unique key;
and which workers are paused. Only such jobs have entries.

    a job that is scheduled and has a run_at        one by its time
    one that is queued and has a priority           one among all, one among its worker's
    one that has not ended and has a unique key     one, with its id
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from typing import Final

from quelmdb.engine import Database, Databases, Transaction
from quelmdb.layout import (
    DUE_PREFIX,
    PAUSED_PREFIX,
    STATUS_CODES,
    Damaged,
    due_key,
    pack_number,
    paused_key,
    paused_worker,
    priority_key,
    priority_prefix,
    rank_and_id,
    split_due_key,
    unique_key_of,
    unpack_number,
)
from quelmdb.options import PLAIN, Options
from quelmdb.status import INCOMPLETE, Status

Entries = Mapping[bytes, bytes]

NO_ENTRIES: Final[Entries] = {}
_SCHEDULED: Final = STATUS_CODES[Status.SCHEDULED]
_QUEUED: Final = STATUS_CODES[Status.QUEUED]
_INCOMPLETE: Final = frozenset(STATUS_CODES[status] for status in INCOMPLETE)


def entries(job_id: int, worker: int, status: int, options: Options) -> Entries:
    """Those that a job has."""
    if options is PLAIN:
        return NO_ENTRIES
    found = {}
    if options.run_at is not None and status == _SCHEDULED:
        found[due_key(options.run_at, job_id)] = b""
    if options.priority and status == _QUEUED:
        found[priority_key(None, options.priority, job_id)] = b""
        found[priority_key(worker, options.priority, job_id)] = b""
    if options.unique_key is not None and status in _INCOMPLETE:
        found[unique_key_of(options.unique_key)] = pack_number(job_id)
    return found


def has_none(options: Options) -> bool:
    """Whether a job of such options has no entry, whatever its status is."""
    return options.run_at is None and not options.priority and options.unique_key is None


def replace(transaction: Transaction, databases: Databases, was: Entries, now: Entries) -> None:
    """Puts the entries of a job in the place of those that it had. Whose unique key it
    gets was asked before. Raises `Damaged` where one is taken nevertheless."""
    if was == now:
        return
    database = _database(databases)
    for key in was.keys() - now.keys():
        transaction.delete(key, db=database)
    for key in now.keys() - was.keys():
        if not transaction.put(key, now[key], overwrite=False, db=database):
            raise Damaged("an option of it is in the index already")


def holder(transaction: Transaction, databases: Databases, unique_key: str) -> int | None:
    """The id of the job that has a unique key and has not ended."""
    found = transaction.get(unique_key_of(unique_key), db=_database(databases))
    return None if found is None else unpack_number(found)


def is_used(transaction: Transaction, databases: Databases) -> bool:
    """Whether there is any entry: what needs none asks this first. O(log n)."""
    if databases.by_option is None:
        return False
    with transaction.cursor(databases.by_option) as cursor:
        return cursor.first()


def due(transaction: Transaction, databases: Databases, now: int, limit: int) -> dict[int, bytes]:
    """The ids of at most `limit` jobs that are due, by their times, each with the key of its
    entry. O(limit)."""
    found: dict[int, bytes] = {}
    for key in _keys(transaction, databases, DUE_PREFIX):
        time, job_id = split_due_key(key)
        if time > now or len(found) == limit:
            break
        found[job_id] = key
    return found


def remove(transaction: Transaction, databases: Databases, key: bytes) -> None:
    """Deletes an entry that belongs to no job which can be read."""
    transaction.delete(key, db=_database(databases))


def next_due(transaction: Transaction, databases: Databases) -> int | None:
    """The earliest time at which a job is due. O(log n)."""
    for key in _keys(transaction, databases, DUE_PREFIX):
        return split_due_key(key)[0]
    return None


def first_in_line(
    transaction: Transaction, databases: Databases, workers: Sequence[int] | None, limit: int
) -> list[int]:
    """The ids of at most `limit` queued jobs with a priority, of these workers (None: of
    all), the highest first, then by id. O(workers · limit)."""
    ranked: list[tuple[int, int]] = []
    for worker in (None,) if workers is None else workers:
        keys = _keys(transaction, databases, priority_prefix(worker))
        ranked += (rank_and_id(key) for _, key in zip(range(limit), keys, strict=False))
    return [job_id for _, job_id in sorted(ranked)[:limit]]


def paused(transaction: Transaction, databases: Databases) -> set[int]:
    """The numbers of the workers that are paused. O(1) where none is."""
    return {paused_worker(key) for key in _keys(transaction, databases, PAUSED_PREFIX)}


def pause(transaction: Transaction, databases: Databases, worker: int) -> None:
    """Has a worker paused."""
    transaction.put(paused_key(worker), b"", db=_database(databases))


def resume(transaction: Transaction, databases: Databases, worker: int) -> bool:
    """Ends it; whether it was paused."""
    resumed: bool = transaction.delete(paused_key(worker), db=_database(databases))
    return resumed


def all_entries(transaction: Transaction, databases: Databases) -> Iterator[tuple[bytes, bytes]]:
    """Every entry, those of paused workers left out; for `check`."""
    if databases.by_option is not None:
        with transaction.cursor(databases.by_option) as cursor:
            for key, value in cursor:
                if not key.startswith(PAUSED_PREFIX):
                    yield key, value


def job_of(key: bytes, value: bytes) -> int:
    """The id of the job of an entry. Raises `Damaged` where it is none."""
    return unpack_number(value) if value else rank_and_id(key)[1]


def has_entry(transaction: Transaction, databases: Databases, key: bytes, value: bytes) -> bool:
    """Whether an entry is there as it should be; for `check`."""
    return databases.by_option is not None and transaction.get(key, db=databases.by_option) == value


def _keys(transaction: Transaction, databases: Databases, prefix: bytes) -> Iterator[bytes]:
    if databases.by_option is None:
        return
    with transaction.cursor(databases.by_option) as cursor:
        if cursor.set_range(prefix):
            keys = cursor.iternext(keys=True, values=False)
            yield from takewhile(lambda key: key.startswith(prefix), keys)


def _database(databases: Databases) -> Database:
    assert databases.by_option is not None  # it was opened for writing
    return databases.by_option
