"""What every contestant can be asked.

Each starts from plain values (`Row`) and hands back Python objects of its own kind: a `Job`
of quelmdb, a tuple of the others. What is called one write is one transaction, durable when
the method returns.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

from bench.data import Row

Plain = tuple[int, str, dict[str, Any], int]
"""Id, worker, arguments, status code: what all answers are compared as."""


class Size(NamedTuple):
    """Bytes on disk: what holds data, and with what is allocated ahead."""

    used: int
    file: int


class Contestant(ABC):
    """A store of jobs in a directory of its own."""

    name: ClassVar[str]

    @abstractmethod
    def __init__(self, directory: Path) -> None:
        """Makes an empty store in a directory that exists and is empty."""

    @abstractmethod
    def close(self) -> None: ...

    def settle(self) -> None:  # noqa: B027 (most have nothing to do)
        """Brings the files into the state in which they are read most quickly."""

    @abstractmethod
    def size(self) -> Size: ...

    # --- Writes -------------------------------------------------------------

    def ready(self, rows: Sequence[Row]) -> Any:
        """What `insert_many` takes, made of these rows."""
        return rows

    @abstractmethod
    def insert(self, row: Row) -> Any:
        """One job, one write. Returns something that tells its id."""

    @abstractmethod
    def insert_many(self, ready: Any) -> Sequence[Any]:
        """All in one write. Returns something that tells the ids."""

    @abstractmethod
    def update(self, job_id: int, row: Row) -> None:
        """Replaces worker, arguments and status, in one write."""

    @abstractmethod
    def update_many(self, changes: Sequence[tuple[int, Row]]) -> None:
        """Replaces them of all these jobs, in one write."""

    @abstractmethod
    def destroy_many(self, ids: Sequence[int]) -> None:
        """All in one write."""

    @abstractmethod
    def claim(self, limit: int) -> list[Any]:
        """Takes the first queued jobs, in one write, and looks at their arguments."""

    @abstractmethod
    def complete(self, job: Any) -> None:
        """Ends a claimed job, where it is still held under that claim, in one write."""

    @abstractmethod
    def complete_many(self, jobs: Sequence[Any]) -> None:
        """Ends all these jobs likewise, in one write."""

    # --- Reads --------------------------------------------------------------

    @abstractmethod
    def find(self, job_id: int) -> Any:
        """One job, its arguments decoded."""

    @abstractmethod
    def iterate(self) -> int:
        """Goes over all jobs by ascending id at one point in time, an object each, and
        counts them. Arguments are not decoded."""

    @abstractmethod
    def iterate_arguments(self) -> int:
        """The same, with every job's arguments decoded."""

    @abstractmethod
    def jobs_of(self, worker: str, limit: int) -> list[Any]:
        """The first jobs of a worker by ascending id. Arguments are not decoded."""

    @abstractmethod
    def ids_of_status(self, status: int) -> list[int]:
        """Ascending."""

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

    # --- To compare answers -------------------------------------------------

    @abstractmethod
    def id_of(self, job: Any) -> int:
        """The id of what any method has returned."""

    @abstractmethod
    def plain(self, job: Any) -> Plain:
        """The job that any read, or claim, has returned."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()
