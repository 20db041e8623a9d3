"""Processes that the suite starts: fresh interpreters that have the peers imported."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Barrier, Event
from typing import Any, Final

START_SECONDS: Final = 60.0  # that processes wait for each other

_CONTEXT: Final = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["bench.compare.peers"])


@dataclass(frozen=True)
class Shared:
    """What the processes of a measurement have in common."""

    gate: Barrier
    """All of them, and the one that measures, start when the last one is ready."""
    done: Synchronized[int]
    """How many jobs are through."""
    stop: Event
    """The measurement has ended, one way or the other."""


_shared: Shared | None = None


@contextmanager
def processes(count: int) -> Iterator[tuple[ProcessPoolExecutor, Shared]]:
    """An executor whose processes find `shared()`: one for each function submitted."""
    shared = Shared(
        _CONTEXT.Barrier(count + 1, timeout=START_SECONDS),
        _CONTEXT.Value("Q", 0),
        _CONTEXT.Event(),
    )
    with ProcessPoolExecutor(
        count, mp_context=_CONTEXT, initializer=_inherit, initargs=(shared,)
    ) as executor:
        try:
            yield executor, shared
        finally:
            shared.stop.set()


def shared() -> Shared:
    """In such a process."""
    assert _shared is not None
    return _shared


def _inherit(shared: Any) -> None:
    global _shared
    _shared = shared
