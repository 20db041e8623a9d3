"""What a peer is: a store of jobs that takes part, and what can be asked of it.

Each starts from plain values (`Row`) and hands back Python objects of its own kind: a `Job`
of quelmdb, a tuple of sqlite3, a message of litequeue. Every method that writes is one write
of the peer's own durability.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

from bench.data import Row

Plain = tuple[int, str, dict[str, Any], int]
"""Id, worker, arguments, status code: what the answers of stores are compared as."""


class Durability(StrEnum):
    """What an acknowledged write survives. Only peers of one class are compared."""

    FULL = "full"
    """The death of any process, and loss of power."""
    EPHEMERAL = "ephemeral"
    """The death of any process; the last writes may not survive loss of power."""


class Ability(StrEnum):
    """What not every peer has."""

    INSERT_BATCH = "insert_batch"
    """Some hundred jobs in one write."""
    INSERT_BULK = "insert_bulk"
    """Any number of jobs in one write, without a message for each."""
    CLAIM_BATCH = "claim_batch"
    """Many jobs claimed in one write, and ended in one."""
    PROCESSES = "processes"
    """Several processes use it at once."""


class Size(NamedTuple):
    """Bytes on disk: what holds data, and with what is allocated ahead."""

    used: int
    file: int


Way = Callable[[], AbstractContextManager[Callable[[Row], object]]]
"""Called in a thread: the function that inserts a job there."""

AsyncInsert = Callable[[Row], Awaitable[object]]
"""Inserts one job, in one write."""


class Queue(ABC):
    """Jobs go in, and are claimed first in first out: what every peer can."""

    can: ClassVar[frozenset[Ability]] = frozenset()
    busy: ClassVar[tuple[type[Exception], ...]] = ()
    """What it raises where others keep it waiting too long; the caller is to try again."""

    @abstractmethod
    def close(self) -> None: ...

    @abstractmethod
    def insert(self, row: Row) -> Any:
        """One job, one write."""

    def ready(self, rows: Sequence[Row]) -> Any:
        """What `insert_many` takes, made of these rows."""
        return rows

    def insert_many(self, ready: Any) -> Any:
        """All in one write, where it can do that; else one after the other."""
        return [self.insert(row) for row in ready]

    @abstractmethod
    def claim(self, limit: int) -> list[Any]:
        """Takes the first waiting jobs and looks at their arguments: in one write, where it
        can do that."""

    @abstractmethod
    def complete(self, job: Any) -> None:
        """Ends a claimed job, in one write."""

    def complete_many(self, jobs: Sequence[Any]) -> None:
        """Ends all these jobs: in one write, where it can do that."""
        for job in jobs:
            self.complete(job)

    @abstractmethod
    def number(self, job: Any) -> int:
        """The number that a claimed job carries in its arguments."""

    @abstractmethod
    def waiting(self) -> int:
        """How many jobs can be claimed."""

    @abstractmethod
    def size(self) -> Size: ...

    def ways(self) -> dict[str, Way]:
        """How several threads use it. Of several ways the quickest counts."""
        return {"": lambda: nullcontext(self.insert)}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()


class Store(Queue):
    """A queue whose jobs have ids, workers and statuses, and can be listed by them."""

    def settle(self) -> None:
        """Brings the files into the state in which they are read most quickly."""

    @abstractmethod
    def find(self, job_id: int) -> Any:
        """One job, its arguments decoded."""

    @abstractmethod
    def iterate(self, status: int | None, decoded: bool) -> int:
        """Goes over the jobs [of a status] by ascending id at one point in time, an object
        each, and counts them. Arguments are decoded only where that is asked for."""

    @abstractmethod
    def of_worker(self, worker: str, limit: int) -> list[Any]:
        """The first jobs of a worker by ascending id. Arguments are not decoded."""

    @abstractmethod
    def ids_of_status(self, status: int) -> list[int]:
        """Ascending."""

    @abstractmethod
    def page_of_status(self, status: int, after: int, limit: int) -> list[int]:
        """The first ids of a status above one, ascending."""

    @abstractmethod
    def incomplete_ids(self) -> list[int]:
        """Of the three statuses, ascending."""

    @abstractmethod
    def ids_of_worker(self, worker: str) -> list[int]:
        """Of all six statuses, ascending."""

    @abstractmethod
    def count_failed(self) -> int: ...

    @abstractmethod
    def counts(self) -> list[int]:
        """By status code."""

    @abstractmethod
    def plain(self, job: Any) -> Plain:
        """The job that any of these methods, or claim, has returned."""


@dataclass(frozen=True)
class Peer:
    """One that takes part, at one durability."""

    name: str
    family: str
    durability: Durability
    setting: str
    """What was set to make it so durable, and what that means there."""
    open: Callable[[Path, int], Queue]
    """Opens it in a directory, made where that is empty: for about so many jobs."""
    kind: type[Queue]
    serve: Callable[[Path], AbstractContextManager[object]] = lambda place: nullcontext()
    """What must run beside it, for a directory."""
    open_async: Callable[[Path, int], AbstractAsyncContextManager[AsyncInsert]] | None = None
    """The same for tasks of an event loop, where it can do that."""
    missing: Callable[[], str] = lambda: ""
    """Why it cannot take part on this machine, or nothing."""

    def has(self, *abilities: Ability) -> bool:
        return self.kind.can.issuperset(abilities)


@dataclass(frozen=True)
class Fairness:
    """What a family of peers does that quelmdb does not, and the reverse."""

    family: str
    used: str
    """How it is used here."""
    more: str
    less: str
