"""Inserts one by one from several threads of a process, each waiting for its own."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

from bench.compare.harness import Result, Timing, side_by_side, take_turns
from bench.compare.peer import Peer, Way
from bench.compare.workload import Scale, Timed
from bench.data import Row, queued

PREFIX: Final = "insert_threads_"


def key(threads: int) -> str:
    return f"{PREFIX}{threads}"


def title(threads: int) -> str:
    return f"insert, {threads} thread{'s' * (threads > 1)}"


def measure(threads: int, peers: Sequence[Peer], scale: Scale, directory: Path) -> list[Result]:
    """Of the ways in which threads may use a peer the quickest one counts, and is noted."""
    with side_by_side(peers, directory, scale.room) as places:
        found = take_turns(
            {
                (place.peer.name, name): partial(_prepare, way, threads)
                for place in places
                for name, way in place.queue.ways().items()
            },
            scale.rounds,
            scale.seconds,
            least=threads * 2,
            settled=scale.settled,
        )
    timings: dict[str, Timing] = {}
    for (peer, way), timing in found.items():
        if peer not in timings or timing.best < timings[peer].best:
            timings[peer] = timing.noted(way)
    return [Result(key(threads), timings)]


def _prepare(way: Way, threads: int, count: int) -> Timed:
    """Threads that are ready, and wait for the word."""
    share = count // threads
    gate = threading.Barrier(threads + 1)
    failures: list[BaseException] = []
    workers = [
        threading.Thread(
            target=_insert,
            args=(way, list(map(queued, range(first, first + share))), gate, failures),
        )
        for first in range(0, share * threads, share)
    ]
    for worker in workers:
        worker.start()
    gate.wait()

    def timed() -> int:
        gate.wait()
        for worker in workers:
            worker.join()
        if failures:
            raise failures[0]
        return share * threads

    return timed


def _insert(
    way: Way, rows: Sequence[Row], gate: threading.Barrier, failures: list[BaseException]
) -> None:
    try:
        with way() as insert:
            gate.wait()  # all are ready
            gate.wait()  # the word
            for row in rows:
                insert(row)
    except BaseException as error:
        failures.append(error)
        gate.abort()
