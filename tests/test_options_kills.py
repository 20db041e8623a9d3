"""The index of what few jobs ask for is that of their records, after a kill at any moment."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection
from pathlib import Path

import quelmdb
from quelmdb import DuplicateJobError, Job
from tests.children import Child, ChildDiedError

pytest_plugins = ["tests.fixtures"]


def _work(pipe: Connection, path: Path, seed: int) -> None:
    """Random verbs on jobs that have options, for ever."""
    rng = random.Random(seed)
    with quelmdb.open(path) as store:
        held: list[Job] = []
        while True:
            _step(store, rng, held)
            pipe.send(None)


def _step(store: quelmdb.Store, rng: random.Random, held: list[Job]) -> None:
    soon = datetime.now(UTC) + timedelta(milliseconds=rng.randrange(-20, 20))
    try:
        match rng.randrange(9):
            case 0 | 1 | 2:
                store.insert_many(_new(rng, soon) for _ in range(4))
            case 3 | 4:
                held += store.claim(limit=rng.randrange(1, 4))
            case 5 if held:
                store.fail(held.pop(), "x" * rng.choice((5, 900)), retry_at=soon)
            case 6 if held:
                store.progress(held[-1], 1, 2, "note")
                store.cancel(held[-1])
                store.release(held.pop())
            case 7:
                ids = list(store.all(limit=40).ids())
                store.cancel_many(rng.sample(ids, min(len(ids), 3)))
                store.retry_many(rng.sample(ids, min(len(ids), 3)))
            case 8:
                store.prune(keep=20)
    except (DuplicateJobError, quelmdb.StaleClaim, quelmdb.JobNotFoundError):
        pass


def _new(rng: random.Random, soon: datetime) -> Job:
    return Job(
        rng.choice("ab"),
        b"x" * rng.choice((3, 3000)),
        run_at=rng.choice((None, soon)),
        priority=rng.randrange(3),
        unique_key=rng.choice((None, None, f"k{rng.randrange(50)}")),
        max_attempts=rng.choice((None, 2)),
    )


def _until(child: Child, steps: int) -> Iterator[None]:
    for count in range(steps + 1):
        if count == steps:
            child.kill()
        try:
            yield child.receive()
        except ChildDiedError:
            return


def test_the_index_of_options_is_that_of_the_records_after_a_kill_at_any_moment(
    path: Path, long: bool
) -> None:
    rng = random.Random()
    for _ in range(200 if long else 10):
        with Child(_work, path, rng.getrandbits(32)) as child:
            for _ in _until(child, rng.randrange(5, 80)):
                pass
        with quelmdb.open(path) as store:
            assert store.check() == []
            store.rescue()
            assert not any(job.owner for job in store.jobs("started"))
            assert store.check() == []
