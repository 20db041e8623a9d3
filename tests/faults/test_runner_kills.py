"""Whatever process of a runner is killed at whatever moment, every job is accounted for."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import quelmdb
from quelmdb import Status, Store
from tests.faults.figures import Tell
from tests.faults.seeds import seeded
from tests.jobs_for_runner import Noop
from tests.runners import Runner, eventually

pytest_plugins = ["tests.fixtures"]

KILLS = 6
MANY_KILLS = 1_000
WAITING = 4_000  # jobs that wait at any moment, at least


def owners(store: Store) -> set[int]:
    """The living processes that have claimed."""
    return {owner.pid for owner in store.info().owners if owner.alive} - {os.getpid()}


def refill(store: Store) -> int:
    missing = max(0, WAITING - store.counts()[Status.QUEUED])
    store.insert_many(Noop.job(n) for n in range(missing))
    return missing


@pytest.fixture
def store(path: Path, long: bool) -> Iterator[Store]:
    capacity = 2**30 if long else 2**26  # some 130 bytes a job, 1,500 jobs a kill
    with quelmdb.open(path, durability="ephemeral", capacity=capacity) as store:
        yield store


def test_kills_at_random_moments_lose_no_job_and_complete_none_twice(
    store: Store, long: bool, figure: Tell
) -> None:
    kills = MANY_KILLS if long else KILLS
    rng = seeded()
    inserted = refill(store)
    killed: set[int] = set()
    with Runner(Path(store.path), f"{Noop.__module__}:Noop", processes=2, log_level="ERROR") as run:
        while len(killed) < kills:
            while not owners(store) - killed:
                inserted += refill(store)
                time.sleep(0.005)
            inserted += refill(store)
            time.sleep(rng.random() * rng.choice((0.002, 0.05, 0.3)))
            victims = owners(store) - killed
            for pid in rng.sample(sorted(victims), rng.randint(0, len(victims))):
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
        eventually(lambda: store.counts()[Status.QUEUED] + store.counts()[Status.STARTED] == 0)
        run.signal(signal.SIGTERM)
        assert run.end()[0] == 0
    counts = store.counts()
    assert sum(counts.values()) == inserted
    assert counts[Status.COMPLETED] + counts[Status.FAILED] == inserted
    for job in store.all():
        deaths = sum(failure.died for failure in job.failures)
        # Each attempt died, but the one that completed it, or that was not begun any more.
        assert job.attempt == deaths + 1
        assert (job.status is Status.FAILED) == (deaths >= 3)
    figure(
        f"{len(killed):,} kills of a runner's processes, {inserted:,} jobs, 0 lost, 0 completed "
        f"twice; {counts[Status.FAILED]:,} failed, by the death of three processes each"
    )
