"""What every peer can do, in one thread: insert, claim and complete, count what waits."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

from bench.compare.harness import Result, side_by_side, take_turns
from bench.compare.peer import Ability, Peer, Queue, Size
from bench.compare.workload import BATCH, Scale, Timed, Workload
from bench.data import queued

_PIECE: Final = 1000  # jobs a write, where that is not measured


def fill(queue: Queue, depth: int) -> None:
    """Inserts jobs until so many wait."""
    missing = depth - queue.waiting()
    for first in range(0, missing, _PIECE):
        numbers = range(first, min(first + _PIECE, missing))
        queue.insert_many(queue.ready(list(map(queued, numbers))))


def _insert_each(queue: Queue, scale: Scale, count: int) -> Timed:
    rows = list(map(queued, range(count)))

    def timed() -> int:
        insert = queue.insert
        for row in rows:
            insert(row)
        return count

    return timed


def _insert_batches(queue: Queue, scale: Scale, count: int) -> Timed:
    batches = [list(map(queued, range(first, first + BATCH))) for first in range(0, count, BATCH)]

    def timed() -> int:
        for batch in batches:
            queue.insert_many(queue.ready(batch))
        return count

    return timed


def _insert_all(queue: Queue, scale: Scale, count: int) -> Timed:
    ready = queue.ready(list(map(queued, range(scale.bulk))))

    def timed() -> int:
        queue.insert_many(ready)
        return scale.bulk

    return timed


def _make_and_insert_all(queue: Queue, scale: Scale, count: int) -> Timed:
    rows = list(map(queued, range(scale.bulk)))

    def timed() -> int:
        queue.insert_many(queue.ready(rows))
        return scale.bulk

    return timed


def _claim_each(queue: Queue, scale: Scale, count: int) -> Timed:
    fill(queue, scale.depth)

    def timed() -> int:
        for _ in range(count):
            (job,) = queue.claim(1)
            queue.complete(job)
        return count

    return timed


def _claim_batches(queue: Queue, scale: Scale, count: int) -> Timed:
    fill(queue, scale.depth)

    def timed() -> int:
        for _ in range(0, count, BATCH):
            jobs = queue.claim(BATCH)
            assert len(jobs) == BATCH
            queue.complete_many(jobs)
        return count

    return timed


def _count(queue: Queue, scale: Scale, count: int) -> Timed:
    fill(queue, scale.depth)

    def timed() -> int:
        for _ in range(count):
            queue.waiting()
        return count

    return timed


WORKLOADS: Final = (
    Workload("insert_each", "insert, one by one", "job", _insert_each, least=20),
    Workload(
        "insert_batches",
        f"insert, batches of {BATCH}",
        "job",
        _insert_batches,
        needs=(Ability.INSERT_BATCH,),
        least=BATCH,
        remark="a dash: it has no batches",
    ),
    Workload(
        "insert_all",
        "insert, all at once",
        "job",
        _insert_all,
        needs=(Ability.INSERT_BULK,),
        remark="50,000 jobs in one write; the `Job`s of quelmdb were made before",
    ),
    Workload(
        "make_and_insert_all",
        "the same, with making the `Job`s",
        "job",
        _make_and_insert_all,
        needs=(Ability.INSERT_BULK,),
        remark="from plain values, as the others take them",
    ),
    Workload(
        "claim_each",
        "claim and complete, one by one",
        "job",
        _claim_each,
        least=10,
        remark="of 10,000 that wait; two writes a job, but huey's dequeue is one",
    ),
    Workload(
        "claim_batches",
        f"claim and complete, batches of {BATCH}",
        "job",
        _claim_batches,
        needs=(Ability.CLAIM_BATCH,),
        least=BATCH,
        remark="of 10,000 that wait; two writes a batch; a dash: it claims one at a time",
    ),
    Workload(
        "waiting",
        "count what waits",
        "call",
        _count,
        remark="10,000 jobs; persist-queue tells what its own process has put and got",
    ),
)


def measure(
    workload: Workload, peers: Sequence[Peer], scale: Scale, directory: Path
) -> list[Result]:
    """Each peer with a store of its own, empty at first."""
    able = [peer for peer in peers if peer.has(*workload.needs)]
    if not able:
        return []
    with side_by_side(able, directory, scale.room) as places:
        timings = take_turns(
            {place.peer.name: partial(workload.prepare, place.queue, scale) for place in places},
            scale.rounds,
            scale.seconds,
            least=workload.least,
            settled=scale.settled,
            most=scale.depth,
        )
    return [Result(workload.key, timings)]


def sizes(peers: Sequence[Peer], scale: Scale, directory: Path) -> dict[str, Size]:
    """Bytes on disk of the jobs that wait, by peer."""
    found = {}
    for peer in peers:
        with side_by_side([peer], directory, scale.room) as [place]:
            fill(place.queue, scale.depth)
            found[peer.name] = place.queue.size()
    return found
