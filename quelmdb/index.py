"""Both secondary indexes: (status, id) and (worker, status, id), each pair an entry.

An entry is a key and a duplicate of 8 bytes each, so the ids of a key are one
sorted run in LMDB's fixed-size leaf pages, which is read without decoding.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate, chain, islice
from operator import neg
from typing import Final

from quelmdb.engine import Cursor, Database, Databases, Transaction, append_new, put_all
from quelmdb.errors import CorruptStoreError
from quelmdb.layout import (
    NUMBER_BYTES,
    STATUS_KEYS,
    Damaged,
    pack_number,
    split_worker_status,
    unpack_number,
    unpack_numbers,
    worker_status_key,
)
from quelmdb.values import MAX_ID

# Entries are read one by one, or all those of some keys in one call, which takes a tenth
# of the time for each, and 16 bytes for a while. So all are read up to this many:
_MOST: Final = 2**20
_WASTE: Final = 2  # times those that are wanted, where the others are thrown away,
_AHEAD: Final = 8  # and where they will be wanted, should anybody go on
_PIECE: Final = 2**13
_SMALL: Final = 16  # the least that is read of each of several keys


_Piece = tuple[list[int], bool]
"""Some ids of a key, one or more, and whether there may be more behind them."""


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


def move_alike(
    transaction: Transaction,
    databases: Databases,
    jobs: Sequence[bytes],
    workers: Sequence[int],
    was: int,
    status: int,
) -> None:
    """As `move_all`, of jobs (their keys) that all leave the same status for the same other."""
    left, entered = STATUS_KEYS[was], STATUS_KEYS[status]
    keys = {worker: _worker_keys(worker, was, status) for worker in set(workers)}
    delete, by_worker_status = transaction.delete, databases.by_worker_status
    by_status = databases.by_status
    for job, worker in zip(jobs, workers, strict=True):
        delete(left, job, by_status)
        delete(keys[worker][0], job, by_worker_status)
    put_all(transaction, by_status, [(entered, job) for job in jobs])
    of_workers = [(keys[worker][1], job) for job, worker in zip(jobs, workers, strict=True)]
    put_all(transaction, by_worker_status, of_workers)


def _worker_keys(worker: int, was: int, status: int) -> tuple[bytes, bytes]:
    return worker_status_key(worker, was), worker_status_key(worker, status)


def count(transaction: Transaction, keys: Keys) -> int:
    """How many entries the keys have. O(1) each."""
    return sum(counts(transaction, keys))


def counts(transaction: Transaction, keys: Keys) -> list[int]:
    """How many entries each of the keys has. O(1) each."""
    cursor = transaction.cursor(keys.database)
    return [cursor.count() if cursor.set_key(key) else 0 for key in keys.keys]


def workers(transaction: Transaction, databases: Databases) -> list[int]:
    """The numbers of the workers that have jobs, ascending. O(workers)."""
    with transaction.cursor(databases.by_worker_status) as cursor:
        keys = cursor.iternext_nodup(keys=True, values=False)
        numbers = [split_worker_status(unpack_number(key))[0] for key in keys]
    return list(dict.fromkeys(numbers))


def scan(
    transaction: Transaction, keys: Keys, after: int | None, reverse: bool, size: int
) -> tuple[list[int], bool]:
    """At least the next `size` ids beyond `after`, in order, all keys merged by id; and
    whether they are the last. Without ids they are."""
    ids: list[int] = []
    for piece in _merged(_runs(transaction, keys, after, reverse, size), reverse):
        ids += piece
        if len(ids) > size:
            return ids, False
    return ids, True


def read(
    transaction: Transaction,
    keys: Keys,
    after: int | None,
    reverse: bool,
    size: int,
    to_the_end: bool,
) -> Iterator[list[int]] | None:
    """All ids beyond `after`, in order, as pieces that may be looked at later, without
    the transaction; None where it is better to `scan` for the next `size` of them, since
    there are too many, or more than will be wanted if it is not `to_the_end`."""
    most = size * (_AHEAD if to_the_end else _WASTE)
    runs = _copied_runs(transaction, keys, after, reverse, most)
    return None if runs is None else _merged(runs, reverse)


def scan_records(
    transaction: Transaction,
    databases: Databases,
    keys: Keys,
    after: int | None,
    reverse: bool,
    size: int,
) -> tuple[list[tuple[bytes, bytes]], bool]:
    """As `scan`, at most `size` of them, with the records; an empty one where there is none."""
    ids, complete = scan(transaction, keys, after, reverse, size)
    packed = [pack_number(job_id) for job_id in ids[:size]]
    with transaction.cursor(databases.jobs) as cursor:
        found = list(cursor.getmulti(packed))
    if len(found) < len(packed):
        records = dict(found)
        found = [(key, records.get(key, b"")) for key in packed]
    return found, complete and len(ids) <= size


def scan_jobs(
    transaction: Transaction, databases: Databases, after: int | None, reverse: bool, size: int
) -> tuple[list[tuple[bytes, bytes]], bool]:
    """The next `size` jobs of all beyond `after`, from the records themselves."""
    with transaction.cursor(databases.jobs) as cursor:
        if not reverse:
            found = cursor.first() if after is None else _seek_id(cursor, after)
            entries = cursor.iternext()
        else:
            found = (
                cursor.prev()
                if after is not None and cursor.set_range(pack_number(after))
                else cursor.last()
            )
            entries = cursor.iterprev()
        page: list[tuple[bytes, bytes]] = list(islice(entries, size)) if found else []
    return page, len(page) < size


def _runs(
    transaction: Transaction, keys: Keys, after: int | None, reverse: bool, size: int
) -> list[Iterator[_Piece]]:
    """The ids of each key beyond `after`, in pieces of which about `size` ids are wanted."""
    runs = _copied_runs(transaction, keys, after, reverse, size * _WASTE)
    if runs is None:
        share = size + 1 if len(keys.keys) == 1 else size // len(keys.keys) + _SMALL
        piece = min(share, _PIECE)
        runs = [
            _pieces(transaction.cursor(keys.database), key, after, reverse, piece)
            for key in keys.keys
        ]
    return runs


def _pieces(
    cursor: Cursor, key: bytes, after: int | None, reverse: bool, size: int
) -> Iterator[_Piece]:
    if not (_seek_back if reverse else _seek)(cursor, key, after):
        return
    entries = cursor.iterprev_dup() if reverse else cursor.iternext_dup()
    while ids := unpack_numbers(b"".join(islice(entries, size))):
        yield ids, len(ids) == size


def _seek(cursor: Cursor, key: bytes, after: int | None) -> bool:
    if after is None:
        return cursor.set_key(key)
    return after < MAX_ID and cursor.set_range_dup(key, pack_number(after + 1))


def _seek_id(cursor: Cursor, after: int) -> bool:
    return after < MAX_ID and cursor.set_range(pack_number(after + 1))


def _seek_back(cursor: Cursor, key: bytes, after: int | None) -> bool:
    if after is not None and cursor.set_range_dup(key, pack_number(after)):
        return cursor.prev_dup()
    return cursor.set_key(key) and cursor.last_dup()


def _copied_runs(
    transaction: Transaction, keys: Keys, after: int | None, reverse: bool, most: int
) -> list[Iterator[_Piece]] | None:
    """The same out of a copy of all entries of the keys; None where there are more than
    `most`, or too many for a copy."""
    sizes = counts(transaction, keys)
    if sum(sizes) > min(most, _MOST):
        return None
    with transaction.cursor(keys.database) as cursor:
        try:
            pairs = cursor.getmulti(
                keys.keys, dupdata=True, dupfixed_bytes=NUMBER_BYTES, keyfixed=True
            )
        except ValueError as error:  # of py-lmdb, where a damaged page gives other sizes
            raise Damaged(f"an index has keys of other sizes: {error}") from None
    ids = pairs.cast("B").cast("Q")[1::2]
    if len(keys.keys) > 1 and len(ids) <= _PIECE:
        ids = memoryview(array("Q", sorted(ids.tolist())))
        sizes = [len(ids)]
    ends = list(accumulate(sizes))
    return [
        _slices(ids[start:end], after, reverse)
        for start, end in zip([0, *ends], ends, strict=False)
        if start < end
    ]


def _slices(ids: memoryview[int], after: int | None, reverse: bool) -> Iterator[_Piece]:
    if reverse:
        end = len(ids) if after is None else bisect_left(ids, after)
        for stop in range(end, 0, -_PIECE):
            yield ids[max(stop - _PIECE, 0) : stop].tolist()[::-1], stop > _PIECE
    else:
        first = 0 if after is None else bisect_right(ids, after)
        for start in range(first, len(ids), _PIECE):
            yield ids[start : start + _PIECE].tolist(), start + _PIECE < len(ids)


def _merged(runs: list[Iterator[_Piece]], reverse: bool) -> Iterator[list[int]]:
    """Merges runs by id, each time as far as nothing is missing: up to the nearest end of
    the pieces that others may follow. The sort finds its input in a few sorted parts,
    and merges these. Raises `CorruptStoreError`
    where parts that are not sorted would keep it for ever."""
    pieces = [(*piece, run) for run in runs if (piece := next(run, None))]
    while len(pieces) > 1:
        ends = [ids[-1] for ids, more, _ in pieces if more]
        if not ends:
            yield sorted(chain.from_iterable(ids for ids, _, _ in pieces), reverse=reverse)
            return
        end = max(ends) if reverse else min(ends)
        taken: list[int] = []
        left = []
        for ids, more, run in pieces:
            cut = bisect_right(ids, -end, key=neg) if reverse else bisect_right(ids, end)
            taken += ids[:cut]
            if cut < len(ids):
                left.append((ids[cut:], more, run))
            elif more and (piece := next(run, None)):
                left.append((*piece, run))
        if not taken:  # of sorted pieces at least one is taken whole
            raise CorruptStoreError(
                "the entries of an index are not in order; `quelmdb check` tells where"
            )
        taken.sort(reverse=reverse)
        yield taken
        pieces = left
    for ids, _, run in pieces:
        yield ids
        yield from (ids for ids, _ in run)
