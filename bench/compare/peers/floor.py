"""The floor: what a minimal program does with py-lmdb to keep the same bytes.

The same databases with the same flags, the same transactions, syncs and (but for the head
start below) puts and gets: a record of 44 bytes of header, CBOR and a CRC-32, an entry in
either index, the counters. Arguments are encoded and decoded with plain cbor2 where quelmdb
encodes and decodes them: they are values of the program, not bytes. What is left out is
what a library adds: checks of its input, checksums and plausibility on reading (they are
written, since the bytes are the same, but not looked at), objects (tuples are handed back),
errors, names of unknown workers, owners, views that are read page by page, space kept in
reserve. Where one loop over the primary database answers, it does not go by an index.
"""

from __future__ import annotations

import os
import threading
import time
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from struct import Struct
from typing import Any, Final
from zlib import crc32

import cbor2
import lmdb

from bench.compare.peer import Ability, Durability, Fairness, Peer, Plain, Size, Store, Way
from bench.compare.peers.ours import room_for
from bench.data import COMPLETED, FAILED, INCOMPLETE, QUEUED, STARTED, STATUSES, WORKERS, Row

FULL: Final = "floor full"
EPHEMERAL: Final = "floor ephemeral"

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


class Floor(Store):
    """py-lmdb, one environment."""

    can = frozenset(Ability)

    def __init__(self, place: Path, durability: Durability, jobs: int) -> None:
        path = place / "data.mdb"
        is_new = not path.exists()
        if durability == Durability.FULL:
            self._environment = lmdb.open(str(place), map_size=2**40, max_dbs=16, lib_version=0)
        else:
            capacity = room_for(jobs) if is_new else 0
            self._environment = lmdb.open(
                str(place),
                map_size=capacity,
                max_dbs=16,
                lib_version=0,
                sync=False,
                writemap=True,
            )
            if is_new:
                with path.open("r+b") as file:
                    os.posix_fallocate(file.fileno(), 0, capacity)
        self._lock = threading.Lock()
        self._jobs = self._environment.open_db(b"jobs", integerkey=True)
        self._by_status = self._open_index(b"by_status")
        self._by_worker = self._open_index(b"by_worker_status")
        self._meta = self._environment.open_db(b"meta")
        if is_new:
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
        transaction.delete(_STATUS_KEYS[was], key, db=self._by_status)
        transaction.delete(_pack(number * 256 + was), key, db=self._by_worker)
        transaction.put(_STATUS_KEYS[status], key, db=self._by_status)
        transaction.put(_pack(number * 256 + status), key, db=self._by_worker)
        attempt += attempts
        header = (1, status, flags, attempt, number, owner, length, created, now, claim)
        record = _sealed(key, _HEADER.pack(*header) + _body(old))
        transaction.put(key, record, db=self._jobs)
        return record

    def _next(self, transaction: lmdb.Transaction[bytes], name: bytes, count: int) -> int:
        stored = transaction.get(name, db=self._meta)
        assert stored is not None
        value = int.from_bytes(stored, "little")
        transaction.put(name, _pack(value + count), db=self._meta)
        return value

    def number(self, job: tuple[Record, Any]) -> int:
        return int(job[1]["user"])

    def waiting(self) -> int:
        return self._count(QUEUED)

    def ways(self) -> dict[str, Way]:
        return {"one lock": lambda: nullcontext(self._insert_locked)}

    def _insert_locked(self, row: Row) -> int:
        with self._lock:
            return self.insert(row)

    # --- Reads --------------------------------------------------------------

    def find(self, job_id: int) -> tuple[Record, Any]:
        key = _pack(job_id)
        with self._environment.begin() as transaction:
            record = transaction.get(key, db=self._jobs)
        assert record is not None
        return _unpack(key, record), cbor2.loads(_body(record))

    def iterate(self, status: int | None, decoded: bool) -> int:
        seen = 0
        with self._environment.begin() as transaction:
            if status is None:
                pairs: Iterable[tuple[bytes, bytes]] = transaction.cursor(self._jobs)
            else:
                pairs = self._pairs(transaction, status)
            if decoded:
                for key, record in pairs:
                    _unpack(key, record)
                    cbor2.loads(_body(record))
                    seen += 1
            else:
                for key, record in pairs:
                    _unpack(key, record)
                    seen += 1
        return seen

    def _pairs(
        self, transaction: lmdb.Transaction[bytes], status: int
    ) -> Iterator[tuple[bytes, bytes]]:
        with transaction.cursor(self._by_status) as index, transaction.cursor(self._jobs) as jobs:
            if index.set_key(_STATUS_KEYS[status]):
                keys = index.iternext_dup()
                while piece := list(islice(keys, _PIECE)):
                    yield from jobs.getmulti(piece)

    def of_worker(self, worker: str, limit: int) -> list[Record]:
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

    def page_of_status(self, status: int, after: int, limit: int) -> list[int]:
        with (
            self._environment.begin() as transaction,
            transaction.cursor(self._by_status) as cursor,
        ):
            if not cursor.set_range_dup(_STATUS_KEYS[status], _pack(after + 1)):
                return []
            ids = array("Q", b"".join(islice(cursor.iternext_dup(), limit)))
        return ids.tolist()

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
        return self._count(FAILED)

    def _count(self, status: int) -> int:
        with (
            self._environment.begin() as transaction,
            transaction.cursor(self._by_status) as cursor,
        ):
            return cursor.count() if cursor.set_key(_STATUS_KEYS[status]) else 0

    def counts(self) -> list[int]:
        with (
            self._environment.begin() as transaction,
            transaction.cursor(self._by_status) as cursor,
        ):
            return [cursor.count() if cursor.set_key(key) else 0 for key in _STATUS_KEYS]

    def plain(self, job: Any) -> Plain:
        record, arguments = job if len(job) == 2 else (job, cbor2.loads(_body(job[-1])))
        return record[0], record[1], arguments, record[2]


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


PEERS: Final = (
    Peer(
        FULL,
        "floor",
        Durability.FULL,
        "LMDB by default: two syncs of the disk a commit",
        lambda place, jobs: Floor(place, Durability.FULL, jobs),
        Floor,
    ),
    Peer(
        EPHEMERAL,
        "floor",
        Durability.EPHEMERAL,
        "sync=False, writemap=True, a map of fixed size that is allocated: no sync",
        lambda place, jobs: Floor(place, Durability.EPHEMERAL, jobs),
        Floor,
    ),
)

FAIRNESS: Final = Fairness(
    "floor",
    "raw py-lmdb: a minimal program that keeps the bytes that quelmdb keeps, in the same databases "
    "and transactions. What quelmdb takes above it is what a library costs.",
    "nothing.",
    "no checks of input, no checksums looked at on reading, tuples for jobs, no errors of its "
    "own, no owners, no rescue, no space in reserve, no group commit (threads share a lock).",
)
