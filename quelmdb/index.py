"""Both secondary indexes: (status, id) and (worker, status, id), each pair an entry.

An entry is a key and a duplicate of 8 bytes each, so the ids of a key are one
sorted run in LMDB's fixed-size leaf pages, which is read without decoding.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import chain, islice
from operator import neg
from typing import Final

from quelmdb.environment import Cursor, Database, Databases, Transaction, append_new, put_all
from quelmdb.layout import (
    STATUS_KEYS,
    pack_number,
    split_worker_status,
    unpack_number,
    worker_status_key,
)

# A key with at most so many ids can be read at once (16 bytes each for a moment),
# three times as fast as entry by entry.
_WHOLE: Final = 2**20
_PIECE: Final = 2**13


class Keys:
    """What a listing reads: one of the two indexes, and one key for each run of ids."""

    __slots__ = ("database", "keys")

    def __init__(
        self, databases: Databases, statuses: Sequence[int], workers: Sequence[int] | None
    ) -> None:
        """`workers` are numbers of workers, None for all of them."""
        if workers is None:
            self.database: Database = databases.by_status
            self.keys = [STATUS_KEYS[status] for status in statuses]
        else:
            self.database = databases.by_worker_status
            self.keys = [
                worker_status_key(worker, status) for worker in workers for status in statuses
            ]


def enter(
    transaction: Transaction, databases: Databases, job: bytes, worker: int, status: int
) -> None:
    """Adds a job (its key) to both indexes."""
    transaction.put(STATUS_KEYS[status], job, db=databases.by_status)
    transaction.put(worker_status_key(worker, status), job, db=databases.by_worker_status)


def append(
    transaction: Transaction,
    databases: Databases,
    by_status: Sequence[tuple[bytes, bytes]],
    by_worker_status: Sequence[tuple[bytes, bytes]],
) -> None:
    """Adds entries of jobs, ascending and above every id that is stored. Their pages
    are filled to the brim."""
    append_new(transaction, databases.by_status, by_status)
    append_new(transaction, databases.by_worker_status, by_worker_status)


def leave(
    transaction: Transaction, databases: Databases, job: bytes, worker: int, status: int
) -> None:
    """Removes a job (its key) from both indexes."""
    transaction.delete(STATUS_KEYS[status], job, db=databases.by_status)
    transaction.delete(worker_status_key(worker, status), job, db=databases.by_worker_status)


Entry = tuple[bytes, int, int, int]
"""A job (its key), its worker, and the statuses that it leaves and enters."""


def move(
    transaction: Transaction, databases: Databases, job: bytes, worker: int, was: int, status: int
) -> None:
    """Moves a job from one status to another in both indexes."""
    by_status, by_worker_status = databases.by_status, databases.by_worker_status
    transaction.delete(STATUS_KEYS[was], job, db=by_status)
    transaction.delete(worker_status_key(worker, was), job, db=by_worker_status)
    transaction.put(STATUS_KEYS[status], job, db=by_status)
    transaction.put(worker_status_key(worker, status), job, db=by_worker_status)


def move_all(transaction: Transaction, databases: Databases, entries: Sequence[Entry]) -> None:
    """As `move` of each."""
    delete, by_worker_status = transaction.delete, databases.by_worker_status
    for job, worker, was, _ in entries:
        delete(STATUS_KEYS[was], job, db=databases.by_status)
        delete(worker_status_key(worker, was), job, db=by_worker_status)
    by_status = [(STATUS_KEYS[status], job) for job, _, _, status in entries]
    by_worker = [(worker_status_key(worker, status), job) for job, worker, _, status in entries]
    put_all(transaction, databases.by_status, by_status)
    put_all(transaction, by_worker_status, by_worker)


def count(transaction: Transaction, keys: Keys) -> int:
    """How many entries the keys have. O(1) each."""
    total = 0
    with transaction.cursor(keys.database) as cursor:
        for key in keys.keys:
            if cursor.set_key(key):
                total += cursor.count()
    return total


def workers(transaction: Transaction, databases: Databases) -> list[int]:
    """The numbers of the workers that have jobs, ascending. O(workers)."""
    with transaction.cursor(databases.by_worker_status) as cursor:
        keys = cursor.iternext_nodup(keys=True, values=False)
        numbers = [split_worker_status(unpack_number(key))[0] for key in keys]
    return list(dict.fromkeys(numbers))


def scan(
    transaction: Transaction, keys: Keys, after: int | None, reverse: bool, size: int
) -> tuple[list[int], bool]:
    """About the next `size` ids beyond `after`, in order, and whether they are the last.

    All keys are merged by id. Where there are ids, at least one is returned.
    """
    with transaction.cursor(keys.database) as cursor:
        runs = [_run(cursor, key, after, reverse, size) for key in keys.keys]
    if len(runs) == 1:
        return runs[0]
    merged = sorted(chain.from_iterable(ids for ids, _ in runs), reverse=reverse)
    ends = [ids[-1] for ids, complete in runs if not complete]
    if not ends:
        return merged, True
    # Beyond the nearest end of an unfinished run, ids of that run are missing.
    if reverse:
        return merged[: bisect_right(merged, -max(ends), key=neg)], False
    return merged[: bisect_right(merged, min(ends))], False


def scan_records(
    transaction: Transaction,
    databases: Databases,
    keys: Keys,
    after: int | None,
    reverse: bool,
    size: int,
) -> tuple[list[tuple[bytes, bytes | None]], bool]:
    """As `scan`, at most `size` of them, with the records; None where there is none."""
    ids, complete = scan(transaction, keys, after, reverse, size)
    packed = [pack_number(job_id) for job_id in ids[:size]]
    with transaction.cursor(databases.jobs) as cursor:
        found: list[tuple[bytes, bytes | None]] = list(cursor.getmulti(packed))
    if len(found) < len(packed):
        records = dict(found)
        found = [(key, records.get(key)) for key in packed]
    return found, complete and len(ids) <= size


def scan_jobs(
    transaction: Transaction, databases: Databases, after: int | None, reverse: bool, size: int
) -> tuple[list[tuple[bytes, bytes | None]], bool]:
    """The next `size` jobs of all beyond `after`, from the records themselves."""
    with transaction.cursor(databases.jobs) as cursor:
        if not reverse:
            found = cursor.first() if after is None else cursor.set_range(pack_number(after + 1))
            entries = cursor.iternext()
        else:
            found = (
                cursor.prev()
                if after is not None and cursor.set_range(pack_number(after))
                else cursor.last()
            )
            entries = cursor.iterprev()
        page: list[tuple[bytes, bytes | None]] = list(islice(entries, size)) if found else []
    return page, len(page) < size


def _run(
    cursor: Cursor, key: bytes, after: int | None, reverse: bool, size: int
) -> tuple[list[int], bool]:
    if size > _PIECE:
        if not cursor.set_key(key):
            return [], True
        if cursor.count() <= _WHOLE:
            return _whole(cursor, key, after, reverse), True
        size = _PIECE
    if not (_seek_back if reverse else _seek)(cursor, key, after):
        return [], True
    entries = cursor.iterprev_dup() if reverse else cursor.iternext_dup()
    ids = array("Q")
    ids.frombytes(b"".join(islice(entries, size)))
    return ids.tolist(), len(ids) < size


def _seek(cursor: Cursor, key: bytes, after: int | None) -> bool:
    if after is None:
        return cursor.set_key(key)
    return cursor.set_range_dup(key, pack_number(after + 1))


def _seek_back(cursor: Cursor, key: bytes, after: int | None) -> bool:
    if after is not None and cursor.set_range_dup(key, pack_number(after)):
        return cursor.prev_dup()
    return cursor.set_key(key) and cursor.last_dup()


def _whole(cursor: Cursor, key: bytes, after: int | None, reverse: bool) -> list[int]:
    pairs = cursor.getmulti([key], dupdata=True, dupfixed_bytes=8, keyfixed=True)
    ids: list[int] = pairs.cast("B").cast("Q")[1::2].tolist()
    if reverse:
        return (ids if after is None else ids[: bisect_left(ids, after)])[::-1]
    return ids if after is None else ids[bisect_right(ids, after) :]
