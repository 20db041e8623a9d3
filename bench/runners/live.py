"""A runner that has little to do: how soon it starts a job, and what it costs meanwhile."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from bench.compare.harness import Timing, turn, workspace
from bench.runners.contenders import CONTENDERS, Contender
from bench.runners.figures import Delays
from bench.runners.processes import in_a_process, noted
from bench.runners.scale import Scale

_NO_PAUSE: Final = (0.0, 0.0)


class Live(NamedTuple):
    """Of one contender."""

    starts: Delays
    """From just before a job was added until it ran, of all rounds."""
    adds: Delays
    """Of these the call that adds the job."""
    idle: Timing
    """Seconds of CPU a second."""


def measure(
    contenders: Sequence[Contender], scale: Scale, directory: Path, tell: Callable[[str], None]
) -> dict[str, Live]:
    """By contender, of those that are measured so."""
    able = [contender for contender in contenders if contender.is_live]
    delays: dict[str, list[float]] = {contender.name: [] for contender in able}
    adds: dict[str, list[float]] = {contender.name: [] for contender in able}
    idle: dict[str, list[float]] = {contender.name: [] for contender in able}
    for number in range(scale.rounds):
        for contender in turn(able, number):
            found, added, used = _round(contender, number, scale, directory)
            delays[contender.name] += found
            adds[contender.name] += added
            idle[contender.name].append(used)
            median = sorted(found)[len(found) // 2]
            tell(f"{contender.name}: {median * 1e3:.3f} ms (median), idle {used:.2%} of a core")
    return {
        name: Live(Delays.of(delays[name]), Delays.of(adds[name]), Timing.of(idle[name]))
        for name in delays
    }


def _round(
    contender: Contender, number: int, scale: Scale, directory: Path
) -> tuple[list[float], list[float], float]:
    """Seconds until each job ran, those that adding it took, and the share of a core that was
    used afterwards."""
    with workspace(directory) as place:
        first, delays = place / "first", place / "delays"
        in_a_process(_add, contender.name, place, first, 1, _NO_PAUSE, number)
        with contender.run(place) as runner:
            runner.until(lambda: len(noted(first)) == 1)  # and by now it has started
            added = in_a_process(
                _add, contender.name, place, delays, scale.adds, scale.pauses, number
            )
            runner.until(lambda: len(noted(delays)) == scale.adds)
            time.sleep(scale.settling)
            begun, before = time.monotonic(), runner.cpu_seconds()
            time.sleep(scale.idle)
            used = (runner.cpu_seconds() - before) / (time.monotonic() - begun)
            runner.end(contender.stop)
        return [nanoseconds / 1e9 for nanoseconds in noted(delays)], added, used


def _add(
    name: str, place: Path, into: Path, count: int, pauses: tuple[float, float], seed: int
) -> list[float]:
    """Adds so many jobs one by one, at random intervals. Returns the seconds that each took."""
    dice = random.Random(seed)
    spent = []
    with CONTENDERS[name].adding(place) as add:
        for _ in range(count):
            time.sleep(dice.uniform(*pauses))
            begun = time.perf_counter()
            add(str(into))
            spent.append(time.perf_counter() - begun)
    return spent
