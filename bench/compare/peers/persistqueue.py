"""persist-queue's SQLiteAckQueue: items that are got, and acknowledged."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any, Final

from persistqueue import Empty, SQLiteAckQueue
from persistqueue.serializers import json

from bench.compare.peer import Durability, Fairness, Peer, Queue, Size
from bench.data import Row

NAME: Final = "persist-queue"


class PersistQueue(Queue):
    """One queue with `multithreading=True`, shared by the threads of a process."""

    busy = (sqlite3.OperationalError,)

    def __init__(self, place: Path) -> None:
        self._path = place / "data.db"
        self._queue = SQLiteAckQueue(str(place), multithreading=True, serializer=json)

    def close(self) -> None:
        self._queue.close()

    def insert(self, row: Row) -> Any:
        worker, arguments, _ = row
        return self._queue.put([worker, arguments])

    def claim(self, limit: int) -> list[Any]:
        jobs: list[Any] = []
        try:
            while len(jobs) < limit:
                jobs.append(self._queue.get(block=False, raw=True))
        except Empty:
            pass
        return jobs

    def complete(self, job: Any) -> None:
        self._queue.ack(job)

    def number(self, job: Any) -> int:
        return int(job["data"][1]["user"])

    def waiting(self) -> int:
        return int(self._queue.size)

    def size(self) -> Size:
        path = str(self._path)
        with sqlite3.connect(path) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()
        size = self._path.stat().st_size
        return Size(size, size)


PEERS: Final = (
    Peer(
        NAME,
        "persist-queue",
        Durability.FULL,
        "auto_commit=True (its only mode with acknowledgements): WAL and SQLite's own default, "
        "synchronous=FULL, one sync a commit",
        lambda place, jobs: PersistQueue(place),
        PersistQueue,
    ),
)

FAIRNESS: Final = Fairness(
    "persist-queue",
    "SQLiteAckQueue with multithreading=True; put, get and ack; its own JSON serializer.",
    "blocking gets, queues in plain files, in MySQL, with priorities, unique items, asyncio.",
    "a get scans what was acknowledged and not cleared, so it gets slower as history grows; "
    "threads alone: opened in a second process it hands out again what the first has taken; "
    "one item a transaction; no workers, no listing; its size counts what this process did.",
)
