"""Processes that use a store in every way for a while, and what is to be seen of them meanwhile.

The load is steady by design: producers hold when enough is queued, and of what has ended a
bounded number is kept. So whatever grows is a leak.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple

import quelmdb
from quelmdb import Job, Status, Store
from tests.children import Child

_VETERANS: Final = 2  # processes that work from the beginning to the end
_RECRUITS: Final = 1  # processes that are killed now and then, and replaced
_BACKLOG: Final = 2_000  # jobs that are queued, about
_KEPT: Final = 2_000  # jobs that have ended

_LOOKS: Final = 100  # in all, about, or more
_FEWEST: Final = 3  # that stand for a tenth of the time
_MOST_SECONDS: Final = 3.0  # between two
_PLACES: Final = frozenset(("owners.lock", "wakeup", "boot"))  # beside generations


KEEPER: Final = "keeper"
"""Which process alone compacts, prunes and backs up."""
PROCESSES: Final = (KEEPER, *(f"worker {n + 1}" for n in range(_VETERANS)))
"""Which processes are looked at: each by itself, since a leak may be in what one alone does."""


class Process(NamedTuple):
    """What a process has at a moment."""

    memory: int
    """Bytes that are its own."""
    descriptors: int
    threads: int


class Look(NamedTuple):
    """What is to be seen at a moment. Sizes are bytes."""

    seconds: float
    """Since the beginning."""
    claims: int
    """Given out so far."""
    file: int
    directory: int
    readers: int
    owners: int
    processes: Mapping[str, Process]
    """By their names, `PROCESSES`."""


Measure = Callable[[Look], float]


def of_process(name: str, measure: str) -> Measure:
    """A field of `Process`, of this one of `PROCESSES`."""
    return lambda look: getattr(look.processes[name], measure)


@dataclass
class Soaked:
    """What came of it."""

    looks: list[Look] = field(default_factory=list)
    jobs: int = 0
    kills: int = 0
    compactions: int = 0
    backups: int = 0

    def early(self, measure: Measure) -> float:
        """The median of a measure in the second tenth of the time."""
        return median(map(measure, self._early()))

    def late(self, measure: Measure) -> float:
        """In the last tenth."""
        return median(map(measure, self._late()))

    def early_rate(self) -> float:
        """Jobs claimed a second in the second tenth of the time: the median from look to look,
        since others use the machine, too."""
        return _rate(self._early())

    def late_rate(self) -> float:
        """In the last tenth."""
        return _rate(self._late())

    def _early(self) -> Sequence[Look]:
        tenth = len(self.looks) // 10
        return self.looks[tenth : tenth + max(tenth, _FEWEST)]

    def _late(self) -> Sequence[Look]:
        return self.looks[-max(len(self.looks) // 10, _FEWEST) :]


def _rate(looks: Sequence[Look]) -> float:
    return median(
        (then.claims - before.claims) / (then.seconds - before.seconds)
        for before, then in pairwise(looks)
    )


def soak(path: Path, seconds: float, seed: int, **options: Any) -> Soaked:
    """Makes a store and has it used for so long. Raises `AssertionError` where something is not
    as it must be at any moment, or at the end. Nothing of the library is open in this process,
    which forks."""
    rng = random.Random(seed)
    with Child(_keep, path, options) as keeper:
        assert keeper.receive() == "open"
        workers = [_started(path, rng) for _ in range(_VETERANS + _RECRUITS)]
        try:
            return _conduct(path, seconds, keeper, workers, rng)
        finally:
            for worker in workers:
                worker.kill()


def _conduct(
    path: Path, seconds: float, keeper: Child, workers: list[Child], rng: random.Random
) -> Soaked:
    soaked = Soaked()
    _until(lambda: _ask(keeper, "prune") > 0)  # from here on it is steady
    begun = time.monotonic()
    pause = min(seconds / _LOOKS, _MOST_SECONDS)
    number = 0
    while (now := time.monotonic() - begun) < seconds:
        number += 1
        _ask(keeper, "prune")
        if number % 5 == 0:
            _ask(keeper, "compact")
            soaked.compactions += 1
        if number % 20 == 10:
            _ask(keeper, "backup")
            soaked.backups += 1
        if number % 10 == 5:
            recruit = rng.randrange(_VETERANS, len(workers))
            workers[recruit].kill()
            workers[recruit] = _started(path, rng)
            soaked.kills += 1
        soaked.looks.append(_look(now, keeper, workers[:_VETERANS]))
        time.sleep(max(0.0, number * pause - (time.monotonic() - begun)))
    for worker in workers:
        worker.send("enough")
    for worker in workers:
        assert worker.receive() == "over"
        worker.join()
    soaked.jobs = _ask(keeper, "end")
    keeper.join()
    return soaked


def _until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end, "it never came to hold"
        time.sleep(0.02)


# --- What is to be seen -------------------------------------------------------


def _look(seconds: float, keeper: Child, workers: Sequence[Child]) -> Look:
    of_store = _ask(keeper, "look")
    seen = [_process(child.pid) for child in (keeper, *workers)]
    processes = dict(zip(PROCESSES, seen, strict=True))
    return Look(seconds=seconds, processes=processes, **of_store)


def _process(pid: int) -> Process:
    return Process(
        memory=_status(pid, "RssAnon") * 1024,
        descriptors=len(os.listdir(f"/proc/{pid}/fd")),
        threads=_status(pid, "Threads"),
    )


def _status(pid: int, name: str) -> int:
    """A number of /proc/PID/status."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise AssertionError(f"no {name}")


# --- Who keeps the store ------------------------------------------------------


def _ask(keeper: Child, what: str) -> Any:
    keeper.send(what)
    return keeper.receive()


def _keep(pipe: Connection, path: Path, options: dict[str, Any]) -> int:
    """Does what it is told to, and counts what it prunes. At the end every job that was ever
    given an id is stored, or was pruned."""
    pruned = 0
    with quelmdb.open(path, **options) as store:
        pipe.send("open")
        while (told := pipe.recv()) != "end":
            match told:
                case "prune":
                    count = store.prune(keep=_KEPT)
                    pruned += count
                    pipe.send(count)
                case "compact":
                    pipe.send(store.compact().generation)
                case "backup":
                    pipe.send(_back_up(store))
                case "look":
                    pipe.send(_of_store(store))
        store.rescue()
        store.compact()
        assert store.check() == []
        names = {entry.name for entry in path.iterdir()}
        assert names <= {_name(store.info().generation)} | _PLACES, names
        counts = store.counts()
        assert counts[Status.STARTED] == 0
        given_out = store.info().next_id - 1
        assert sum(counts.values()) + pruned == given_out
        return given_out


def _size_of_all(path: Path) -> int:
    """On the disk, of what is not just being deleted."""
    size = 0
    for place, _, names in os.walk(path):  # which passes over what is gone
        for name in names:
            with suppress(FileNotFoundError):
                size += Path(place, name).stat().st_blocks * 512
    return size


def _name(generation: int) -> str:
    return f"{generation:06}"


def _back_up(store: Store) -> int:
    target = Path(store.path).with_name("backup.qdb")
    size = store.backup(target)
    shutil.rmtree(target)
    return size


def _of_store(store: Store) -> dict[str, int]:
    path = Path(store.path)
    info = store.info()
    names = {entry.name for entry in path.iterdir()}
    generations = {name for name in names if name.isdigit()}
    assert generations <= {_name(info.generation), _name(info.generation - 1)}, names
    # One at most is being deleted, or was when a process was killed.
    assert len(names - generations - _PLACES) <= 1, names
    return {
        "claims": info.next_claim,
        "file": info.used_bytes,
        "directory": _size_of_all(path),
        "readers": len(info.readers),
        "owners": len(info.owners),
    }


# --- Who works ----------------------------------------------------------------


def _started(path: Path, rng: random.Random) -> Child:
    worker = Child(_work, path, rng.randrange(2**32))
    assert worker.receive() == "open"
    return worker


def _work(pipe: Connection, path: Path, seed: int) -> str:
    """Produces and consumes until it is told that it is enough."""
    rng = random.Random(seed)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with quelmdb.open(path, create=False) as store:
        pipe.send("open")
        while not pipe.poll():
            if store.counts()[Status.QUEUED] < _BACKLOG:
                _produce(store, rng)
            _consume(store, rng)
            if rng.random() < 0.02:
                _meddle(store, rng)
    return "over"


def _produce(store: Store, rng: random.Random) -> None:
    jobs = [_job(rng) for _ in range(rng.choice((1, 50, 50)))]
    if len(jobs) == 1:
        store.submit.insert(jobs[0]).result()
    else:
        store.insert_many(jobs)


def _job(rng: random.Random) -> Job:
    size = 5_000 if rng.random() < 0.01 else rng.randrange(200)
    return Job(
        f"worker {rng.randrange(8)}",
        {"n": rng.randrange(10**6), "content": b"x" * size},
        priority=rng.randrange(3),
        max_attempts=None if rng.random() < 0.8 else 3,
    )


def _consume(store: Store, rng: random.Random) -> None:
    jobs = store.claim(limit=rng.choice((1, 16, 64)))
    if not jobs:
        store.wait(timeout=0.05)
        return
    last = jobs.pop()
    store.complete_many(jobs, [{"done": job.id} for job in jobs])
    match rng.randrange(5):
        case 0:
            store.fail(last, "it failed")
        case 1:
            store.fail(last, "once more", retry_at=datetime.now(UTC))
        case 2:
            store.release(last)
        case 3:
            store.complete(store.progress(last, 1, 2, "half"), b"r" * rng.randrange(3_000))
        case 4:
            with store.batch() as batch:
                batch.complete(last)
                batch.insert(_job(rng))


def _meddle(store: Store, rng: random.Random) -> None:
    match rng.randrange(3):
        case 0:
            store.retry_many(list(store.failed(limit=20, reverse=True).ids()))
        case 1:
            store.cancel_many(list(store.jobs(Status.QUEUED, limit=3, reverse=True).ids()))
        case 2:
            with store.snapshot() as snapshot:
                assert len(list(snapshot.jobs(limit=300))) == min(300, len(snapshot.all()))
