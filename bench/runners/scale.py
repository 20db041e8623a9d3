"""How much is measured."""

from __future__ import annotations

from typing import Final, NamedTuple

from bench.runners.contenders import HUEY, LITEQUEUE, OURS


class Scale(NamedTuple):
    """How large a run is."""

    rounds: int
    is_settled: bool
    """Whether everything is on the disk before a round of throughput."""
    jobs: dict[str, int]
    """No-op jobs of a round, by family: a slow runner gets fewer."""
    adds: int
    """Single jobs that an idle runner gets in a round."""
    pauses: tuple[float, float]
    """Seconds between them, at random."""
    settling: float
    """Seconds after them, until its idle CPU is looked at."""
    idle: float
    """Seconds in which it is."""
    waits: int
    """Inserts of a round that `wait` is to be woken by."""
    wait_pauses: tuple[float, float]
    """Seconds between them, at random."""


DEFAULT: Final = Scale(
    rounds=3,
    is_settled=True,
    jobs={OURS: 100_000, HUEY: 5_000, LITEQUEUE: 1_000},
    adds=200,
    pauses=(0.01, 0.2),
    settling=1.0,
    idle=20.0,
    waits=500,
    wait_pauses=(0.005, 0.025),
)
SMALL: Final = Scale(
    rounds=1,
    is_settled=False,
    jobs={OURS: 1_000, HUEY: 50, LITEQUEUE: 50},
    adds=5,
    pauses=(0.005, 0.02),
    settling=0.1,
    idle=0.3,
    waits=20,
    wait_pauses=(0.005, 0.01),
)
"""To see that everything works; its figures say nothing."""
