"""Producing and consuming processes on one store: how quickly a number of jobs goes through.

Producers insert one by one; consumers claim in batches of 32 and complete them. All start
together when the last one is ready; the clock stops when the last job is completed. Every
job must come out exactly once, or the measurement fails.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from bench.compare.children import processes, shared
from bench.compare.harness import Result, Timing, served, turn
from bench.compare.peer import Ability, Peer, Queue
from bench.compare.peers import PEERS
from bench.compare.workload import Scale
from bench.data import queued

T = TypeVar("T")

_LIMIT: Final = 32
_NAP: Final = 0.001  # seconds until an empty queue is looked at again
_PATIENCE: Final = 60.0  # seconds in which a consumer gets nothing, until it gives up
_ROUNDS: Final = 2


PREFIX: Final = "processes_"


def key(count: int) -> str:
    return f"{PREFIX}{count}"


def title(count: int) -> str:
    return f"{count} producing, {count} consuming process{'es' * (count > 1)}"


def measure(count: int, peers: Sequence[Peer], scale: Scale, directory: Path) -> list[Result]:
    """`count` producers and as many consumers; the errors of the rounds are noted."""
    able = [peer for peer in peers if peer.has(Ability.PROCESSES)]
    times: dict[str, list[float]] = {peer.name: [] for peer in able}
    errors = dict.fromkeys(times, 0)
    for number in range(min(_ROUNDS, scale.rounds)):
        for peer in turn(able, number):
            jobs = scale.jobs_by_processes[peer.durability]
            spent, busy = _round(peer, count, scale, directory)
            times[peer.name].append(spent / jobs)
            errors[peer.name] += busy
    timings = {
        name: Timing.of(found, f"{errors[name]} × locked" if errors[name] else "")
        for name, found in times.items()
    }
    return [Result(key(count), timings)] if timings else []


def _round(peer: Peer, count: int, scale: Scale, directory: Path) -> tuple[float, int]:
    """Seconds, and how often somebody was told that the store is busy."""
    jobs = scale.jobs_by_processes[peer.durability]
    share = jobs // count
    with served(peer, directory) as path, processes(2 * count) as (executor, common):
        with peer.open(path, jobs):
            pass  # made before many open it
        if scale.settled:
            os.sync()
        producers = [
            executor.submit(_produce, peer.name, path, number * share, share)
            for number in range(count)
        ]
        consumers = [executor.submit(_consume, peer.name, path, jobs) for _ in range(count)]
        try:
            common.gate.wait()
        except BaseException:
            _raise_first([*producers, *consumers])
            raise
        told = [producer.result() for producer in producers]
        busy = sum(errors for errors, _ in told)
        begun = min(begun for _, begun in told)  # this process may be told late
        taken: list[int] = []
        ended = begun
        for consumer in consumers:
            numbers, errors, until = consumer.result()
            taken += numbers
            busy += errors
            ended = max(ended, until)
    if sorted(taken) != list(range(jobs)):
        raise RuntimeError(
            f"{peer.name}: of {jobs} jobs {len(taken)} came out, {len(set(taken))} of them once"
        )
    return ended - begun, busy


def _raise_first(futures: Sequence[Future[Any]]) -> None:
    """Why a process did not come to the start, where it says so."""
    for future in futures:
        if future.done():
            future.result()


def _produce(name: str, path: Path, first: int, count: int) -> tuple[int, float]:
    """Errors, and when it began."""
    peer = PEERS[name]
    with peer.open(path, 0) as queue:
        rows = list(map(queued, range(first, first + count)))
        shared().gate.wait()
        begun = time.monotonic()
        errors = 0
        for row in rows:
            _, again = _patiently(queue, partial(queue.insert, row))
            errors += again
    return errors, begun


def _consume(name: str, path: Path, jobs: int) -> tuple[list[int], int, float]:
    """The numbers of the jobs that were taken, errors, and when the last one was completed."""
    peer, common = PEERS[name], shared()
    numbers: list[int] = []
    errors, ended = 0, 0.0
    with peer.open(path, 0) as queue:
        common.gate.wait()
        begun = time.monotonic()
        while common.done.value < jobs and not common.stop.is_set():
            taken, again = _patiently(queue, partial(queue.claim, _LIMIT))
            errors += again
            if not taken:
                if time.monotonic() > max(begun, ended) + _PATIENCE:
                    raise TimeoutError(f"{name}: {common.done.value} of {jobs} jobs came out")
                time.sleep(_NAP)
                continue
            _, again = _patiently(queue, partial(queue.complete_many, taken))
            errors += again
            ended = time.monotonic()
            numbers += map(queue.number, taken)
            with common.done.get_lock():
                common.done.value += len(taken)
    return numbers, errors, ended


def _patiently(queue: Queue, work: Callable[[], T]) -> tuple[T, int]:
    """What the work returns, and how often it had to be begun again."""
    errors = 0
    while True:
        try:
            return work(), errors
        except queue.busy:
            errors += 1
