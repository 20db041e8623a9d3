"""Asynchronous stores in tests: run in a loop, held up, stopped within what they do."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

import pytest

import quelmdb.aio
import quelmdb.commit
from quelmdb.counters import Counters
from tests.children import Child

T = TypeVar("T")
AioStore = quelmdb.aio.Store


def run(path: Path, work: Callable[[AioStore], Coroutine[Any, Any, T]]) -> T:
    """What `work` returns, in an event loop with a store that is open."""

    async def opened() -> T:
        async with await quelmdb.aio.open(path) as store:
            return await work(store)

    return asyncio.run(opened())


async def settle(store: AioStore) -> None:
    """Waits until all is committed, and what that gave back is, too."""
    for _ in range(2):
        await asyncio.to_thread(store._store._committer.finish)


@contextmanager
def held(store: AioStore) -> Iterator[None]:
    """No transaction begins."""
    with store._store._committer._turn:  # this thread itself writes nothing
        yield


class Stop:
    """A function before which whoever calls it stops, until the end of the block."""

    def __init__(self, patch: pytest.MonkeyPatch, where: object, name: str) -> None:
        self.reached, self.go_on = threading.Event(), threading.Event()
        function = getattr(where, name)

        def stop(*arguments: object) -> object:
            self.reached.set()
            self.go_on.wait()
            return function(*arguments)

        patch.setattr(where, name, stop)

    async def wait(self) -> None:
        await asyncio.to_thread(self.reached.wait)


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stop]:
    """The committer stops within its transactions."""
    stop = Stop(monkeypatch, Counters, "finish")
    yield stop
    stop.go_on.set()


@pytest.fixture
def committed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stop]:
    """The committer stops behind its transactions, before it tells of them."""
    stop = Stop(monkeypatch, quelmdb.commit, "_deliver")
    yield stop
    stop.go_on.set()


async def listed(view: quelmdb.aio.View[T]) -> list[T]:
    return [item async for item in view]


def _die_holding(pipe: Connection, path: Path, limit: int) -> None:
    with quelmdb.open(path) as store:
        pipe.send(store.claim("a", limit=limit))
        pipe.recv()


@contextmanager
def dead_holder(path: Path, limit: int) -> Iterator[None]:
    """A process that holds jobs, and is dead in the block."""
    with Child(_die_holding, path, limit) as child:
        child.receive()
        child.kill()
        yield
