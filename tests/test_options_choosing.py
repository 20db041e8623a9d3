"""Which job is claimed, and which insert wins, where many jobs ask for a time, a rank or a key."""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest

import quelmdb
from quelmdb import DuplicateJobError, Job, Status
from quelmdb.options import MAX_PRIORITY
from quelmdb.testing import ManualClock
from tests.children import in_children

pytest_plugins = ["tests.fixtures"]

_LATER: Final = timedelta(days=1)


# --- Schedules ----------------------------------------------------------------


def _claim_seconds(store: quelmdb.Store) -> float:
    """What a claim and its release take, the best of many."""
    best = 1.0
    for _ in range(60):
        begun = time.perf_counter()
        (job,) = store.claim("a")
        best = min(best, time.perf_counter() - begun)
        store.release(job)
    return best


def test_scheduled_jobs_beside_cost_a_claim_nothing(path: Path, long: bool) -> None:
    many = 1_000_000 if long else 20_000
    later = datetime.now(UTC) + _LATER
    with quelmdb.open(path) as store:
        store.insert(Job("a"))
        store.insert(Job("b", run_at=later))  # from here on claims look at the index
        before = _claim_seconds(store)
        for _ in range(0, many, 10_000):
            store.insert_many(Job("b", run_at=later) for _ in range(10_000))
        assert store.counts()[Status.SCHEDULED] > many
        beside = _claim_seconds(store)
        begun = time.perf_counter()
        for _ in range(100):
            assert store.next_due() == later
        asked = (time.perf_counter() - begun) / 100
        print(f"a claim took {before * 1e6:.0f} us, beside {many:,} {beside * 1e6:.0f} us")
        print(f"next_due {asked * 1e6:.0f} us")
        assert beside < 3 * before + 0.0005
        assert asked < 0.001


def test_due_jobs_become_queued_some_hundreds_a_claim_and_all_of_them_in_the_end(
    path: Path,
) -> None:
    clock = ManualClock()
    with quelmdb.open(path, clock=clock) as store:
        places = list(range(1000))
        random.Random(7).shuffle(places)
        store.insert_many(
            Job("a", place, run_at=clock.time + timedelta(seconds=place + 1)) for place in places
        )
        assert store.claim("b") == []
        assert store.counts()[Status.SCHEDULED] == 1000
        clock.advance(2_000_000_000)
        for left in (744, 488, 232, 0):
            assert store.claim("b") == []  # they become queued whose ever they are
            assert store.counts()[Status.SCHEDULED] == left
            queued = [job.arguments for job in store.jobs("queued")]
            assert sorted(queued) == list(range(1000 - left))  # by their times
        assert store.next_due() is None
        claimed = []
        while some := store.claim("a", limit=128):
            claimed += some
        assert sorted(job.arguments for job in claimed) == list(range(1000))
        assert [job.id for job in claimed] == sorted(job.id or 0 for job in claimed)


# --- Unique keys --------------------------------------------------------------


def _race(number: int, path: Path, rounds: int, way: Any) -> list[tuple[int, bool]]:
    won = []
    with quelmdb.open(path) as store:
        for key in range(rounds):
            try:
                job = store.insert(Job("a", number, unique_key=f"k{key}"), on_duplicate=way)
                won.append((job.id or 0, job.arguments == number))
            except DuplicateJobError as error:
                won.append((error.job_id or 0, False))
    return won


@pytest.mark.parametrize("way", ["raise", "skip"])
def test_of_processes_that_insert_the_same_key_exactly_one_wins(way: str, path: Path) -> None:
    rounds = 40
    told = in_children(3, _race, path, rounds, way, method="fork")
    with quelmdb.open(path) as store:
        assert len(store.all()) == rounds
        for key, of_key in enumerate(zip(*told, strict=True)):
            (job_id,) = {job_id for job_id, _ in of_key}
            assert sum(has_won for _, has_won in of_key) == 1
            job = store.find(job_id)
            assert job is not None
            assert job.unique_key == f"k{key}"


def test_insert_many_meets_duplicates_row_by_row(store: quelmdb.Store) -> None:
    held = store.insert(Job("a", "old", unique_key="held"))
    store.claim()
    jobs = [Job("a", n, unique_key=key) for n, key in enumerate(["k", "l", "k", "held", None, "k"])]
    before = list(store.all())
    with pytest.raises(DuplicateJobError):
        store.insert_many(jobs)
    assert list(store.all()) == before
    skipped = store.insert_many(jobs, on_duplicate="skip")
    assert [job.id for job in skipped] == [2, 3, 2, held.id, 4, 2]
    assert [job.arguments for job in skipped] == [0, 1, 0, "old", 4, 0]
    replaced = store.insert_many(jobs, on_duplicate="replace")
    assert [job.id for job in replaced] == [2, 3, 2, 5, 6, 2]
    assert [job.arguments for job in store.jobs("queued")] == [5, 1, 4, 3, 4]
    (started,) = store.jobs("started")
    assert (started.id, started.unique_key) == (held.id, None)
    assert store.complete(started).status == "completed"


# --- Priorities ---------------------------------------------------------------


def test_the_highest_priority_comes_first_among_many_workers(path: Path) -> None:
    rng = random.Random(11)
    names = [None, *(f"w{n}" for n in range(30))]
    with quelmdb.open(path) as store:
        jobs = store.insert_many(
            Job(rng.choice(names), priority=rng.choice([0, 0, 1, 5, MAX_PRIORITY]))
            for _ in range(600)
        )
        paused = set(rng.sample(names, 5))
        for name in paused:
            store.pause(name)
        asked = rng.sample(names, 12)

        def expected(of: list[Job], limit: int) -> list[int | None]:
            ranked = sorted(of, key=lambda job: (-job.priority, job.id or 0))
            return [job.id for job in ranked[:limit]]

        left = [job for job in jobs if job.worker not in paused]
        while mine := [job for job in left if job.worker in asked]:
            wanted = expected(mine, 17)
            assert [job.id for job in store.claim(*asked, limit=17)] == wanted
            left = [job for job in left if job.id not in wanted]
        while left:
            wanted = expected(left, 31)
            assert [job.id for job in store.claim(limit=31)] == wanted
            left = [job for job in left if job.id not in wanted]
        assert store.claim() == []
        for name in paused:
            store.resume(name)
        late = [job for job in jobs if job.worker in paused]
        assert [job.id for job in store.claim(limit=600)] == expected(late, 600)
