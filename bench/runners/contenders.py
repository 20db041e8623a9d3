"""Who takes part: how jobs are added to it and how its runner is started, as users do it."""

from __future__ import annotations

import importlib
import json
import os
import shlex
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

from litequeue import LiteQueue

import quelmdb
from bench.compare.peer import Durability
from bench.compare.peers.ours import room_for
from bench.runners import jobs, popping, work
from bench.runners.processes import Runner, noted
from quelmdb import Status

OURS: Final = "quelmdb"
HUEY: Final = "huey"
LITEQUEUE: Final = "litequeue"

_FEW: Final = 10_000  # jobs that a store has room for whose runner is idle most of the time


@dataclass(frozen=True)
class Contender(ABC):
    """A runner with its settings. `place` is a directory of its own.

    `fill`, `adding` and `last_completed` are for other processes than the runner's, and one
    such process is about one contender in one place only.
    """

    name: str
    durability: Durability
    setting: str
    processes: int = 1
    is_live: bool = False
    """Whether it is measured while it has little to do, too."""

    family: ClassVar[str]

    @property
    @abstractmethod
    def command(self) -> str:
        """As it is typed."""

    @abstractmethod
    def fill(self, place: Path, count: int) -> None:
        """Makes its store and adds so many no-op jobs, which note in `marks(place)`."""

    @abstractmethod
    def drain(self, place: Path) -> None:
        """Runs until all these jobs are through."""

    @abstractmethod
    def last_completed(self, place: Path, count: int) -> int:
        """When the last of so many jobs was completed (ns since 1970). Raises
        `RuntimeError` where they are not."""

    def adding(self, place: Path) -> Any:
        """A context manager: the function that adds one job that notes its delay into a
        file. The store is made where it is not there."""
        raise NotImplementedError

    def run(self, place: Path) -> Any:
        """Its runner, until it is ended with `stop`."""
        raise NotImplementedError

    stop: ClassVar[signal.Signals] = signal.SIGTERM


def marks(place: Path) -> Path:
    return place / "marks"


def _log(place: Path) -> Path:
    return place / "log"


def _raise_unless_through(name: str, left: int) -> None:
    if left:
        raise RuntimeError(f"{name} has left {left} jobs")


# --- quelmdb ------------------------------------------------------------------


class Ours(Contender):
    """`quelmdb run`, everything by default but for durability and the number of processes."""

    family = OURS

    @property
    def command(self) -> str:
        return f"quelmdb run jobs.qdb {jobs.__name__} --processes {self.processes}"

    def fill(self, place: Path, count: int) -> None:
        with self._open(place, count) as store:
            rows = work.rows(count, str(marks(place)))
            store.insert_many(jobs.no_op.job(arguments) for arguments in rows)

    def drain(self, place: Path) -> None:
        with self._start(place, "--until-empty") as runner:
            runner.end()

    def last_completed(self, place: Path, count: int) -> int:
        with self._open(place, count) as store:
            times = [job.updated_at for job in store.jobs(Status.COMPLETED)]
        _raise_unless_through(self.name, count - len(times))
        return round(max(time.timestamp() for time in times if time is not None) * 1e9)

    @contextmanager
    def adding(self, place: Path) -> Iterator[Callable[[str], object]]:
        with self._open(place, _FEW) as store:
            yield lambda into: jobs.stamp.add(store, work.stamped(into))

    def run(self, place: Path) -> Runner:
        return self._start(place)

    def _open(self, place: Path, count: int) -> quelmdb.Store:
        path = place / "jobs.qdb"
        is_sized = self.durability == Durability.EPHEMERAL and not path.exists()
        capacity = room_for(count) if is_sized else None
        name: Any = self.durability.value
        return quelmdb.open(path, durability=name, capacity=capacity)

    def _start(self, place: Path, *options: str) -> Runner:
        store, targets = str(place / "jobs.qdb"), jobs.__name__
        command = ["-m", "tools", "run", store, targets, "--processes", str(self.processes)]
        return Runner([*command, *options], _log(place))


# --- huey ---------------------------------------------------------------------


@dataclass(frozen=True)
class Huey(Contender):
    """`huey_consumer`, everything by default but for what `fsync` and `options` say."""

    fsync: bool | None = None
    options: tuple[str, ...] = ()

    family = HUEY
    stop = signal.SIGINT  # which lets it finish what runs

    @property
    def command(self) -> str:
        return shlex.join(["huey_consumer", f"{_TASKS}.huey", *self.options])

    def fill(self, place: Path, count: int) -> None:
        no_op = self._tasks(place).no_op
        for arguments in work.rows(count, str(marks(place))):
            no_op(arguments)

    def drain(self, place: Path) -> None:
        with self.run(place) as runner:
            runner.until(lambda: len(noted(marks(place))) == 2)
            runner.end(self.stop)

    def last_completed(self, place: Path, count: int) -> int:
        """When the last one ran: huey keeps no account of that."""
        _raise_unless_through(self.name, self._tasks(place).huey.pending_count())
        return noted(marks(place))[-1]

    @contextmanager
    def adding(self, place: Path) -> Iterator[Callable[[str], object]]:
        tasks = self._tasks(place)
        yield lambda into: tasks.stamp(work.stamped(into))
        tasks.huey.storage.close()

    def run(self, place: Path) -> Runner:
        command = ["-m", "huey.bin.huey_consumer", f"{_TASKS}.huey", *self.options]
        return Runner(command, _log(place), self._environment(place))

    def _tasks(self, place: Path) -> Any:
        """The module of the tasks, in this process."""
        os.environ.update(self._environment(place))
        return importlib.import_module(_TASKS)

    def _environment(self, place: Path) -> dict[str, str]:
        options = {"filename": str(place / "huey.db"), "fsync": self.fsync}
        return {work.HUEY_OPTIONS: json.dumps(options)}


_TASKS: Final = "bench.runners.tasks"


# --- litequeue ----------------------------------------------------------------


class Litequeue(Contender):
    """No runner, but the loop that one writes around `pop` and `done`."""

    family = LITEQUEUE

    @property
    def command(self) -> str:
        return f"python -m {popping.__name__} queue.db"

    def fill(self, place: Path, count: int) -> None:
        queue = LiteQueue(_queue(place))
        with queue.transaction():
            for arguments in work.rows(count, str(marks(place))):
                queue.put(json.dumps(arguments))
        queue.close()

    def drain(self, place: Path) -> None:
        with Runner(["-m", popping.__name__, _queue(place)], _log(place)) as runner:
            runner.end()

    def last_completed(self, place: Path, count: int) -> int:
        """When the last one ran, which `done` follows."""
        queue = LiteQueue(_queue(place))
        _raise_unless_through(self.name, queue.qsize())
        queue.close()
        return noted(marks(place))[-1]


def _queue(place: Path) -> str:
    return str(place / "queue.db")


# --- All of them --------------------------------------------------------------

OURS_FULL: Final = "quelmdb full"
OURS_EPHEMERAL: Final = "quelmdb ephemeral"
LIVE_HUEY: Final = "huey"

_SYNCED: Final = "fsync=None, its default: synchronous=FULL, one sync a commit"
_UNSYNCED: Final = "fsync=False: synchronous=OFF, loss of power may corrupt the file"
_QUIET: Final = "; without its two lines of log a job"
_TWO: Final = ("--workers", "2", "--worker-type", "process")


def _both(durability: Durability, name: str, fsync: bool | None, setting: str) -> list[Contender]:
    return [
        Huey(name, durability, setting, is_live=True, fsync=fsync),
        Huey(f"{name} --quiet", durability, setting + _QUIET, fsync=fsync, options=("--quiet",)),
        Huey(
            f"{name} --quiet, 2 processes",
            durability,
            setting + _QUIET,
            2,
            fsync=fsync,
            options=("--quiet", *_TWO),
        ),
    ]


CONTENDERS: Final[dict[str, Contender]] = {
    contender.name: contender
    for contender in (
        Ours(OURS_EPHEMERAL, Durability.EPHEMERAL, 'durability="ephemeral"', is_live=True),
        Ours(f"{OURS_EPHEMERAL}, 2 processes", Durability.EPHEMERAL, 'durability="ephemeral"', 2),
        *_both(Durability.EPHEMERAL, "huey fsync=False", False, _UNSYNCED),
        Litequeue(
            LITEQUEUE,
            Durability.EPHEMERAL,
            "its default: synchronous=NORMAL, loss of power may undo the last commits",
        ),
        Ours(OURS_FULL, Durability.FULL, 'durability="full", its default', is_live=True),
        Ours(f"{OURS_FULL}, 2 processes", Durability.FULL, 'durability="full", its default', 2),
        *_both(Durability.FULL, "huey", None, _SYNCED),
    )
}


def ours(contender: Contender) -> str:
    """The name of what it is compared with: quelmdb of its durability, as many processes."""
    return next(
        other.name
        for other in CONTENDERS.values()
        if other.family == OURS
        and (other.durability, other.processes) == (contender.durability, contender.processes)
    )
