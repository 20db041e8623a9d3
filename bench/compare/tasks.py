"""Inserts from tasks of asyncio: each inserts one after the other, so many are in flight."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Final

from bench.compare.harness import Result, served, take_turns
from bench.compare.peer import AsyncInsert, Peer
from bench.compare.workload import Prepare, Scale, Timed
from bench.data import Row, queued

PREFIX: Final = "insert_tasks_"


def key(tasks: int) -> str:
    return f"{PREFIX}{tasks}"


def title(tasks: int) -> str:
    return f"asyncio, {tasks:,} inserts in flight"


def measure(tasks: int, peers: Sequence[Peer], scale: Scale, directory: Path) -> list[Result]:
    """One event loop for all, in which one peer at a time is busy."""
    with asyncio.Runner() as runner, ExitStack() as servers:
        stack = AsyncExitStack()
        try:
            prepares = {}
            for peer in peers:
                if peer.open_async is not None:
                    path = servers.enter_context(served(peer, directory))
                    opened = stack.enter_async_context(peer.open_async(path, scale.room))
                    prepares[peer.name] = _prepare(runner, runner.run(opened), tasks)
            timings = take_turns(
                prepares, scale.rounds, scale.seconds, least=tasks, settled=scale.settled
            )
        finally:
            runner.run(stack.aclose())
    return [Result(key(tasks), timings)] if timings else []


def _prepare(runner: asyncio.Runner, insert: AsyncInsert, tasks: int) -> Prepare:
    def prepare(count: int) -> Timed:
        share = count // tasks
        parts = [
            list(map(queued, range(first, first + share)))
            for first in range(0, share * tasks, share)
        ]

        def timed() -> int:
            runner.run(_all_at_once(insert, parts))
            return share * tasks

        return timed

    return prepare


async def _all_at_once(insert: AsyncInsert, parts: Sequence[Sequence[Row]]) -> None:
    async with asyncio.TaskGroup() as group:
        for rows in parts:
            group.create_task(_one_by_one(insert, rows))


async def _one_by_one(insert: AsyncInsert, rows: Sequence[Row]) -> None:
    for row in rows:
        await insert(row)
