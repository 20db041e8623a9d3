"""`store.wait` alone: how soon it returns after another process's insert, and what it costs."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import quelmdb
from bench.compare.children import processes, shared
from bench.compare.harness import Timing, turn, workspace
from bench.compare.peer import Durability
from bench.runners.figures import Delays
from bench.runners.scale import Scale
from quelmdb import Job

_WORKER: Final = "bench.wait"
_CAPACITY: Final = 16 * 2**20
_PATIENCE: Final = 30.0  # seconds without a job, after which the inserts are taken for dead

Times = dict[int, int]
"""By number of the job, in nanoseconds of the clock that all processes share."""


class Waits(NamedTuple):
    """Of one durability, of all rounds."""

    after_return: Delays
    """From the return of the insert, or 0 where `wait` was quicker still."""
    after_call: Delays
    """From the call of the insert: with its whole transaction."""
    idle: Timing
    """Seconds of CPU a second, of a process that waits."""


def measure(scale: Scale, directory: Path, tell: Callable[[str], None]) -> dict[Durability, Waits]:
    after_return: dict[Durability, list[float]] = {durability: [] for durability in Durability}
    after_call: dict[Durability, list[float]] = {durability: [] for durability in Durability}
    idle: dict[Durability, list[float]] = {durability: [] for durability in Durability}
    for number in range(scale.rounds):
        for durability in turn(list(Durability), number):
            called, returned, woken, used = _round(durability, number, scale, directory)
            after_call[durability] += [(woken[n] - when) / 1e9 for n, when in called.items()]
            after_return[durability] += [
                max(0, woken[n] - when) / 1e9 for n, when in returned.items()
            ]
            idle[durability].append(used)
            tell(f"wait, {durability}: {len(woken)} inserts, idle {used:.2%} of a core")
    return {
        durability: Waits(
            Delays.of(after_return[durability]),
            Delays.of(after_call[durability]),
            Timing.of(idle[durability]),
        )
        for durability in Durability
    }


def _round(
    durability: Durability, number: int, scale: Scale, directory: Path
) -> tuple[Times, Times, Times, float]:
    """When each insert was called, when it returned, and when `wait` did; and the share of a
    core that waiting used."""
    with workspace(directory) as place, processes(2) as (executor, common):
        path = place / "jobs.qdb"
        capacity = _CAPACITY if durability == Durability.EPHEMERAL else None
        quelmdb.open(path, durability=durability.value, capacity=capacity).close()
        waiting = executor.submit(_wait, path, scale.waits, scale.idle)
        inserting = executor.submit(_insert, path, scale.waits, scale.wait_pauses, number)
        common.gate.wait()
        woken, used = waiting.result()
        called, returned = inserting.result()
    return called, returned, woken, used


def _wait(path: Path, count: int, idle: float) -> tuple[Times, float]:
    """Waits for so many jobs, and works them off; then for one that never comes."""
    woken: Times = {}
    with quelmdb.open(path) as store:
        shared().gate.wait()
        while len(woken) < count:
            if not store.wait(_WORKER, timeout=_PATIENCE):
                raise TimeoutError(f"of {count} jobs {len(woken)} came")
            now = time.monotonic_ns()
            jobs = store.claim(_WORKER, limit=count)
            woken.update({job.arguments: now for job in jobs})
            store.complete_many(jobs)
        begun, before = time.monotonic(), time.process_time()
        store.wait(_WORKER, timeout=idle)
        return woken, (time.process_time() - before) / (time.monotonic() - begun)


def _insert(path: Path, count: int, pauses: tuple[float, float], seed: int) -> tuple[Times, Times]:
    dice = random.Random(seed)
    called: Times = {}
    returned: Times = {}
    with quelmdb.open(path) as store:
        shared().gate.wait()
        for number in range(count):
            time.sleep(dice.uniform(*pauses))
            job = Job(_WORKER, number)
            called[number] = time.monotonic_ns()
            store.insert(job)
            returned[number] = time.monotonic_ns()
    return called, returned
