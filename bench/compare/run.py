"""All workloads, one after the other, on all peers that take part."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final

from bench.compare import latency, listings, memory, processes, queues, tasks, threads
from bench.compare.figures import Figures
from bench.compare.harness import Result
from bench.compare.peer import Peer
from bench.compare.workload import Scale
from bench.data import Data

Tell = Callable[[str], None]

QUEUE_SIZES: Final = "sizes"


def keys_of(scale: Scale) -> tuple[str, ...]:
    """Of every workload, in order."""
    return (
        *(workload.key for workload in queues.WORKLOADS),
        *map(threads.key, scale.threads),
        *map(tasks.key, scale.tasks),
        *map(processes.key, scale.processes),
        latency.KEY,
        QUEUE_SIZES,
        *(workload.key for workload in listings.WORKLOADS),
        memory.KEY,
    )


def run(
    figures: Figures,
    peers: Sequence[Peer],
    keys: Sequence[str],
    scale: Scale,
    directory: Path,
    tell: Tell,
) -> None:
    """Adds to the figures what is measured. Files go below `directory`."""
    figures.depth = scale.depth
    gc.collect()
    gc.freeze()  # what is there already is not looked at by the collection before each round

    def add(key: str, measure: Callable[[], list[Result]]) -> None:
        if key in keys:
            begun = time.monotonic()
            for result in measure():
                figures.results.append(result)
                tell(_line(result))
            tell(f"{key}: {time.monotonic() - begun:.1f} s")

    for workload in queues.WORKLOADS:
        add(workload.key, partial(queues.measure, workload, peers, scale, directory))
    for count in scale.threads:
        add(threads.key(count), partial(threads.measure, count, peers, scale, directory))
    for count in scale.tasks:
        add(tasks.key(count), partial(tasks.measure, count, peers, scale, directory))
    for count in scale.processes:
        add(processes.key(count), partial(processes.measure, count, peers, scale, directory))
    if latency.KEY in keys:
        figures.latency = latency.measure(peers, scale, directory)
        tell(_latencies(figures))
    if QUEUE_SIZES in keys:
        figures.queue_sizes = queues.sizes(peers, scale, directory)

    listed = [peer for peer in peers if peer.name in listings.LISTED]
    wanted = [workload for workload in listings.WORKLOADS if workload.key in keys]
    if not listed or not (wanted or memory.KEY in keys):
        return
    filled = {}
    with ExitStack() as stack:
        for size in scale.sizes:
            places = stack.enter_context(listings.filled(listed, Data(size), directory))
            figures.sizes[size] = {place.peer.name: place.queue.size() for place in places}
            filled[size] = places
            tell(f"{size:,} jobs are filled in")
        for workload in wanted:
            add(workload.key, partial(listings.measure, workload, filled, scale))
        if memory.KEY in keys:
            largest = max(filled)
            figures.memory[largest] = memory.measure(filled[largest])
            tell(f"memory: {figures.memory[largest]}")


def _line(result: Result) -> str:
    size = "" if result.size is None else f" {result.size:,}"
    best = ", ".join(f"{name} {timing.best * 1e6:.3f}" for name, timing in result.timings.items())
    return f"{result.workload}{size}: {best} µs"


def _latencies(figures: Figures) -> str:
    best = ", ".join(
        f"{name} {found.within(0.5) * 1e6:.0f}/{found.within(0.99) * 1e6:.0f}"
        for name, found in figures.latency.items()
    )
    return f"latency of a claim, median/99 %: {best} µs"
