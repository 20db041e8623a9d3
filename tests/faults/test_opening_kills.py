"""Of processes that open a store at the same time the first is killed: the others open it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import lmdb
import pytest

import quelmdb
from quelmdb import Job, layout
from tests.children import Child
from tests.durabilities import by_durability
from tests.runners import eventually

pytest_plugins = ["tests.fixtures"]


def _clear(lock_file: Path) -> None:
    """Takes the lock of who is the first to open it, before that one has written into it."""
    descriptor = os.open(lock_file, os.O_RDWR)
    fcntl.lockf(descriptor, fcntl.LOCK_EX, 1, 0)
    os.pwrite(descriptor, bytes(os.fstat(descriptor).st_size), 0)


def _open_in_part(pipe: Connection, path: Path) -> None:
    """Opens the store as far as into LMDB, and stays there."""

    def stay(directory: str, **options: object) -> object:
        if not options.get("readonly"):
            _clear(Path(directory) / layout.LOCK_FILE)
            pipe.send("begun")
            pipe.recv()
        return original(directory, **options)

    original: Callable[..., object] = lmdb.open
    lmdb.open = stay  # type: ignore[assignment]
    quelmdb.open(path)


def _begin_in_lmdb(pipe: Connection, path: Path) -> None:
    """As a process that looks alone, which waits for nobody but within LMDB."""
    _clear(path / layout.generation_name(1) / layout.LOCK_FILE)
    pipe.send("begun")
    pipe.recv()


def _insert(pipe: Connection, path: Path) -> int | None:
    with quelmdb.open(path) as store:
        return store.insert(Job("a")).id


def _count(pipe: Connection, path: Path) -> int:
    with quelmdb.open(path, readonly=True) as store:
        return len(store.all())


def _waits(child: Child) -> bool:
    """Whether it waits for a record lock (proc(5), /proc/locks)."""
    lines = Path("/proc/locks").read_text().splitlines()
    return any(" -> " in line and str(child.pid) in line.split() for line in lines)


@by_durability()
@pytest.mark.parametrize("work", [_insert, _count])
@pytest.mark.parametrize("first", [_open_in_part, _begin_in_lmdb])
def test_whoever_waits_for_the_first_to_open_it_opens_it_when_that_one_is_killed(
    first: Callable[..., None], work: Callable[..., int], options: dict[str, Any], path: Path
) -> None:
    with quelmdb.open(path, **options) as store:
        store.insert(Job("a"))
    with Child(first, path) as one:
        assert one.receive() == "begun"
        with Child(work, path) as two, Child(work, path) as three:
            eventually(lambda: _waits(two) and _waits(three))
            one.kill()
            told = sorted((two.receive(), three.receive()))
    assert told == ([2, 3] if work is _insert else [1, 1])
