"""Options and stores of `pytest bench`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import pytest

from bench.contestant import Contestant
from bench.data import Data
from bench.harness import filled, workspace

Filled = Callable[[type[Contestant], int], Contestant]


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("bench", "the speed of quelmdb")
    group.addoption(
        "--sizes", default="1000,100000", help="numbers of jobs (1000,100000 by default)"
    )
    group.addoption(
        "--directory", default=".", type=Path, help="where stores are made (here by default)"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "size" in metafunc.fixturenames:
        sizes = [int(size) for size in metafunc.config.getoption("--sizes").split(",")]
        metafunc.parametrize("size", sizes, ids=[f"{size:,}" for size in sizes])


@pytest.fixture(scope="session")
def directory(pytestconfig: pytest.Config) -> Iterator[Path]:
    """A directory on the disk that was chosen, removed at the end."""
    with workspace(pytestconfig.getoption("--directory")) as place:
        yield place


@pytest.fixture(scope="session")
def data_of() -> Callable[[int], Data]:
    return cache(Data)


@pytest.fixture(scope="session")
def filled_store(directory: Path, data_of: Callable[[int], Data]) -> Iterator[Filled]:
    """Contestants that hold the jobs of a size, each filled once."""
    with ExitStack() as stack:

        @cache
        def get(kind: type[Contestant], size: int) -> Contestant:
            return stack.enter_context(filled(kind, data_of(size), directory))

        yield get
