"""huey's SqliteStorage: the storage below huey's tasks, without huey's consumer."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any, Final

from huey.storage import SqliteStorage

from bench.compare.peer import Ability, Durability, Fairness, Peer, Queue, Size
from bench.data import Row

DEFAULT: Final = "huey"
OFF: Final = "huey fsync=False"


class Huey(Queue):
    """One storage, shared by the threads of a process (it has a lock)."""

    can = frozenset({Ability.PROCESSES})
    busy = (sqlite3.OperationalError,)

    def __init__(self, place: Path, fsync: bool | None) -> None:
        self._path = place / "huey.db"
        self._storage = SqliteStorage("bench", filename=str(self._path), fsync=fsync)

    def close(self) -> None:
        self._storage.close()

    def insert(self, row: Row) -> None:
        worker, arguments, _ = row
        self._storage.enqueue(json.dumps([worker, arguments]).encode())

    def claim(self, limit: int) -> list[Any]:
        jobs: list[Any] = []
        for _ in range(limit):
            try:
                data = self._storage.dequeue()
            except sqlite3.OperationalError:
                if not jobs:
                    raise
                break  # those in hand are not to be lost
            if data is None:
                break
            jobs.append(json.loads(data))
        return jobs

    def complete(self, job: Any) -> None:
        """Nothing: it was deleted when it was claimed."""

    def number(self, job: Any) -> int:
        return int(job[1]["user"])

    def waiting(self) -> int:
        count: int = self._storage.queue_size()
        return count

    def size(self) -> Size:
        self._storage.sql("PRAGMA wal_checkpoint(TRUNCATE)", results=True)
        size = self._path.stat().st_size
        return Size(size, size)


PEERS: Final = (
    Peer(
        DEFAULT,
        "huey",
        Durability.FULL,
        "its default, fsync=None: SQLite's own default in WAL, synchronous=FULL, one sync a commit",
        lambda place, jobs: Huey(place, None),
        Huey,
    ),
    Peer(
        OFF,
        "huey",
        Durability.EPHEMERAL,
        "fsync=False: synchronous=OFF, no sync; loss of power may corrupt the file",
        lambda place, jobs: Huey(place, False),
        Huey,
    ),
)

FAIRNESS: Final = Fairness(
    "huey",
    "SqliteStorage.enqueue and dequeue alone, without the message that huey makes of a task; "
    "JSON for arguments.",
    "priorities, schedules, results, retries, periodic tasks, a consumer, other storages.",
    "a dequeue deletes: what a worker held when it died is lost, there is nothing to "
    "complete, no history, no statuses and no listing by them; one job a transaction.",
)
