"""A job that takes too long, or whose cancellation was asked for, is stopped."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from quelmdb import JobStore, Status
from quelmdb.runner import Counts, current, work, worker
from tests import inprocess
from tests.inprocess import PATIENCE, SOON, found, run_one

store = inprocess.store


def test_a_coroutine_that_takes_too_long_is_cancelled(store: JobStore) -> None:
    ended = []

    @worker(timeout=0.05, max_attempts=2, backoff=SOON)
    async def perform(arguments: Any) -> None:
        try:
            await asyncio.sleep(PATIENCE)
        finally:
            ended.append(current().job.attempt)

    job = run_one(store, perform)
    assert (job.status, ended) == (Status.FAILED, [1, 2])
    assert "timed out: it took longer than 0.05 s" in (job.error or "")


def test_a_timeout_error_of_the_coroutine_itself_is_its_own(store: JobStore) -> None:
    @worker(timeout=PATIENCE, max_attempts=1)
    async def perform(arguments: Any) -> None:
        raise TimeoutError("mine")

    assert "mine" in (run_one(store, perform).error or "")


def test_a_generator_that_takes_too_long_ends_at_its_next_yield(store: JobStore) -> None:
    closed = []

    @worker(timeout=0.05, max_attempts=1)
    def perform(arguments: Any) -> Generator[None, None, None]:
        try:
            while True:
                threading.Event().wait(0.01)
                yield
        finally:
            closed.append(True)

    job = run_one(store, perform)
    assert (job.status, closed) == (Status.FAILED, [True])
    assert "timed out" in (job.error or "")


def test_a_thread_that_takes_too_long_fails_its_job_when_the_others_have_ended(
    store: JobStore,
) -> None:
    release, ended = threading.Event(), threading.Event()

    @worker(timeout=0.05, max_attempts=1)
    def stuck(arguments: Any) -> None:
        release.wait(PATIENCE)
        ended.set()

    @worker
    def other(arguments: Any) -> str:
        threading.Event().wait(0.2)
        return "done"

    jobs = [stuck.add(store), other.add(store)]
    late = stuck.add(store, run_at=datetime.now(UTC) + timedelta(hours=1))
    try:
        assert work(store, [stuck, other], threads=2) == Counts(completed=1, failed=1)
        assert [found(store, job).status for job in jobs] == ["failed", "completed"]
        assert "timed out" in (found(store, jobs[0]).error or "")
        assert found(store, late).status is Status.SCHEDULED
    finally:
        release.set()
        ended.wait(PATIENCE)


def test_a_coroutine_that_blocks_its_loop_fails_and_the_others_are_released(
    store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GRACE_SECONDS", "LOOP_SECONDS"):
        monkeypatch.setattr(f"quelmdb.runner.process.{name}", 0.1)
    release, is_cancelled, all_begun = threading.Event(), threading.Event(), asyncio.Event()

    @worker
    async def other(arguments: Any) -> None:
        all_begun.set()
        try:
            await asyncio.sleep(PATIENCE)
        finally:
            is_cancelled.set()

    @worker(timeout=0.1, max_attempts=1)
    async def blocks(arguments: Any) -> None:
        await all_begun.wait()
        release.wait(PATIENCE)

    jobs = [blocks.add(store), other.add(store)]
    try:
        assert work(store, [blocks, other]) == Counts(failed=1)
        failed, released = (found(store, job) for job in jobs)
        assert failed.status is Status.FAILED
        assert "timed out: it took longer than 0.1 s" in (failed.error or "")
        assert (released.status, released.attempt) == (Status.QUEUED, 0)
    finally:
        release.set()
    assert is_cancelled.wait(PATIENCE)  # its loop ends, as soon as it can
    assert [found(store, job).status for job in jobs] == [Status.FAILED, Status.QUEUED]


def test_a_running_job_sees_that_its_cancellation_was_asked_for(store: JobStore) -> None:
    class Stopped(Exception):
        pass

    @worker
    def plain(arguments: Any) -> None:
        assert not current().cancel_requested()
        store.cancel(current().job)
        if current().cancel_requested():
            raise Stopped

    @worker(max_attempts=1)
    def last_attempt(arguments: Any) -> None:
        store.cancel(current().job)
        raise Stopped

    @worker
    def generator(arguments: Any) -> Generator[None, None, None]:
        yield
        store.cancel(current().job)
        yield
        raise AssertionError

    @worker
    def heedless(arguments: Any) -> str:
        store.cancel(current().job)
        return "done"

    statuses = [run_one(store, one).status for one in (plain, last_attempt, generator, heedless)]
    assert statuses == ["cancelled", "cancelled", "cancelled", "completed"]
