"""How long a claim takes while another process inserts one by one, as fast as it can."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final

from bench.compare.children import processes, shared
from bench.compare.harness import served, undisturbed
from bench.compare.peer import Ability, Peer
from bench.compare.peers import PEERS
from bench.compare.queues import fill
from bench.compare.workload import Scale
from bench.data import queued

KEY: Final = "latency"

SHARES: Final = (
    *(share / 100 for share in range(0, 90, 5)),
    *(0.9 + share / 100 for share in range(9)),
    *(0.99 + share / 1000 for share in range(9)),
    0.999, 1.0,
)  # fmt: skip
"""Of all claims: which shares of them the saved times are of."""


@dataclass(frozen=True)
class Latency:
    """Seconds within which these shares of the claims were done."""

    claims: int
    seconds: list[float]
    """By `SHARES`."""
    errors: int

    def within(self, share: float) -> float:
        return self.seconds[SHARES.index(share)]


def measure(peers: Sequence[Peer], scale: Scale, directory: Path) -> dict[str, Latency]:
    """One peer after the other: two processes are all that the machine has to do."""
    return {
        peer.name: _latency(peer, scale, directory) for peer in peers if peer.has(Ability.PROCESSES)
    }


def _latency(peer: Peer, scale: Scale, directory: Path) -> Latency:
    times: list[float] = []
    errors = 0
    with (
        served(peer, directory) as path,
        peer.open(path, 4 * scale.room) as queue,
        processes(1) as (executor, common),
    ):
        fill(queue, max(scale.claims, scale.depth))
        writer = executor.submit(_write, peer.name, path)
        common.gate.wait()
        clock = time.perf_counter
        until = clock() + scale.claim_seconds
        with undisturbed():
            while len(times) < scale.claims and clock() < until and not writer.done():
                begun = clock()
                while True:
                    try:
                        queue.claim(1)
                        break
                    except queue.busy:
                        errors += 1
                times.append(clock() - begun)
        common.stop.set()
        writer.result()
    times.sort()
    last = len(times) - 1
    return Latency(len(times), [times[round(share * last)] for share in SHARES], errors)


def _write(name: str, path: Path) -> None:
    with PEERS[name].open(path, 0) as queue:
        stop = shared().stop
        shared().gate.wait()
        for number in count():
            if stop.is_set():
                return
            try:
                queue.insert(queued(number))
            except queue.busy:
                continue
