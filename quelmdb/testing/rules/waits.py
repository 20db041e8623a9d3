"""Waiting for something to claim."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest

from quelmdb.errors import InvalidJobError, StoreClosedError
from quelmdb.job import Job
from quelmdb.persistence import JobStore
from quelmdb.testing.clock import ManualClock
from quelmdb.testing.harness import JobStoreHarness, new_directory
from quelmdb.testing.rules.helpers import PATIENCE, claim_one, claimed_new, in_seconds, label
from quelmdb.values import ANY

_MOMENT: Final = 0.05
_PAST: Final = datetime(1999, 1, 1, tzinfo=UTC)
_ROUNDS: Final = 12
_ENOUGH: Final = 6.0  # seconds for all rounds, where a look each second would need 12

Wake = Callable[[JobStore], object]


def _batch(store: JobStore) -> None:
    with store.batch() as batch:
        batch.insert(Job("b"))
        batch.insert(Job("a"))


def _fail_for_now(store: JobStore) -> None:
    (held,) = store.claim("held")
    with store.batch() as batch:
        batch.update(held.replace(worker="a"))
        batch.fail(held, "oh", _PAST)


def _release(store: JobStore) -> None:
    (held,) = store.claim("held")
    store.update(held.replace(worker="a"))
    store.release(held)


def _resume(store: JobStore) -> None:
    store.pause("a")
    store.insert(Job("a"))
    store.resume("a")


def _by_key(store: JobStore) -> None:
    store.insert(Job("b", unique_key="k"))
    store.insert(Job("a", unique_key="k"), on_duplicate="replace")


# Each gives worker "a" one job; of worker "held" there is one at hand.
WAKES: Final[dict[str, Wake]] = {
    "insert": lambda store: store.insert(Job("a")),
    "insert with a priority": lambda store: store.insert(Job("a", priority=3)),
    "insert by a key": _by_key,
    "insert_many": lambda store: store.insert_many([Job("b"), Job("a")]),
    "update": lambda store: store.update(Job("a")),
    "update_many": lambda store: store.update_many([Job("a")]),
    "restore": lambda store: store.restore([Job("a", id=10**6)], "replace"),
    "batch": _batch,
    "submit": lambda store: store.submit.insert(Job("a")).result(PATIENCE),
    "release": _release,
    "fail": _fail_for_now,
    "retry": lambda store: store.retry(store.insert(Job("a", status="failed"))),
    "retry_many": lambda store: store.retry_many([store.insert(Job("a", status="cancelled"))]),
    "resume": _resume,
}


class WaitRules(JobStoreHarness):
    @pytest.fixture
    def pool(self) -> Iterator[ThreadPoolExecutor]:
        with ThreadPoolExecutor(8) as pool:
            yield pool

    def test_what_is_queued_already_is_not_waited_for(self, store: JobStore) -> None:
        store.insert_many([Job("a"), Job(None)])
        for workers in ((), ("a",), ("b", "a"), (None,)):
            assert store.wait(*workers) is True
            assert store.wait(*workers, timeout=0) is True
            assert store.wait(*workers, timeout=9) is True

    def test_what_is_due_already_is_not_waited_for(
        self, store: JobStore, clock: ManualClock
    ) -> None:
        store.insert(Job("a", run_at=in_seconds(clock, 5)))
        assert not store.wait("a", timeout=0)
        clock.advance(5_000_000)
        assert store.wait("a", timeout=0)
        assert store.wait()

    @pytest.mark.parametrize("timeout", [0, 0.0, _MOMENT])
    def test_a_wait_for_nothing_ends(
        self, store: JobStore, clock: ManualClock, timeout: float
    ) -> None:
        started = time.monotonic()
        assert store.wait(timeout=timeout) is False
        assert time.monotonic() - started >= timeout
        store.insert_many([Job("b"), Job("a", status="failed"), Job("a", status="scheduled")])
        store.insert(Job("a", run_at=in_seconds(clock, 3600)))
        claimed_new(store, "held")
        assert store.wait("a", "held", None, timeout=timeout) is False

    def test_what_is_paused_is_waited_for(self, store: JobStore) -> None:
        store.insert_many([Job("a"), Job("a", priority=3)])
        store.pause("a")
        assert not store.wait("a", timeout=_MOMENT)
        assert not store.wait(timeout=_MOMENT)
        store.resume("a")
        assert store.wait("a")

    def test_waiting_claims_nothing(self, store: JobStore) -> None:
        job = store.insert(Job("a"))
        assert store.wait("a")
        assert list(store.jobs("queued")) == [job]

    @pytest.mark.parametrize("wake", WAKES.values(), ids=WAKES.keys())
    def test_who_waits_is_woken(
        self, store: JobStore, pool: ThreadPoolExecutor, wake: Wake
    ) -> None:
        began = time.monotonic()
        for _ in range(_ROUNDS):
            store.insert(Job("held"))
            waits = threading.Event()

            def wait(waits: threading.Event = waits) -> bool:
                waits.set()
                return store.wait("a", timeout=PATIENCE)

            waiting = pool.submit(wait)
            assert waits.wait(PATIENCE)
            time.sleep(0.01)  # nothing tells when it has fallen asleep
            wake(store)
            assert waiting.result(PATIENCE)
            assert store.complete(claim_one(store)).worker == "a"
        assert time.monotonic() - began < _ENOUGH

    def test_workers_hand_jobs_to_each_other(
        self, store: JobStore, pool: ThreadPoolExecutor
    ) -> None:
        """Whoever finds nothing falls asleep just when the other one inserts."""
        rounds = 100

        def work(own: str, other: str) -> None:
            for n in range(rounds):
                while not (claimed := store.claim(own)):
                    assert store.wait(own, timeout=PATIENCE)
                with store.batch() as batch:
                    batch.complete(claimed[0])
                    if n < rounds - 1 or own == "ping":
                        batch.insert(Job(other))

        began = time.monotonic()
        store.insert(Job("ping"))
        for player in [pool.submit(work, "ping", "pong"), pool.submit(work, "pong", "ping")]:
            player.result(2 * PATIENCE)
        assert len(store.completed()) == 2 * rounds
        assert time.monotonic() - began < PATIENCE

    def test_all_who_wait_are_woken(self, store: JobStore, pool: ThreadPoolExecutor) -> None:
        began = time.monotonic()
        for _ in range(_ROUNDS):
            barrier = threading.Barrier(5)

            def wait(barrier: threading.Barrier = barrier, *workers: str) -> bool:
                barrier.wait(PATIENCE)
                return store.wait(*workers, timeout=PATIENCE)

            waiting = [
                pool.submit(wait, barrier, *workers) for workers in ((), ("a",), ("a",), ("b", "a"))
            ]
            barrier.wait(PATIENCE)
            time.sleep(0.01)
            store.insert(Job("a"))
            assert all(each.result(PATIENCE) for each in waiting)
            store.complete(claim_one(store))
        assert time.monotonic() - began < _ENOUGH

    def test_what_falls_due_ends_a_wait(
        self, store: JobStore, clock: ManualClock, pool: ThreadPoolExecutor
    ) -> None:
        store.insert(Job("a", run_at=in_seconds(clock, 3600)))
        waiting = pool.submit(store.wait, "a", timeout=PATIENCE)
        clock.advance(3_600_000_000)
        assert waiting.result(PATIENCE)
        assert claim_one(store).worker == "a"

    def test_a_wait_goes_on_past_what_is_for_others(
        self, store: JobStore, pool: ThreadPoolExecutor
    ) -> None:
        waits = threading.Event()

        def wait() -> list[Job]:
            waits.set()
            while not (claimed := store.claim("a")):
                assert store.wait("a", timeout=PATIENCE)
            return claimed

        waiting = pool.submit(wait)
        assert waits.wait(PATIENCE)
        for n in range(20):
            store.insert(Job("b", n))
        assert not waiting.done()
        job = store.insert(Job("a"))
        (claimed,) = waiting.result(PATIENCE)
        assert claimed.id == job.id
        assert len(store.jobs("queued", worker="b")) == 20

    def test_others_write_while_one_waits(self, store: JobStore, pool: ThreadPoolExecutor) -> None:
        waiting = pool.submit(store.wait, "a", timeout=PATIENCE)
        for n in range(50):
            job = store.insert(Job("b", n))
            store.complete(claim_one(store, "b"))
            assert store.find(job) is not None
        store.insert(Job("a"))
        assert waiting.result(PATIENCE)

    def test_closing_a_store_ends_its_waits(
        self, tmp_path: Path, clock: ManualClock, pool: ThreadPoolExecutor
    ) -> None:
        spent = 0.0
        for number in range(_ROUNDS):
            store = self.open_store(new_directory(tmp_path, f"closing {number}"), clock)
            waits = threading.Event()

            def wait(store: JobStore = store, waits: threading.Event = waits) -> bool:
                waits.set()
                return store.wait(timeout=PATIENCE)

            waiting = pool.submit(wait)
            assert waits.wait(PATIENCE)
            time.sleep(0.01)
            began = time.monotonic()
            store.close()
            assert isinstance(waiting.exception(PATIENCE / 2), StoreClosedError)
            spent += time.monotonic() - began
        assert spent < _ENOUGH

    @pytest.mark.parametrize("timeout", [-1, -0.001, float("nan"), "1", True, b"", [1]], ids=repr)
    def test_a_timeout_is_a_number_of_seconds(self, store: JobStore, timeout: Any) -> None:
        store.insert(Job("a"))
        with pytest.raises(ValueError, match="timeout"):
            store.wait(timeout=timeout)

    def test_a_timeout_may_be_without_end(self, store: JobStore) -> None:
        store.insert(Job("a"))
        assert store.wait(timeout=float("inf"))

    @pytest.mark.parametrize("worker", ["", "x" * 501, 5, b"a", ANY], ids=label)
    def test_wait_refuses_what_is_no_worker(self, store: JobStore, worker: Any) -> None:
        store.insert(Job("a"))
        with pytest.raises(InvalidJobError):
            store.wait("a", worker, timeout=0)
