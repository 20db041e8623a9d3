"""Jobs whose processes died are run again, but not too often, and not claimed in vain."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import quelmdb
from quelmdb import Job, JobStore
from quelmdb.runner import Counts, work, worker
from tests import inprocess
from tests.inprocess import PATIENCE, found

store = inprocess.store


def test_who_has_died_too_often_is_failed_without_being_run(store: JobStore) -> None:
    ran = []

    @worker(max_attempts=None)
    def perform(arguments: Any) -> None:
        ran.append(arguments)

    def died(times: int) -> Job:
        now = datetime.now(UTC)
        failures = [(n, now, now, "its process died", True) for n in range(1, times + 1)]
        return perform.job(times).replace(failures=failures, attempt=times)

    jobs = [died(times).replace(id=times + 1) for times in range(5)]
    store.restore(jobs)
    assert work(store, [perform]) == Counts(completed=3, failed=2)
    assert sorted(ran) == [0, 1, 2]
    failed = found(store, jobs[3])
    assert (failed.error or "").startswith(
        "not run again: 3 processes died while they held it (attempts 1, 2, 3)"
    )
    store.retry(failed)  # whoever asks for it knows better
    assert work(store, [perform]) == Counts(completed=1)


def test_the_last_attempt_of_a_worker_is_not_repeated_for_a_death(store: JobStore) -> None:
    @worker(max_attempts=1)
    def perform(arguments: Any) -> None: ...

    now = datetime.now(UTC)
    job = perform.job().replace(id=1, attempt=1, failures=[(1, now, now, "died", True)])
    store.restore([job])
    assert work(store, [perform]) == Counts(failed=1)


def test_after_a_crash_jobs_are_not_claimed_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @worker
    def perform(arguments: Any) -> None: ...

    @worker
    def held(arguments: Any) -> None: ...

    def opened() -> quelmdb.Store:
        return quelmdb.open(tmp_path / "s", durability="ephemeral", capacity=16 * 2**20)

    with opened() as store:
        store.insert_many((perform if n % 8 else held).job() for n in range(2000))
        assert len(store.claim(held, limit=2000)) == 250
    with opened() as store:
        claimed: list[int] = []
        real: Callable[..., list[Job]] = store.claim

        def claim(*names: str, **options: Any) -> list[Job]:
            jobs = real(*names, **options)
            claimed.append(len(jobs))
            return jobs

        monkeypatch.setattr(store, "claim", claim)
        assert work(store, [perform, held]) == Counts(completed=2000)
        assert sum(claimed) < 2.5 * 2000
        assert len(claimed) < 1.5 * 2000


def deaths_of(job: Job, *attempts: int, then: int = 0) -> Job:
    """The same, whose process died in these attempts, before others that failed."""
    now = datetime.now(UTC)
    last = max(*attempts, then)
    failures = [(n, now, now, "x", n in attempts) for n in (*attempts, then) if n]
    return job.replace(id=1, attempt=last, failures=failures)


def test_a_suspect_waits_for_a_long_job_but_not_for_long(store: JobStore) -> None:
    ran = threading.Event()

    @worker
    def suspect(arguments: Any) -> None:
        ran.set()

    @worker
    def long(arguments: Any) -> bool:
        store.restore([deaths_of(suspect.job(), 1).replace(id=99)])
        return ran.wait(PATIENCE)

    job = long.add(store)
    assert work(store, [suspect, long], threads=2) == Counts(completed=2)
    assert found(store, job).result is True


@pytest.mark.parametrize(
    ("own", "deaths", "then"),
    [(None, (1,), 3), (None, (1, 2), 3), (2, (1, 2), 0), (3, (1, 2, 3), 0), (3, (1, 2), 3)],
)
def test_what_an_operator_retries_is_run(
    store: JobStore, own: int | None, deaths: tuple[int, ...], then: int
) -> None:
    @worker(max_attempts=3)
    def perform(arguments: Any) -> None: ...

    job = deaths_of(perform.job(max_attempts=own), *deaths, then=then)
    store.restore([job.replace(status="failed", error="x")])
    store.retry(1)
    assert work(store, [perform]) == Counts(completed=1)
