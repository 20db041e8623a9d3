"""litequeue: a queue in a table of SQLite, with messages that are popped and done."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from litequeue import LiteQueue, Message

from bench.compare.peer import Ability, Durability, Fairness, Peer, Queue, Size, Way
from bench.data import Row

NAME: Final = "litequeue"

_TIMEOUT: Final = 60.0  # seconds that a connection waits for others


class Litequeue(Queue):
    """One queue; a thread has one of its own, since a pop is a transaction of its connection."""

    can = frozenset({Ability.INSERT_BATCH, Ability.PROCESSES})
    busy = (sqlite3.OperationalError,)

    def __init__(self, place: Path) -> None:
        self._place = place
        self._path = place / "queue.db"
        self._queue = LiteQueue(self._path, timeout=_TIMEOUT)

    def close(self) -> None:
        self._queue.close()

    def insert(self, row: Row) -> Message:
        worker, arguments, _ = row
        return self._queue.put(json.dumps([worker, arguments]))

    def insert_many(self, ready: Any) -> list[Message]:
        with self._queue.transaction():
            return [self.insert(row) for row in ready]

    def claim(self, limit: int) -> list[tuple[Message, Any]]:
        jobs: list[tuple[Message, Any]] = []
        for _ in range(limit):
            try:
                message = self._queue.pop()
            except sqlite3.OperationalError:
                if not jobs:
                    raise
                break  # those in hand are not to be lost
            if message is None:
                break
            jobs.append((message, json.loads(message.data)))
        return jobs

    def complete(self, job: tuple[Message, Any]) -> None:
        self._queue.done(job[0].message_id)

    def number(self, job: tuple[Message, Any]) -> int:
        return int(job[1][1]["user"])

    def waiting(self) -> int:
        return int(self._queue.qsize())

    def ways(self) -> dict[str, Way]:
        return {"a connection a thread": self._own_connection}

    @contextmanager
    def _own_connection(self) -> Iterator[Callable[[Row], object]]:
        with Litequeue(self._place) as own:
            yield own.insert

    def size(self) -> Size:
        self._queue.conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        size = self._path.stat().st_size
        return Size(size, size)


PEERS: Final = (
    Peer(
        NAME,
        "litequeue",
        Durability.EPHEMERAL,
        "its default, WAL and synchronous=NORMAL: loss of power may undo the last commits, and "
        "never corrupts the file",
        lambda place, jobs: Litequeue(place),
        Litequeue,
    ),
)

FAIRNESS: Final = Fairness(
    "litequeue",
    "put, pop and done; a batch is put inside of `transaction()`; JSON for arguments; a busy "
    "timeout of 60 s.",
    "a bound on its length; ids that are UUIDs.",
    "a pop sorts all that waits, so it gets slower as the queue grows; one message a pop; no "
    "workers, no listing but of locked and failed messages; done does not check who holds it; "
    "nobody gives back what a dead process held.",
)
