"""Directories as a loss of power may leave them, opened and looked at by another process."""

from __future__ import annotations

import faulthandler
import resource
import shutil
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple

import quelmdb
from quelmdb import Job
from tests.children import Child, ChildDiedError, in_child
from tests.faults.acting import BIG, OPENED, Acknowledged, State
from tests.faults.disk import Disk, Image, fingerprint, write_image
from tests.faults.recorder import Event

NAME: Final = "jobs.qdb"
"""The directory of the store, in what is recorded."""


def recorded(work: Callable[..., list[Event]], *arguments: Any) -> list[Event]:
    """What a child records that does `work` in an empty directory."""
    with TemporaryDirectory(prefix="quelmdb-lost-", dir=_memory()) as name:
        return in_child(work, Path(name), *arguments)


class _Found(NamedTuple):
    """What another process found in an image."""

    state: State
    problems: list[str]
    seconds: float
    """That it took to open."""


class Looker:
    """Looks at images, in a process that is made anew when it has died of one."""

    def __init__(self, use: Callable[[quelmdb.Store], object]) -> None:
        """`use`: what is tried with each store when it was looked at."""
        self._use = use
        self._child: Child | None = None
        self._place = TemporaryDirectory(prefix="quelmdb-lost-", dir=_memory())
        self._seen: set[object] = set()
        self._count = 0
        self.slowest = 0.0
        self.errors: list[str] = []

    @property
    def count(self) -> int:
        """Of different images."""
        return self._count

    def is_new(self, image: Image) -> bool:
        """Whether it was not looked at before."""
        before = len(self._seen)
        self._seen.add(fingerprint(image))
        return len(self._seen) > before

    def look(self, image: Image, where: str = "", use: bool = False) -> State | None:
        """Every job in it; None where something is wrong, which is in `errors` then."""
        if self._child is None:
            self._child = Child(_look, self._use)
        self._count += 1
        place = Path(self._place.name, str(self._count))
        write_image(image, place)
        self._child.send((place / NAME, use))
        try:
            found = self._child.receive()
        except ChildDiedError as error:
            self._child = None
            found = str(error)
        if isinstance(found, str) or found.problems:
            self.errors.append(f"{where}: {found if isinstance(found, str) else found.problems}")
            return None
        shutil.rmtree(place)
        self.slowest = max(self.slowest, found.seconds)
        state: State = found.state
        return state

    def __enter__(self) -> Looker:
        return self

    def __exit__(self, *reason: object) -> None:
        if self._child is not None:
            self._child.kill()
        self._place.cleanup()


def _memory() -> str | None:
    """Where files cost no disk."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def _look(pipe: Connection, use: Callable[[quelmdb.Store], object]) -> None:
    faulthandler.disable()  # of the images that are to be found wrong some are the end of it
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while True:
        path, is_used = pipe.recv()
        try:
            begun = time.perf_counter()
            with quelmdb.open(path) as store:
                seconds = time.perf_counter() - begun
                problems = [str(problem) for problem in store.check()]
                state = {job.id: job for job in store.all() if job.id}
                if is_used:
                    use(store)
                    problems += [str(problem) for problem in store.check()]
            pipe.send(_Found(state, problems, seconds))
        except Exception as error:
            pipe.send(f"{type(error).__name__}: {error}")


def go_on(store: quelmdb.Store) -> None:
    """Tries whether it works."""
    before = len(store.all())
    job = store.insert(Job("after", b"x" * BIG))
    assert len(store.all()) == before + 1
    (claimed,) = store.claim("after")
    store.complete(claimed, result=b"y" * BIG)
    assert job.id is not None
    found = store.find(job.id)
    assert found is not None
    assert found.result == b"y" * BIG


def states_of(events: list[Event], looker: Looker) -> list[State]:
    """Every job after each transaction that was committed since the store was opened."""
    disk, told = Disk(), Acknowledged(events)
    states = []
    for number, event in enumerate(events):
        disk.apply(event)
        told.apply(event)
        if (told.is_open and event.is_durable) or event.data == OPENED:
            state = looker.look(
                disk.image(disk.names, disk.changes), f"event {number}, all written"
            )
            assert state is not None, looker.errors
            states.append(state)
    return states
