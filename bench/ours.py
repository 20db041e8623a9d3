"""quelmdb, by its public API: `Job`s go in, and `Job`s come out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import quelmdb
from bench.contestant import Contestant, Plain, Size
from bench.data import STATUSES, Row
from quelmdb import Job, Status


class Ours(Contestant):
    """Durability "full", everything else by default."""

    name = "quelmdb"

    def __init__(self, directory: Path) -> None:
        self._store = quelmdb.open(directory / "jobs.qdb", durability="full")

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
        worker, arguments, status = row
        return self._store.insert(Job(worker, arguments, status=STATUSES[status]))

    def insert_many(self, ready: list[Job]) -> list[Job]:
        return self._store.insert_many(ready)

    def update(self, job_id: int, row: Row) -> None:
        worker, arguments, status = row
        self._store.update(Job(worker, arguments, id=job_id, status=STATUSES[status]))

    def update_many(self, changes: Sequence[tuple[int, Row]]) -> None:
        self._store.update_many(
            Job(worker, arguments, id=job_id, status=STATUSES[status])
            for job_id, (worker, arguments, status) in changes
        )

    def destroy_many(self, ids: Sequence[int]) -> None:
        self._store.destroy_many(ids)

    def claim(self, limit: int) -> list[Job]:
        jobs = self._store.claim(limit=limit)
        for job in jobs:
            job.arguments  # noqa: B018 (decodes them)
        return jobs

    def complete(self, job: Job) -> None:
        self._store.complete(job)

    def complete_many(self, jobs: Sequence[Job]) -> None:
        self._store.complete_many(jobs)

    def find(self, job_id: int) -> Job | None:
        job = self._store.find(job_id)
        assert job is not None
        job.arguments  # noqa: B018
        return job

    def iterate(self) -> int:
        seen = 0
        with self._store.snapshot() as snapshot:
            for _ in snapshot.all():
                seen += 1
        return seen

    def iterate_arguments(self) -> int:
        seen = 0
        with self._store.snapshot() as snapshot:
            for job in snapshot.all():
                job.arguments  # noqa: B018
                seen += 1
        return seen

    def jobs_of(self, worker: str, limit: int) -> list[Job]:
        return list(self._store.all(worker, limit=limit))

    def ids_of_status(self, status: int) -> list[int]:
        return list(self._store.jobs(STATUSES[status]).ids())

    def incomplete_ids(self) -> list[int]:
        return list(self._store.incomplete().ids())

    def ids_of_worker(self, worker: str) -> list[int]:
        return list(self._store.all(worker).ids())

    def count_failed(self) -> int:
        return len(self._store.failed())

    def counts(self) -> list[int]:
        counts: dict[Status, int] = self._store.counts()
        return list(counts.values())

    def id_of(self, job: Any) -> int:
        assert job.id is not None
        return int(job.id)

    def plain(self, job: Any) -> Plain:
        return self.id_of(job), job.worker, job.arguments, STATUSES.index(job.status)
