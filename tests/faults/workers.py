"""Processes with lanes (`lanes`), which tell of each call before it and behind it; and one that
compacts."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, NamedTuple

import quelmdb
import quelmdb.aio
from quelmdb import DuplicateJobError, InvalidTransitionError, Store
from tests.faults.lanes import Changes, Lane, Step

LANES: Final = {"alone": 1, "threads": 4, "submit": 4, "asyncio": 6}
"""How many lanes a process of each kind has."""


class Begun(NamedTuple):
    """A call is made now."""

    lane: str
    step: Step


class Done(NamedTuple):
    """The call that the lane has told of has returned."""

    lane: str
    changes: Changes
    at: int
    """The time of the return, nanoseconds."""


def names(seat: str, kind: str) -> list[str]:
    """Those of its lanes."""
    return [f"{seat}.{number}" for number in range(LANES[kind])]


def work(pipe: Connection, path: Path, seat: str, kind: str, seed: int) -> None:
    """Works for ever."""
    with quelmdb.open(path) as store:
        lanes = [
            _Telling(pipe, Lane(store, random.Random(seed + number), name))
            for number, name in enumerate(names(seat, kind))
        ]
        match kind:
            case "asyncio":
                asyncio.run(_in_tasks(path, lanes))
            case "submit":
                _in_futures(store, lanes)
            case _:
                _in_threads(store, lanes)


def compact_for_ever(pipe: Connection, path: Path) -> None:
    """Tells of each compaction when it is made."""
    with quelmdb.open(path) as store:
        while True:
            pipe.send(store.compact().generation)


_sending: Final = threading.Lock()


class _Telling:
    """A lane that tells what it does."""

    def __init__(self, pipe: Connection, lane: Lane) -> None:
        self._pipe = pipe
        self._lane = lane
        self.step = Step("wait", ())

    def begin(self) -> Step:
        self.step = self._lane.next_step()
        self._tell(Begun(self._lane.name, self.step._replace(arguments=(), options={})))
        return self.step

    def end(self, made: Callable[[], Any]) -> None:
        """`made` returns, or raises, what the call did."""
        changes: Changes = {}
        try:
            result = made()
        except (DuplicateJobError, InvalidTransitionError):
            at = time.monotonic_ns()
        else:
            at = time.monotonic_ns()
            changes = self._lane.told(self.step, result)
        self._tell(Done(self._lane.name, changes, at))

    def _tell(self, what: Begun | Done) -> None:
        with _sending:
            self._pipe.send(what)


# --- Threads --------------------------------------------------------------------


def _in_threads(store: Store, lanes: list[_Telling]) -> None:
    errors: list[BaseException] = []
    ended = threading.Event()

    def run(lane: _Telling) -> None:
        try:
            while True:
                step = lane.begin()
                lane.end(lambda step=step: _call(store, step))  # type: ignore[misc]
        except BaseException as error:
            errors.append(error)
            ended.set()

    for lane in lanes:
        threading.Thread(target=run, args=(lane,), daemon=True).start()
    ended.wait()
    raise errors[0]


def _call(store: Store, step: Step) -> Any:
    if step.verb != "batch":
        return getattr(store, step.verb)(*step.arguments, **step.options)
    with store.batch() as batch:
        for part in step.arguments:
            getattr(batch, part.verb)(*part.arguments, **part.options)
    return batch.results


# --- Futures --------------------------------------------------------------------


def _in_futures(store: Store, lanes: list[_Telling]) -> None:
    """One thread; the lanes have a call under way each, whose transactions they share."""
    pending: dict[Future[Any], _Telling] = {}
    ready = list(lanes)
    while True:
        for lane in ready:
            step = lane.begin()
            submit = getattr(store.submit, step.verb, None)
            while submit is None:
                lane.end(lambda step=step: _call(store, step))  # type: ignore[misc]
                step = lane.begin()
                submit = getattr(store.submit, step.verb, None)
            pending[submit(*step.arguments, **step.options)] = lane
        done, _ = wait(pending, return_when=FIRST_COMPLETED)
        ready = []
        for future in done:
            lane = pending.pop(future)
            lane.end(future.result)
            ready.append(lane)


# --- asyncio --------------------------------------------------------------------


async def _in_tasks(path: Path, lanes: list[_Telling]) -> None:
    async with await quelmdb.aio.open(path) as store, asyncio.TaskGroup() as group:
        for lane in lanes:
            group.create_task(_task(store, lane))


async def _task(store: quelmdb.aio.Store, lane: _Telling) -> None:
    while True:
        call = asyncio.ensure_future(_called(store, lane.begin()))
        await asyncio.wait([call])
        lane.end(call.result)


async def _called(store: quelmdb.aio.Store, step: Step) -> Any:
    if step.verb != "batch":
        return await getattr(store, step.verb)(*step.arguments, **step.options)
    async with store.batch() as batch:
        for part in step.arguments:
            getattr(batch, part.verb)(*part.arguments, **part.options)
    return batch.results
