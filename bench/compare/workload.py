"""What a workload is, and how large a run of all of them is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from bench.compare.peer import Ability

Timed = Callable[[], int]
"""Does the work, and returns how many units of it were done."""
Prepare = Callable[[int], Timed]
"""What is not timed of a round of about so many units."""

BATCH: Final = 100


class Scale(NamedTuple):
    """How large a run is."""

    rounds: int
    seconds: float
    """About what a round of writes takes; one of reads takes a third."""
    settled: bool
    """Whether everything is on the disk before a round that writes."""
    room: int
    """For how many jobs stores are made that writes are measured on."""
    depth: int
    """How many jobs wait before a round of claims."""
    bulk: int
    """How many jobs are inserted all at once."""
    threads: tuple[int, ...]
    tasks: tuple[int, ...]
    processes: tuple[int, ...]
    """How many of them produce, and of processes as many consume."""
    jobs_by_processes: dict[str, int]
    """How many jobs go through several processes, by durability."""
    claims: int
    """How many claims the latencies are of."""
    claim_seconds: float
    """How long these may take."""
    sizes: tuple[int, ...]
    """Numbers of jobs in the stores that are read."""


DEFAULT: Final = Scale(
    rounds=5,
    seconds=0.25,
    settled=True,
    room=2_000_000,
    depth=10_000,
    bulk=50_000,
    threads=(1, 8, 64),
    tasks=(100, 1000),
    processes=(1, 2, 4),
    jobs_by_processes={"full": 2_000, "ephemeral": 6_000},
    claims=5_000,
    claim_seconds=6.0,
    sizes=(10_000, 100_000, 1_000_000),
)
TINY: Final = Scale(
    rounds=1,
    seconds=0.005,
    settled=False,
    room=20_000,
    depth=200,
    bulk=200,
    threads=(1, 4),
    tasks=(20,),
    processes=(2,),
    jobs_by_processes={"full": 60, "ephemeral": 60},
    claims=50,
    claim_seconds=1.0,
    sizes=(1_000, 2_000),
)
"""To see that everything works; its figures say nothing."""


@dataclass(frozen=True)
class Workload:
    """One that a queue or a store does alone, in one thread."""

    key: str
    title: str
    unit: str
    """What the time is for, in the singular."""
    prepare: Callable[[Any, Scale, int], Timed]
    """Of a queue or a store: a round of so many units, or of so many calls."""
    needs: tuple[Ability, ...] = ()
    least: int = 1
    """The smallest round, and the step between larger ones."""
    remark: str = ""
