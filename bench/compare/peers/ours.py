"""quelmdb, by its public API: `Job`s go in, and `Job`s come out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import quelmdb
import quelmdb.aio
from bench.compare.peer import Ability, AsyncInsert, Durability, Fairness, Peer, Plain, Size, Store
from bench.data import STATUSES, Row
from quelmdb import Job

FULL: Final = "quelmdb full"
EPHEMERAL: Final = "quelmdb ephemeral"

_CAPACITY_A_JOB: Final = 400  # bytes
_CAPACITY: Final = 16 * 2**20


class Ours(Store):
    """Everything by default but the durability, and the capacity that goes with "ephemeral"."""

    can = frozenset(Ability)

    def __init__(self, place: Path, durability: Durability, jobs: int) -> None:
        path = place / "jobs.qdb"
        if durability == Durability.FULL:
            self._store = quelmdb.open(path, durability="full")
        else:
            capacity = None if path.exists() else room_for(jobs)
            self._store = quelmdb.open(path, durability="ephemeral", capacity=capacity)

    def close(self) -> None:
        self._store.close()

    def size(self) -> Size:
        info = self._store.info()
        return Size(info.used_bytes, info.file_bytes)

    def ready(self, rows: Sequence[Row]) -> list[Job]:
        return [
            Job(worker, arguments, status=STATUSES[status]) for worker, arguments, status in rows
        ]

    def insert(self, row: Row) -> Job:
        return self._store.insert(Job(row[0], row[1], status=STATUSES[row[2]]))

    def insert_many(self, ready: list[Job]) -> list[Job]:
        return self._store.insert_many(ready)

    def claim(self, limit: int) -> list[Job]:
        jobs = self._store.claim(limit=limit)
        for job in jobs:
            job.arguments  # noqa: B018 (decodes them)
        return jobs

    def complete(self, job: Job) -> None:
        self._store.complete(job)

    def complete_many(self, jobs: Sequence[Job]) -> None:
        self._store.complete_many(jobs)

    def number(self, job: Job) -> int:
        return int(job.arguments["user"])

    def waiting(self) -> int:
        return len(self._store.jobs("queued"))

    def find(self, job_id: int) -> Job:
        job = self._store.find(job_id)
        assert job is not None
        job.arguments  # noqa: B018
        return job

    def iterate(self, status: int | None, decoded: bool) -> int:
        seen = 0
        with self._store.snapshot() as snapshot:
            jobs = snapshot.jobs() if status is None else snapshot.jobs(STATUSES[status])
            if decoded:
                for job in jobs:
                    job.arguments  # noqa: B018
                    seen += 1
            else:
                for _ in jobs:
                    seen += 1
        return seen

    def of_worker(self, worker: str, limit: int) -> list[Job]:
        return list(self._store.all(worker, limit=limit))

    def ids_of_status(self, status: int) -> list[int]:
        return list(self._store.jobs(STATUSES[status]).ids())

    def page_of_status(self, status: int, after: int, limit: int) -> list[int]:
        return list(self._store.jobs(STATUSES[status], after=after, limit=limit).ids())

    def incomplete_ids(self) -> list[int]:
        return list(self._store.incomplete().ids())

    def ids_of_worker(self, worker: str) -> list[int]:
        return list(self._store.all(worker).ids())

    def count_failed(self) -> int:
        return len(self._store.failed())

    def counts(self) -> list[int]:
        return list(self._store.counts().values())

    def plain(self, job: Any) -> Plain:
        return int(job.id), job.worker, job.arguments, STATUSES.index(job.status)


@asynccontextmanager
async def _async_insert(
    place: Path, durability: Durability, jobs: int
) -> AsyncIterator[AsyncInsert]:
    capacity = room_for(jobs) if durability == Durability.EPHEMERAL else None
    async with await quelmdb.aio.open(
        place / "jobs.qdb", durability=durability.value, capacity=capacity
    ) as store:

        async def insert(row: Row) -> Job:
            return await store.insert(Job(row[0], row[1], status=STATUSES[row[2]]))

        yield insert


def room_for(jobs: int) -> int:
    """The capacity of an ephemeral store for so many jobs of this size."""
    return jobs * _CAPACITY_A_JOB + _CAPACITY


def _peer(name: str, durability: Durability, setting: str) -> Peer:
    return Peer(
        name,
        "quelmdb",
        durability,
        setting,
        lambda place, jobs: Ours(place, durability, jobs),
        Ours,
        open_async=lambda place, jobs: _async_insert(place, durability, jobs),
    )


PEERS: Final = (
    _peer(FULL, Durability.FULL, 'durability="full": two syncs of the disk a commit'),
    _peer(
        EPHEMERAL,
        Durability.EPHEMERAL,
        'durability="ephemeral": no sync; loss of power may destroy the store',
    ),
)

FAIRNESS: Final = Fairness(
    "quelmdb",
    "the public API; arguments are CBOR; every checksum is verified when a job is read.",
    "",
    "",
)
