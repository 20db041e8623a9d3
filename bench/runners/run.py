"""All parts, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from bench.runners import live, throughput, waiting
from bench.runners.contenders import Contender
from bench.runners.figures import Figures
from bench.runners.scale import Scale


def run(
    figures: Figures,
    contenders: Sequence[Contender],
    parts: Sequence[str],
    scale: Scale,
    directory: Path,
    tell: Callable[[str], None],
) -> None:
    """Adds to the figures what is measured. Files go below `directory`."""
    figures.rounds, figures.jobs = scale.rounds, scale.jobs
    figures.pauses, figures.idle_seconds = scale.pauses, scale.idle
    if "throughput" in parts:
        figures.throughput = throughput.measure(contenders, scale, directory, tell)
    if "live" in parts:
        for name, found in live.measure(contenders, scale, directory, tell).items():
            figures.starts[name], figures.adds[name], figures.idle[name] = found
    if "wait" in parts:
        for durability, waits in waiting.measure(scale, directory, tell).items():
            name = str(durability)
            figures.wait_after_return[name] = waits.after_return
            figures.wait_after_call[name] = waits.after_call
            figures.wait_idle[name] = waits.idle
