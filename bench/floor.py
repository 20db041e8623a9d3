"""The floor: what a minimal program does with py-lmdb to keep the same bytes.

The same databases with the same flags, the same transactions, syncs and (but for the head
start below) puts and gets: a record of 44 bytes of header, CBOR and a CRC-32, an entry in
either index, the counters. Arguments are encoded and decoded with plain cbor2 where quelmdb
encodes and decodes them: they are values of the program, not bytes. What is left out is
what a library adds: checks of its input, checksums and plausibility on reading (they are
written, since the bytes are the same, but not looked at), objects (tuples are handed back),
errors, names of unknown workers, owners, views that are read page by page, space kept in
reserve. Where one loop over the primary database answers, it does not go by an index.

`Puts` is lower still: keys and records are made before the clock starts, and what is timed
is LMDB alone. It takes part in insert_many.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from struct import Struct
from typing import Any, Final
from zlib import crc32

import cbor2
import lmdb

from bench.contestant import Contestant, Plain, Size
from bench.data import COMPLETED, FAILED, INCOMPLETE, QUEUED, STARTED, STATUSES, WORKERS, Row

_HEADER: Final = Struct("<BBBxIIIIqqQ")
_CRC: Final = Struct("<I")
_pack: Final = Struct("=Q").pack
_OWNER: Final = 1
_PIECE: Final = 1000  # jobs that are encoded before they are put: quicker than all at once

_STATUS_KEYS: Final = tuple(map(_pack, range(len(STATUSES))))
_NUMBERS: Final = {worker: number for number, worker in enumerate(WORKERS, 1)}
_NAMES: Final = {number: worker for worker, number in _NUMBERS.items()}
_KINDS: Final = {
    (worker, status): (number, _STATUS_KEYS[status], _pack(number * 256 + status))
    for worker, number in _NUMBERS.items()
    for status in range(len(STATUSES))
}

Record = tuple[int, str, int, int, int, int, int, int, bytes]
"""id, worker, status, created_at, updated_at, attempt, claim, owner, record"""
Pairs = list[tuple[bytes, bytes]]


class Floor(Contestant):
    """py-lmdb, one environment, LMDB's default durability: what quelmdb calls "full"."""

    name = "floor"

    def __init__(self, directory: Path) -> None:
        self._environment = lmdb.open(str(directory), map_size=2**40, max_dbs=16, lib_version=0)
        self._jobs = self._environment.open_db(b"jobs", integerkey=True)
        self._by_status = self._open_index(b"by_status")
        self._by_worker = self._open_index(b"by_worker_status")
        self._meta = self._environment.open_db(b"meta")
        with self._environment.begin(write=True) as transaction:
            transaction.put(b"next_id", _pack(1), db=self._meta)
            transaction.put(b"next_claim", _pack(1), db=self._meta)

    def _open_index(self, name: bytes) -> lmdb._Database:
        return self._environment.open_db(
            name, integerkey=True, dupsort=True, dupfixed=True, integerdup=True
        )

    def close(self) -> None:
        self._environment.close()

    def size(self) -> Size:
        pages = self._environment.info()["last_pgno"] + 1
        path = Path(self._environment.path()) / "data.mdb"
        return Size(pages * self._environment.stat()["psize"], path.stat().st_size)

    # --- Writes -------------------------------------------------------------

    def insert(self, row: Row) -> int:
        with self._environment.begin(write=True) as transaction:
            job_id = self._next(transaction, b"next_id", 1)
            now = _now()
            number, status_key, worker_key = _KINDS[row[0], row[2]]
            key = _pack(job_id)
            record = _record(key, number, row[2], row[1], now)
            transaction.put(key, record, db=self._jobs, append=True)
            transaction.put(status_key, key, db=self._by_status)
            transaction.put(worker_key, key, db=self._by_worker)
        return job_id

    def insert_many(self, ready: Any) -> range:
        with self._environment.begin(write=True) as transaction:
            first = self._next(transaction, b"next_id", len(ready))
            now = _now()
            for start in range(0, len(ready), _PIECE):
                piece = _encode(first + start, ready[start : start + _PIECE], now)
                self._put(transaction, *piece)
        return range(first, first + len(ready))

    def _put(
        self, transaction: lmdb.Transaction[bytes], jobs: Pairs, by_status: Pairs, by_worker: Pairs
    ) -> None:
        with transaction.cursor(self._jobs) as cursor:
            cursor.putmulti(jobs, append=True)
        with transaction.cursor(self._by_status) as cursor:
            cursor.putmulti(by_status, append=True)
        with transaction.cursor(self._by_worker) as cursor:
            cursor.putmulti(by_worker, append=True)

    def update(self, job_id: int, row: Row) -> None:
        self.update_many([(job_id, row)])

    def update_many(self, changes: Sequence[tuple[int, Row]]) -> None:
        with self._environment.begin(write=True) as transaction:
            now = _now()
            for job_id, (worker, arguments, status) in changes:
                key = _pack(job_id)
                old = transaction.get(key, db=self._jobs)
                assert old is not None
                _, was, _, attempt, before, _, _, created, _, claim = _HEADER.unpack_from(old)
                number = _NUMBERS[worker]
                if (before, was) != (number, status):
                    self._move(transaction, key, before, was, number, status)
                body = cbor2.dumps(arguments)
                header = (1, status, 0, attempt, number, 0, len(body), created, now, claim)
                transaction.put(key, _sealed(key, _HEADER.pack(*header) + body), db=self._jobs)

    def destroy_many(self, ids: Sequence[int]) -> None:
        with self._environment.begin(write=True) as transaction:
            for job_id in ids:
                key = _pack(job_id)
                old = transaction.pop(key, db=self._jobs)
                assert old is not None
                _, status, _, _, number, *_ = _HEADER.unpack_from(old)
                transaction.delete(_STATUS_KEYS[status], key, db=self._by_status)
                transaction.delete(_pack(number * 256 + status), key, db=self._by_worker)

    def claim(self, limit: int) -> list[tuple[Record, Any]]:
        claimed = []
        with self._environment.begin(write=True) as transaction:
            with transaction.cursor(self._by_status) as cursor:
                found = cursor.set_key(_STATUS_KEYS[QUEUED])
                keys = list(islice(cursor.iternext_dup(), limit)) if found else []
            claim, now = self._next(transaction, b"next_claim", len(keys)), _now()
            for number, key in enumerate(keys, claim):
                record = self._transit(transaction, key, STARTED, _OWNER, number, now, 1)
                claimed.append((_unpack(key, record), cbor2.loads(_body(record))))
        return claimed

    def complete(self, job: tuple[Record, Any]) -> None:
        self.complete_many([job])

    def complete_many(self, jobs: Sequence[tuple[Record, Any]]) -> None:
        with self._environment.begin(write=True) as transaction:
            now = _now()
            for (job_id, _, _, _, _, _, claim, _, _), _ in jobs:
                self._transit(transaction, _pack(job_id), COMPLETED, 0, claim, now, 0)

    def _transit(
        self,
        transaction: lmdb.Transaction[bytes],
        key: bytes,
        status: int,
        owner: int,
        claim: int,
        now: int,
        attempts: int,
    ) -> bytes:
        old = transaction.get(key, db=self._jobs)
        assert old is not None
        _, was, flags, attempt, number, _, length, created, _, held = _HEADER.unpack_from(old)
        if status == COMPLETED and (was != STARTED or held != claim):
            raise ValueError("a stale claim")
        self._move(transaction, key, number, was, number, status)
        attempt += attempts
        header = (1, status, flags, attempt, number, owner, length, created, now, claim)
        record = _sealed(key, _HEADER.pack(*header) + _body(old))
        transaction.put(key, record, db=self._jobs)
        return record

    def _move(
        self,
        transaction: lmdb.Transaction[bytes],
        key: bytes,
        before: int,
        was: int,
        number: int,
        status: int,
    ) -> None:
        transaction.delete(_STATUS_KEYS[was], key, db=self._by_status)
        transaction.delete(_pack(before * 256 + was), key, db=self._by_worker)
        transaction.put(_STATUS_KEYS[status], key, db=self._by_status)
        transaction.put(_pack(number * 256 + status), key, db=self._by_worker)

    def _next(self, transaction: lmdb.Transaction[bytes], name: bytes, count: int) -> int:
        stored = transaction.get(name, db=self._meta)
        assert stored is not None
        value = int.from_bytes(stored, "little")
        transaction.put(name, _pack(value + count), db=self._meta)
        return value

    # --- Reads --------------------------------------------------------------

    def find(self, job_id: int) -> tuple[Record, Any]:
        key = _pack(job_id)
        with self._environment.begin() as transaction:
            record = transaction.get(key, db=self._jobs)
        assert record is not None
        return _unpack(key, record), cbor2.loads(_body(record))

    def iterate(self) -> int:
        seen = 0
        with (
            self._environment.begin() as transaction,
            transaction.cursor(self._jobs) as cursor,
        ):
            for key, record in cursor:
                _unpack(key, record)
                seen += 1
        return seen

    def iterate_arguments(self) -> int:
        seen = 0
        with (
            self._environment.begin() as transaction,
            transaction.cursor(self._jobs) as cursor,
        ):
            for key, record in cursor:
                _unpack(key, record)
                cbor2.loads(_body(record))
                seen += 1
        return seen

    def jobs_of(self, worker: str, limit: int) -> list[Record]:
        number = _NUMBERS[worker]
        ids = array("Q")
        with self._environment.begin() as transaction:
            with transaction.cursor(self._by_worker) as cursor:
                for status in range(len(STATUSES)):
                    if cursor.set_key(_pack(number * 256 + status)):
                        ids.frombytes(b"".join(islice(cursor.iternext_dup(), limit)))
            keys = [_pack(job_id) for job_id in sorted(ids)[:limit]]
            with transaction.cursor(self._jobs) as cursor:
                return [_unpack(key, record) for key, record in cursor.getmulti(keys)]

    def ids_of_status(self, status: int) -> list[int]:
        return self._ids(self._by_status, [_STATUS_KEYS[status]])

    def incomplete_ids(self) -> list[int]:
        return sorted(self._ids(self._by_status, [_STATUS_KEYS[code] for code in INCOMPLETE]))

    def ids_of_worker(self, worker: str) -> list[int]:
        first = _NUMBERS[worker] * 256
        keys = [_pack(first + status) for status in range(len(STATUSES))]
        return sorted(self._ids(self._by_worker, keys))

    def _ids(self, database: lmdb._Database, keys: list[bytes]) -> list[int]:
        with self._environment.begin() as transaction, transaction.cursor(database) as cursor:
            pairs = cursor.getmulti(keys, dupdata=True, dupfixed_bytes=8, keyfixed=True)
            ids: list[int] = pairs.cast("B").cast("Q")[1::2].tolist()
        return ids

    def count_failed(self) -> int:
        with (
            self._environment.begin() as transaction,
            transaction.cursor(self._by_status) as cursor,
        ):
            return cursor.count() if cursor.set_key(_STATUS_KEYS[FAILED]) else 0

    def counts(self) -> list[int]:
        with (
            self._environment.begin() as transaction,
            transaction.cursor(self._by_status) as cursor,
        ):
            return [cursor.count() if cursor.set_key(key) else 0 for key in _STATUS_KEYS]

    def id_of(self, job: Any) -> int:
        if isinstance(job, int):
            return job
        job_id: int = job[0][0] if isinstance(job[0], tuple) else job[0]
        return job_id

    def plain(self, job: Any) -> Plain:
        record, arguments = job if len(job) == 2 else (job, cbor2.loads(_body(job[-1])))
        return record[0], record[1], arguments, record[2]


class Puts(Floor):
    """insert_many with keys and records made before."""

    name = "puts"

    def ready(self, rows: Sequence[Row]) -> tuple[int, list[tuple[Pairs, Pairs, Pairs]]]:
        with self._environment.begin() as transaction:
            stored = transaction.get(b"next_id", db=self._meta)
        assert stored is not None
        first, now = int.from_bytes(stored, "little"), _now()
        starts = range(0, len(rows), _PIECE)
        pieces = [_encode(first + start, rows[start : start + _PIECE], now) for start in starts]
        return len(rows), pieces

    def insert_many(self, ready: Any) -> range:
        count, pieces = ready
        with self._environment.begin(write=True) as transaction:
            first = self._next(transaction, b"next_id", count)
            for piece in pieces:
                self._put(transaction, *piece)
        return range(first, first + count)


def _encode(first: int, rows: Sequence[Row], now: int) -> tuple[Pairs, Pairs, Pairs]:
    """Keys and values for the three databases."""
    jobs: Pairs = []
    by_status: Pairs = []
    by_worker: Pairs = []
    for job_id, (worker, arguments, status) in enumerate(rows, first):
        number, status_key, worker_key = _KINDS[worker, status]
        key = _pack(job_id)
        jobs.append((key, _record(key, number, status, arguments, now)))
        by_status.append((status_key, key))
        by_worker.append((worker_key, key))
    return jobs, by_status, by_worker


def _record(key: bytes, number: int, status: int, arguments: Any, now: int) -> bytes:
    body = cbor2.dumps(arguments)
    head = _HEADER.pack(1, status, 0, 0, number, 0, len(body), now, now, 0)
    return _sealed(key, head + body)


def _sealed(key: bytes, record: bytes) -> bytes:
    return record + _CRC.pack(crc32(record, crc32(key)))


def _body(record: bytes) -> bytes:
    return record[_HEADER.size : -_CRC.size]


def _unpack(key: bytes, record: bytes) -> Record:
    _, status, _, attempt, number, owner, _, created, updated, claim = _HEADER.unpack_from(record)
    job_id = int.from_bytes(key, "little")
    return job_id, _NAMES[number], status, created, updated, attempt, claim, owner, record


def _now() -> int:
    return time.time_ns() // 1000
