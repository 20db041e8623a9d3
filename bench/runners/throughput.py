"""No-op jobs, from the first one's start to the last one's completion."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.compare.harness import Timing, turn, workspace
from bench.runners.contenders import CONTENDERS, Contender, marks
from bench.runners.processes import in_a_process, noted
from bench.runners.scale import Scale


def measure(
    contenders: Sequence[Contender], scale: Scale, directory: Path, tell: Callable[[str], None]
) -> dict[str, Timing]:
    """Seconds a job, by contender."""
    rounds: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for number in range(scale.rounds):
        for contender in turn(contenders, number):
            seconds = _round(contender, scale, directory)
            rounds[contender.name].append(seconds)
            tell(f"{contender.name}: {1 / seconds:,.0f} jobs/s")
    return {name: Timing.of(found) for name, found in rounds.items()}


def _round(contender: Contender, scale: Scale, directory: Path) -> float:
    count = scale.jobs[contender.family]
    with workspace(directory) as place:
        in_a_process(_fill, contender.name, place, count)
        if scale.is_settled:
            os.sync()
        contender.drain(place)
        begun = noted(marks(place))[0]
        ended = in_a_process(_last_completed, contender.name, place, count)
    return (ended - begun) / 1e9 / count


def _fill(name: str, place: Path, count: int) -> None:
    CONTENDERS[name].fill(place, count)


def _last_completed(name: str, place: Path, count: int) -> int:
    return CONTENDERS[name].last_completed(place, count)
