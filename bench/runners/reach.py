"""What the runner wants to be measured by, judged by the figures of a run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from bench.compare.peer import Durability
from bench.compare.reach import Reached
from bench.compare.text import duration, per_second, times
from bench.runners.contenders import CONTENDERS, HUEY, OURS, OURS_EPHEMERAL, OURS_FULL, ours
from bench.runners.figures import Figures

RATES: Final = {OURS_EPHEMERAL: 30_000, OURS_FULL: 15_000}
"""Jobs a second with one process and one thread."""
FASTER: Final = 10
"""Times as fast as huey's consumer, with one process each."""
START: Final = 0.002
WAIT: Final = {"p50": 0.001, "p99": 0.005}
IDLE: Final = 0.005  # of a core


def reach(figures: Figures) -> list[Reached]:
    """Every line that can be judged by these figures."""
    return [*_throughput(figures), *_starts(figures), *_waits(figures), *_idle(figures)]


def _throughput(figures: Figures) -> Iterator[Reached]:
    timings = figures.throughput
    for name, least in RATES.items():
        if name in timings:
            best = timings[name].best
            wanted = f"at least {per_second(1 / least)}"
            yield Reached(f"no-op jobs, {name}", wanted, per_second(best), 1 / best >= least)
    for name, timing in timings.items():
        mine = ours(CONTENDERS[name])
        is_meant = CONTENDERS[name].family == HUEY and CONTENDERS[name].processes == 1
        if is_meant and mine in timings:
            ratio = timing.best / timings[mine].best
            wanted = f"at least {FASTER} × {name}"
            yield Reached(f"no-op jobs, {mine}", wanted, times(ratio), ratio >= FASTER)


def _starts(figures: Figures) -> Iterator[Reached]:
    for name, delays in figures.starts.items():
        if CONTENDERS[name].family == OURS:
            wanted = f"p50 under {duration(START)}"
            yield Reached(
                f"enqueue to start, {name}", wanted, duration(delays.p50), delays.p50 < START
            )


def _waits(figures: Figures) -> Iterator[Reached]:
    for durability in Durability:
        delays = figures.wait_after_return.get(durability)
        if delays is None:
            continue
        for share, most in WAIT.items():
            found: float = getattr(delays, share)
            workload = f"commit to the return of wait(), {durability}"
            wanted = f"{share} under {duration(most)}"
            yield Reached(workload, wanted, at_least_zero(found), found < most)


def _idle(figures: Figures) -> Iterator[Reached]:
    found = {f"wait(), {name}": timing for name, timing in figures.wait_idle.items()}
    found |= {
        name: timing for name, timing in figures.idle.items() if CONTENDERS[name].family == OURS
    }
    for name, timing in found.items():
        wanted = f"under {IDLE:.1%} of a core"
        used = timing.median
        yield Reached(f"idle CPU, {name}", wanted, share_of_core(used), used < IDLE)


def at_least_zero(seconds: float) -> str:
    """A delay from the return of an insert, which `wait` may have come before."""
    return duration(seconds) if seconds else "before insert returned"


def share_of_core(share: float) -> str:
    return f"{share:.2%}"
