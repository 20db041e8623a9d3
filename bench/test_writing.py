"""How fast quelmdb writes: from one thread, from many, from an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import quelmdb.aio
from bench.compare.peers.ours import room_for
from bench.conftest import Durability, Open
from bench.data import queued
from quelmdb import Job, Status, Store

BATCH = 100
ROUNDS = 5
_AT_ONCE = 100_000  # more would measure the memory of their objects
_EACH = {"full": 200, "ephemeral": 5_000}  # writes one by one of a round
_MANY = {"full": 4_000, "ephemeral": 8_000}  # of a round in which many are in flight


@pytest.fixture(scope="module")
def store(open_store: Open, durability: Durability) -> Store:
    return open_store(durability, 2_000_000)


def _jobs(count: int) -> list[Job]:
    return [Job(worker, arguments) for worker, arguments, _ in map(queued, range(count))]


def _rounds(
    benchmark: BenchmarkFixture, units: int, prepare: Callable[[], Any], work: Callable[[Any], Any]
) -> None:
    """Rounds of so many units, each on what `prepare` makes, which is not timed."""
    benchmark.extra_info["units"] = units
    pedantic: Callable[..., Any] = benchmark.pedantic
    pedantic(work, setup=lambda: ((prepare(),), {}), rounds=ROUNDS, warmup_rounds=1)


def test_insert_each(benchmark: BenchmarkFixture, store: Store, durability: Durability) -> None:
    def work(jobs: list[Job]) -> None:
        for job in jobs:
            store.insert(job)

    count = _EACH[durability]
    _rounds(benchmark, count, lambda: _jobs(count), work)


def test_insert_many_by_100(benchmark: BenchmarkFixture, store: Store) -> None:
    def work(jobs: list[Job]) -> None:
        for first in range(0, len(jobs), BATCH):
            store.insert_many(jobs[first : first + BATCH])

    _rounds(benchmark, 5_000, lambda: _jobs(5_000), work)


def test_insert_many_at_once(
    benchmark: BenchmarkFixture, open_store: Open, durability: Durability, size: int
) -> None:
    count = min(size, _AT_ONCE)
    store = open_store(durability, count * (ROUNDS + 1))
    _rounds(benchmark, count, lambda: _jobs(count), store.insert_many)


@pytest.mark.parametrize("threads", [1, 8, 64])
def test_insert_from_threads(
    benchmark: BenchmarkFixture, store: Store, durability: Durability, threads: int
) -> None:
    count = (_EACH if threads == 1 else _MANY)[durability]
    with ThreadPoolExecutor(threads) as executor:

        def insert(jobs: list[Job]) -> None:
            for job in jobs:
                store.insert(job)

        def work(jobs: list[Job]) -> None:
            shares = [jobs[number::threads] for number in range(threads)]
            list(executor.map(insert, shares))  # raises what one of them has raised

        _rounds(benchmark, count, lambda: _jobs(count), work)


@pytest.mark.parametrize("in_flight", [100, 1000])
def test_submit_insert(
    benchmark: BenchmarkFixture, store: Store, durability: Durability, in_flight: int
) -> None:
    def work(jobs: list[Job]) -> None:
        for first in range(0, len(jobs), in_flight):
            begun = [store.submit.insert(job) for job in jobs[first : first + in_flight]]
            for future in begun:
                future.result()

    _rounds(benchmark, _MANY[durability], lambda: _jobs(_MANY[durability]), work)


@pytest.mark.parametrize("in_flight", [100, 1000])
def test_insert_from_tasks(
    benchmark: BenchmarkFixture,
    durability: Durability,
    in_flight: int,
    directory: Path,
) -> None:
    path = directory / f"tasks-{durability}-{in_flight}.qdb"
    capacity = room_for(1_000_000) if durability == "ephemeral" else None

    async def insert(store: quelmdb.aio.Store, jobs: list[Job]) -> None:
        for job in jobs:
            await store.insert(job)

    async def all_at_once(store: quelmdb.aio.Store, jobs: list[Job]) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(in_flight):
                group.create_task(insert(store, jobs[number::in_flight]))

    with asyncio.Runner() as runner:
        store = runner.run(quelmdb.aio.open(path, durability=durability, capacity=capacity))
        try:
            _rounds(
                benchmark,
                _MANY[durability],
                lambda: _jobs(_MANY[durability]),
                lambda jobs: runner.run(all_at_once(store, jobs)),
            )
        finally:
            runner.run(store.close())


def test_update_each(benchmark: BenchmarkFixture, store: Store, durability: Durability) -> None:
    def work(jobs: list[Job]) -> None:
        for job in jobs:
            store.update(job)

    count = _EACH[durability]
    _rounds(benchmark, count, lambda: store.insert_many(_jobs(count)), work)


@pytest.mark.parametrize("limit", [1, BATCH])
def test_claim_and_complete(
    benchmark: BenchmarkFixture, store: Store, durability: Durability, limit: int
) -> None:
    count = _EACH[durability] if limit == 1 else 5_000

    def prepare() -> int:
        missing = count - len(store.jobs(Status.QUEUED))
        store.insert_many(_jobs(max(0, missing)))
        return count // limit

    def work(claims: int) -> None:
        for _ in range(claims):
            store.complete_many(store.claim(limit=limit))

    _rounds(benchmark, count, prepare, work)
