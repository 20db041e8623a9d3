"""The jobs of every measurement: one shape, made alike for every store and run."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Final

from quelmdb import Status

Row = tuple[str, dict[str, Any], int]
"""A job as plain values: worker, arguments, status code. Every peer starts from it."""

STATUSES: Final = tuple(Status)
SCHEDULED, QUEUED, STARTED, COMPLETED, FAILED, CANCELLED = range(len(STATUSES))
INCOMPLETE: Final = (SCHEDULED, QUEUED, STARTED)

# Per cent, as a queue with some history has them. Drawn for each job on its own, so ids of
# all statuses interleave: the worst case for merging listings and for finding neighbours.
_MIX: Final = {SCHEDULED: 2, QUEUED: 20, STARTED: 3, COMPLETED: 65, FAILED: 8, CANCELLED: 2}

WORKERS: Final = tuple(f"mail.send_{number:02d}" for number in range(10))
RARE: Final = WORKERS[0]
"""Has `RARE_JOBS` jobs at every size, spread evenly over the ids."""
RARE_JOBS: Final = 100
BUSY: Final = WORKERS[1]
"""One of the nine that share the others."""

SMALLEST: Final = 1000


class Data:
    """The jobs of one size, which get the ids from 1: two bytes a job until they are asked for."""

    def __init__(self, size: int) -> None:
        if size < SMALLEST:
            raise ValueError(f"a size is {SMALLEST} jobs or more, not {size}")
        dice = random.Random(size)
        self.size = size
        self._statuses = bytes(dice.choices(tuple(_MIX), tuple(_MIX.values()), k=size))
        workers = bytearray(dice.choices(range(1, len(WORKERS)), k=size))
        step = size // RARE_JOBS
        workers[step // 2 : step * RARE_JOBS : step] = bytes(RARE_JOBS)
        self._workers = bytes(workers)

    def row(self, job_id: int) -> Row:
        """The job that is filled in under an id."""
        worker, status = self._workers[job_id - 1], self._statuses[job_id - 1]
        return WORKERS[worker], _arguments(job_id), status

    def rows(self, after: int, count: int) -> list[Row]:
        """The jobs of at most `count` ids above `after`."""
        return [self.row(job_id) for job_id in range(after + 1, min(after + count, self.size) + 1)]

    def ids_of(self, statuses: Sequence[int]) -> list[int]:
        """The ids of the jobs in these statuses, ascending."""
        return [number for number, status in enumerate(self._statuses, 1) if status in statuses]

    def ids_of_worker(self, worker: str) -> list[int]:
        wanted = WORKERS.index(worker)
        return [number for number, index in enumerate(self._workers, 1) if index == wanted]

    @staticmethod
    def sample(size: int, count: int) -> list[int]:
        """At most `count` ids of a store of that size, at random, the same in every round."""
        return random.Random(count).sample(range(1, size + 1), min(count, size))


def queued(number: int) -> Row:
    """A job that waits to be claimed, and carries its number."""
    return WORKERS[number % len(WORKERS)], _arguments(number), QUEUED


def _arguments(number: int) -> dict[str, Any]:
    return {"user": number, "template": "welcome"}
