"""The jobs of every measurement: one shape, made alike for every contestant and run."""

from __future__ import annotations

import random
from functools import cached_property
from typing import Any, Final

from quelmdb import Status

Row = tuple[str, dict[str, Any], int]
"""A job as plain values: worker, arguments, status code. Every contestant starts from it."""

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
    """The jobs of one size. Contestants are filled with `rows`, which get the ids from 1."""

    def __init__(self, size: int) -> None:
        if size < SMALLEST:
            raise ValueError(f"a size is {SMALLEST} jobs or more, not {size}")
        self.size = size
        self.rows = _rows(size)

    @cached_property
    def queued(self) -> list[int]:
        """The ids of the queued jobs, ascending."""
        return self.ids_of((QUEUED,))

    def ids_of(self, statuses: tuple[int, ...]) -> list[int]:
        """The ids of the jobs in these statuses, ascending."""
        return [number for number, row in enumerate(self.rows, 1) if row[2] in statuses]

    def row(self, job_id: int) -> Row:
        """The job that was filled in under an id."""
        return self.rows[job_id - 1]

    def sample(self, ids: list[int], count: int) -> list[int]:
        """At most `count` of these ids, at random, the same in every round."""
        return random.Random(count).sample(ids, min(count, len(ids)))


def _rows(size: int) -> list[Row]:
    dice = random.Random(size)
    statuses = dice.choices(tuple(_MIX), tuple(_MIX.values()), k=size)
    workers = dice.choices(WORKERS[1:], k=size)
    step = size // RARE_JOBS
    for number in range(RARE_JOBS):
        workers[number * step + step // 2] = RARE
    return [
        (worker, {"user": number, "template": "welcome"}, status)
        for number, (worker, status) in enumerate(zip(workers, statuses, strict=True), 1)
    ]
