"""How fast quelmdb finds, lists and counts, in stores of growing size."""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.conftest import Durability, Filled
from bench.data import BUSY, RARE, RARE_JOBS, Data
from quelmdb import Status, Store


@pytest.fixture
def store(filled_store: Filled, durability: Durability, size: int) -> Store:
    return filled_store(durability, size)


def test_find(benchmark: BenchmarkFixture, store: Store, size: int) -> None:
    ids = Data.sample(size, 1000)

    def work() -> None:
        for job_id in ids:
            job = store.find(job_id)
            assert job is not None
            job.arguments  # noqa: B018 (decodes them)

    benchmark.extra_info["units"] = len(ids)
    benchmark(work)


@pytest.mark.parametrize("worker", [RARE, BUSY])
def test_list_100_jobs_of_a_worker(benchmark: BenchmarkFixture, store: Store, worker: str) -> None:
    assert len(benchmark(lambda: list(store.all(worker, limit=RARE_JOBS)))) <= RARE_JOBS


@pytest.mark.parametrize("arguments", ["untouched", "decoded"])
def test_list_a_status(benchmark: BenchmarkFixture, store: Store, arguments: str) -> None:
    def untouched() -> int:
        return sum(1 for _ in store.jobs(Status.QUEUED))

    def decoded() -> int:
        return sum(1 for job in store.jobs(Status.QUEUED) if job.arguments)

    work = decoded if arguments == "decoded" else untouched
    benchmark.extra_info["units"] = benchmark(work)


def test_ids_of_a_status(benchmark: BenchmarkFixture, store: Store) -> None:
    view = store.completed()
    assert len(benchmark(lambda: list(view.ids()))) == len(view)


def test_ids_of_three_statuses(benchmark: BenchmarkFixture, store: Store) -> None:
    view = store.incomplete()
    assert len(benchmark(lambda: list(view.ids()))) == len(view)


def test_count_a_status(benchmark: BenchmarkFixture, store: Store) -> None:
    assert benchmark(lambda: len(store.failed())) > 0


def test_counts(benchmark: BenchmarkFixture, store: Store, size: int) -> None:
    assert sum(benchmark(store.counts).values()) == size
