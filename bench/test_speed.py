"""Every workload on every contestant, with pytest-benchmark: a group for each workload and size.

Its tables print each contestant's time for a round, and in brackets the ratio to the
quickest. The contestants of a group run one after the other here; `bench.report` lets them
take turns, and is what figures are quoted from.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.conftest import Filled
from bench.contestant import Contestant
from bench.data import Data
from bench.harness import contestants_of, empty
from bench.workloads import WORKLOADS, Timed, Workload

ROUNDS = 5

CASES = [
    pytest.param(workload, kind, id=f"{workload.key}-{kind.name}")
    for workload in WORKLOADS
    for kind in contestants_of(workload)
]


@pytest.mark.parametrize(("workload", "kind"), CASES)
def test_speed(
    benchmark: BenchmarkFixture,
    workload: Workload,
    kind: type[Contestant],
    size: int,
    data_of: Callable[[int], Data],
    filled_store: Filled,
    directory: Path,
) -> None:
    data = data_of(size)
    benchmark.group = f"{workload.title}, {size:,} jobs"
    benchmark.extra_info.update(contestant=kind.name, unit=workload.unit)
    if workload.repeatable:
        with workload.round(filled_store(kind, size), data) as timed:
            units = benchmark(timed)
    else:
        units = _by_rounds(benchmark, workload, kind, data, filled_store, directory)
    benchmark.extra_info["units"] = units
    assert units > 0


def _by_rounds(
    benchmark: BenchmarkFixture,
    workload: Workload,
    kind: type[Contestant],
    data: Data,
    filled_store: Filled,
    directory: Path,
) -> int:
    with ExitStack() as after:

        def setup() -> tuple[tuple[Timed], dict[str, Any]]:
            if workload.empty:
                store = after.enter_context(empty(kind, directory))
            else:
                store = filled_store(kind, data.size)
            return (after.enter_context(workload.round(store, data)),), {}

        pedantic: Callable[..., int] = benchmark.pedantic
        return pedantic(
            lambda timed: timed(),
            setup=setup,
            teardown=lambda timed: after.pop_all().close(),
            rounds=ROUNDS,
        )
