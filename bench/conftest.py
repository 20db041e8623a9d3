"""Options and stores of `pytest bench`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from itertools import count
from pathlib import Path
from typing import Literal

import pytest

import quelmdb
from bench.compare.harness import workspace
from bench.compare.peers.ours import room_for
from bench.data import STATUSES, Data
from quelmdb import Job, Store

Durability = Literal["full", "ephemeral"]
Open = Callable[[Durability, int], Store]
"""An empty store, with room for so many jobs."""
Filled = Callable[[Durability, int], Store]
"""A store that holds the jobs of a size, made once for all benchmarks."""

DURABILITIES: tuple[Durability, ...] = ("full", "ephemeral")

_FILL = 10_000  # jobs a write


def pytest_xdist_auto_num_workers() -> int:
    """None: what runs at the same time cannot be measured."""
    return 0


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("bench", "the speed of quelmdb")
    group.addoption(
        "--sizes",
        default="1000,100000",
        help="numbers of jobs (1000,100000 by default; 10000000 takes minutes, and 8 GB of disk)",
    )
    group.addoption(
        "--directory", default=".", type=Path, help="where stores are made (here by default)"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "size" in metafunc.fixturenames:
        sizes = [int(size) for size in metafunc.config.getoption("--sizes").split(",")]
        metafunc.parametrize("size", sizes, ids=[f"{size:,}" for size in sizes])
    if "durability" in metafunc.fixturenames:
        metafunc.parametrize("durability", DURABILITIES, scope="module")


@pytest.fixture(scope="session")
def directory(pytestconfig: pytest.Config) -> Iterator[Path]:
    """A directory on the disk that was chosen, removed at the end."""
    with workspace(pytestconfig.getoption("--directory")) as place:
        yield place


@pytest.fixture(scope="session")
def open_store(directory: Path) -> Iterator[Open]:
    numbers = count()
    with ExitStack() as stack:

        def get(durability: Durability, jobs: int) -> Store:
            capacity = room_for(jobs) if durability == "ephemeral" else None
            path = directory / f"{next(numbers)}.qdb"
            opened = quelmdb.open(path, durability=durability, capacity=capacity)
            return stack.enter_context(opened)

        yield get


@pytest.fixture(scope="session")
def filled_store(open_store: Open) -> Filled:
    def get(durability: Durability, size: int) -> Store:
        store, data = open_store(durability, size), Data(size)
        for after in range(0, size, _FILL):
            store.insert_many(
                Job(worker, arguments, status=STATUSES[status])
                for worker, arguments, status in data.rows(after, _FILL)
            )
        return store

    return cache(get)
