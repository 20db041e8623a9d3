"""The standard library's sqlite3, as somebody who knows it would use it for this.

WAL, at each synchronous level: with FULL a write is on the disk when it returns. The same
columns, and the two indexes that the listings need: (status, id) and (worker, status, id),
declared without the id, which SQLite appends to every entry by itself (the same order, 8 %
smaller, tried). JSON for arguments, with an encoder made once. Every statement is prepared
once; transactions are explicit; a claim is one round trip (UPDATE ... RETURNING), and the
fence is checked when completing. AUTOINCREMENT, because an id is never to be given out
twice. Statuses are integers; workers are text, as everybody has them. The cache is large
enough for everything, and the file is mapped beside it; checkpoints are by default (1,000
pages). Of several ways to write a query the quickest that was found is taken: listings
that merge statuses are a UNION ALL, which SQLite merges by id (IN sorts instead), and there
is no ANALYZE, after which it prefers to scan the whole table.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Final

from bench.compare.peer import Ability, Durability, Fairness, Peer, Plain, Size, Store, Way
from bench.data import COMPLETED, FAILED, INCOMPLETE, QUEUED, STARTED, STATUSES, Row

FULL: Final = "sqlite3 FULL"
NORMAL: Final = "sqlite3 NORMAL"
OFF: Final = "sqlite3 OFF"

_TIMEOUT: Final = 60.0  # seconds that a connection waits for others

_encode: Final = json.JSONEncoder(separators=(",", ":")).encode
_decode: Final = json.JSONDecoder().decode

_COLUMNS: Final = (
    "id, worker, arguments, status, created_at, updated_at, attempt, claim, owner, result, error"
)
_SCHEMA: Final = """
    CREATE TABLE jobs (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        worker TEXT,
        arguments TEXT NOT NULL,
        status INTEGER NOT NULL,
        created_at INTEGER NOT NULL,
        updated_at INTEGER NOT NULL,
        attempt INTEGER NOT NULL DEFAULT 0,
        claim INTEGER NOT NULL DEFAULT 0,
        owner INTEGER NOT NULL DEFAULT 0,
        result TEXT,
        error TEXT
    );
    CREATE INDEX by_status ON jobs (status);
    CREATE INDEX by_worker_status ON jobs (worker, status);
"""
_INSERT: Final = (
    "INSERT INTO jobs (worker, arguments, status, created_at, updated_at) VALUES (?, ?, ?, ?, ?)"
)
_CLAIM: Final = f"""
    UPDATE jobs SET status = {STARTED}, attempt = attempt + 1, claim = claim + 1, owner = 1,
        updated_at = ?
    WHERE id IN (SELECT id FROM jobs WHERE status = {QUEUED} ORDER BY id LIMIT ?)
    RETURNING {_COLUMNS}
"""
_COMPLETE: Final = f"""
    UPDATE jobs SET status = {COMPLETED}, owner = 0, updated_at = ?
    WHERE id = ? AND status = {STARTED} AND claim = ?
"""
_FIND: Final = f"SELECT {_COLUMNS} FROM jobs WHERE id = ?"
_ALL: Final = f"SELECT {_COLUMNS} FROM jobs ORDER BY id"
_OF_STATUS: Final = f"SELECT {_COLUMNS} FROM jobs WHERE status = ? ORDER BY id"
_FIRST_OF_WORKER: Final = " UNION ALL ".join(
    "SELECT * FROM "
    f"(SELECT id FROM jobs WHERE worker = ?1 AND status = {code} ORDER BY id LIMIT ?2)"
    for code in range(len(STATUSES))
)
_JOBS_OF_WORKER: Final = (
    f"SELECT {_COLUMNS} FROM jobs WHERE id IN ({_FIRST_OF_WORKER}) ORDER BY id LIMIT ?2"
)
_IDS_OF_STATUS: Final = "SELECT id FROM jobs WHERE status = ? ORDER BY id"
_PAGE_OF_STATUS: Final = "SELECT id FROM jobs WHERE status = ? AND id > ? ORDER BY id LIMIT ?"
_IDS_OF_WORKER: Final = (
    " UNION ALL ".join(
        f"SELECT id FROM jobs WHERE worker = ?1 AND status = {code}"
        for code in range(len(STATUSES))
    )
    + " ORDER BY id"
)
_INCOMPLETE_IDS: Final = (
    " UNION ALL ".join(f"SELECT id FROM jobs WHERE status = {code}" for code in INCOMPLETE)
    + " ORDER BY id"
)
_COUNT: Final = "SELECT count(*) FROM jobs WHERE status = ?"
_COUNTS: Final = "SELECT status, count(*) FROM jobs GROUP BY status"

JobRow = tuple[Any, ...]


class Sqlite(Store):
    """sqlite3, one connection."""

    can = frozenset(Ability)
    busy = (sqlite3.OperationalError,)

    def __init__(self, place: Path, synchronous: str) -> None:
        self._place = place
        self._synchronous = synchronous
        self._path = place / "jobs.sqlite3"
        is_new = not self._path.exists()
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(
            self._path, isolation_level=None, timeout=_TIMEOUT, check_same_thread=False
        )
        self._execute = self._connection.execute
        for pragma in (
            "journal_mode = WAL",
            f"synchronous = {synchronous}",
            f"cache_size = -{1024 * 1024}",  # KiB
            f"mmap_size = {2**31}",
        ):
            self._execute(f"PRAGMA {pragma}")
        if is_new:
            self._connection.executescript(_SCHEMA)

    def close(self) -> None:
        self._connection.close()

    def settle(self) -> None:
        self._execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def size(self) -> Size:
        self.settle()
        size = self._path.stat().st_size
        return Size(size, size)

    # --- Writes -------------------------------------------------------------

    def insert(self, row: Row) -> int:
        worker, arguments, status = row
        now = _now()
        cursor = self._execute(_INSERT, (worker, _encode(arguments), status, now, now))
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def insert_many(self, ready: Any) -> range:
        now = _now()
        with _Transaction(self._execute):
            self._connection.executemany(
                _INSERT,
                (
                    (worker, _encode(arguments), status, now, now)
                    for worker, arguments, status in ready
                ),
            )
            (last,) = self._execute("SELECT last_insert_rowid()").fetchone()
        return range(last - len(ready) + 1, last + 1)

    def claim(self, limit: int) -> list[tuple[JobRow, Any]]:
        rows = self._execute(_CLAIM, (_now(), limit)).fetchall()
        rows.sort()  # RETURNING has no order
        return [(row, _decode(row[2])) for row in rows]

    def complete(self, job: tuple[JobRow, Any]) -> None:
        row, _ = job
        if self._execute(_COMPLETE, (_now(), row[0], row[7])).rowcount != 1:
            raise ValueError("a stale claim")

    def complete_many(self, jobs: Sequence[tuple[JobRow, Any]]) -> None:
        now = _now()
        with _Transaction(self._execute):
            cursor = self._connection.executemany(
                _COMPLETE, ((now, row[0], row[7]) for row, _ in jobs)
            )
            if cursor.rowcount != len(jobs):
                raise ValueError("a stale claim")

    def number(self, job: tuple[JobRow, Any]) -> int:
        return int(job[1]["user"])

    def waiting(self) -> int:
        return self._count(QUEUED)

    def ways(self) -> dict[str, Way]:
        return {
            "a connection a thread": self._own_connection,
            "one connection and a lock": lambda: nullcontext(self._insert_locked),
        }

    @contextmanager
    def _own_connection(self) -> Iterator[Callable[[Row], object]]:
        with Sqlite(self._place, self._synchronous) as own:
            yield own.insert

    def _insert_locked(self, row: Row) -> int:
        with self._lock:
            return self.insert(row)

    # --- Reads --------------------------------------------------------------

    def find(self, job_id: int) -> tuple[JobRow, Any]:
        row = self._execute(_FIND, (job_id,)).fetchone()
        return row, _decode(row[2])

    def iterate(self, status: int | None, decoded: bool) -> int:
        seen = 0
        rows = self._execute(_ALL) if status is None else self._execute(_OF_STATUS, (status,))
        if decoded:
            for row in rows:
                _decode(row[2])
                seen += 1
        else:
            for _ in rows:
                seen += 1
        return seen

    def of_worker(self, worker: str, limit: int) -> list[JobRow]:
        return self._execute(_JOBS_OF_WORKER, (worker, limit)).fetchall()

    def ids_of_status(self, status: int) -> list[int]:
        return self._ids(_IDS_OF_STATUS, (status,))

    def page_of_status(self, status: int, after: int, limit: int) -> list[int]:
        return self._ids(_PAGE_OF_STATUS, (status, after, limit))

    def incomplete_ids(self) -> list[int]:
        return self._ids(_INCOMPLETE_IDS, ())

    def ids_of_worker(self, worker: str) -> list[int]:
        return self._ids(_IDS_OF_WORKER, (worker,))

    def _ids(self, query: str, values: tuple[Any, ...]) -> list[int]:
        return [job_id for (job_id,) in self._execute(query, values)]

    def count_failed(self) -> int:
        return self._count(FAILED)

    def _count(self, status: int) -> int:
        count: int = self._execute(_COUNT, (status,)).fetchone()[0]
        return count

    def counts(self) -> list[int]:
        counts = [0] * len(STATUSES)
        for status, count in self._execute(_COUNTS):
            counts[status] = count
        return counts

    def plain(self, job: Any) -> Plain:
        row, arguments = job if len(job) == 2 else (job, _decode(job[2]))
        return row[0], row[1], arguments, row[3]


class _Transaction:
    """BEGIN IMMEDIATE ... COMMIT, or ROLLBACK."""

    def __init__(self, execute: Any) -> None:
        self._execute = execute

    def __enter__(self) -> None:
        self._execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: object, *args: object) -> None:
        self._execute("COMMIT" if kind is None else "ROLLBACK")


def _now() -> int:
    return time.time_ns() // 1000


def _peer(name: str, durability: Durability, setting: str) -> Peer:
    synchronous = name.split()[-1]
    return Peer(
        name, "sqlite3", durability, setting, lambda place, jobs: Sqlite(place, synchronous), Sqlite
    )


PEERS: Final = (
    _peer(FULL, Durability.FULL, "WAL, synchronous=FULL: one sync of the disk a commit"),
    _peer(
        NORMAL,
        Durability.EPHEMERAL,
        "WAL, synchronous=NORMAL: loss of power may undo the last commits, and never "
        "corrupts the file, which is more than quelmdb ephemeral promises",
    ),
    _peer(
        OFF,
        Durability.EPHEMERAL,
        "WAL, synchronous=OFF: no sync; loss of power may corrupt the file",
    ),
)

FAIRNESS: Final = Fairness(
    "sqlite3",
    "the standard library's, one table with the same columns and two indexes, JSON arguments, "
    "cache and map larger than the file, statements prepared once, a claim in one UPDATE … "
    "RETURNING, a busy timeout of 60 s. With several threads, the quicker of a connection a "
    "thread and one connection behind a lock.",
    "any query in SQL, whatever nobody thought of; one sync a commit where LMDB needs two.",
    "rows are tuples that nobody has checked; nobody gives back what a dead process held; "
    "waiting writers poll, and may be told that the database is locked.",
)
