"""Where address space is short: the map is as large as it can be, and its end is told clearly."""

from __future__ import annotations

import resource
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

import quelmdb
from quelmdb import Job, StoreFullError, engine
from quelmdb.filesystem import MIB
from tests.children import Child, in_child

pytest_plugins = ["tests.fixtures"]


def _limit_address_space(size: int) -> None:
    """To `size` bytes beside what this process has from the one that it was forked from."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + size, hard))


@pytest.mark.parametrize("gibibytes", [1, 2, 8])
def test_in_a_small_address_space_the_store_opens_and_works(gibibytes: int, path: Path) -> None:
    """`ulimit -v`, as batch systems set it: the usual map has 1 TiB."""

    def work() -> int:
        _limit_address_space(gibibytes * 2**30)
        with quelmdb.open(path) as store:
            store.insert_many(Job("a", b"x" * 1000) for _ in range(5000))
            store.complete_many(store.claim(limit=1000))
            assert store.check() == []
            return len(store.all())

    assert in_child(work) == 5000


def _with_a_map_of(size: int, pipe: Connection, path: Path) -> None:
    """Inserts 4 MiB whenever it is told to, in a process with such a map."""
    engine._MAP_SIZES = (size,)  # type: ignore[misc]
    with quelmdb.open(path) as store:
        while True:
            try:
                pipe.send(len(store.insert_many([Job("a", b"x" * MIB)] * 4)))
            except StoreFullError as error:
                pipe.send(str(error))
            pipe.recv()


def _small(pipe: Connection, path: Path) -> None:
    _with_a_map_of(64 * MIB, pipe, path)


def _usual(pipe: Connection, path: Path) -> None:
    _with_a_map_of(2**40, pipe, path)


def test_a_file_that_outgrows_a_small_map_is_a_clear_error_and_no_harm_to_others(
    path: Path,
) -> None:
    with Child(_small, path) as small, Child(_usual, path) as usual:
        for child in (small, usual):
            assert child.receive() == 4
        for _ in range(18):
            usual.send()
            assert usual.receive() == 4
        small.send()
        told = small.receive()
        assert "ulimit -v" in told
        assert str(path) in told
        usual.send()
        assert usual.receive() == 4
    with quelmdb.open(path) as store:
        assert len(store.all()) == 84


def test_a_map_that_is_full_is_a_clear_error(path: Path) -> None:
    with Child(_small, path) as small:
        told: Any = None
        while not isinstance(told, str):
            told = small.receive()
            small.send()
        assert "ulimit -v" in told
    with quelmdb.open(path) as store:
        store.insert(Job("a"))
        assert len(store.all()) > 4
