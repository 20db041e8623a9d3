"""The end of a store: closed once, and of no use after it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from quelmdb.errors import SnapshotEndedError, StoreClosedError
from quelmdb.job import Job
from quelmdb.persistence import JobStore
from quelmdb.testing.clock import ManualClock
from quelmdb.testing.harness import JobStoreHarness, new_directory
from quelmdb.writes import Batch

_CLAIMED = Job("a", id=1, claim=1, status="started")

USES: dict[str, Callable[[JobStore], object]] = {
    "initialize": lambda store: store.initialize(),
    "insert": lambda store: store.insert(Job("a")),
    "insert_many": lambda store: store.insert_many([Job("a")]),
    "update": lambda store: store.update(Job("a")),
    "update_many": lambda store: store.update_many([Job("a")]),
    "destroy": lambda store: store.destroy(1),
    "destroy_many": lambda store: store.destroy_many([1]),
    "restore": lambda store: store.restore([Job("a", id=99)]),
    "batch": lambda store: store.batch().__enter__().insert(Job("a")),
    "snapshot": lambda store: store.snapshot(),
    "find": lambda store: store.find(1),
    "jobs": lambda store: list(store.jobs("queued")),
    "all": lambda store: list(store.all()),
    "completed": lambda store: list(store.completed()),
    "failed": lambda store: list(store.failed("a")),
    "incomplete": lambda store: list(store.incomplete()),
    "ids": lambda store: list(store.all().ids()),
    "len": lambda store: len(store.all()),
    "counts": lambda store: store.counts(),
    "started_at": lambda store: store.started_at(1),
    "workers": lambda store: store.workers(),
    "claim": lambda store: store.claim("a"),
    "complete": lambda store: store.complete(_CLAIMED),
    "complete_many": lambda store: store.complete_many([_CLAIMED]),
    "fail": lambda store: store.fail(_CLAIMED, "oh"),
    "release": lambda store: store.release(_CLAIMED),
    "progress": lambda store: store.progress(_CLAIMED, 1),
    "cancel": lambda store: store.cancel(1),
    "cancel_many": lambda store: store.cancel_many([1]),
    "cancel_requested": lambda store: store.cancel_requested(_CLAIMED),
    "retry": lambda store: store.retry(1),
    "retry_many": lambda store: store.retry_many([1]),
    "pause": lambda store: store.pause("a"),
    "resume": lambda store: store.resume("a"),
    "paused": lambda store: store.paused(),
    "wait": lambda store: store.wait(timeout=0),
    "wait for what is queued": lambda store: store.wait("a"),
    "next_due": lambda store: store.next_due(),
    "prune": lambda store: store.prune(),
    "listen": lambda store: store.listen(lambda event: None),
    "rescue": lambda store: store.rescue(),
    "check": lambda store: store.check(),
}


class LifecycleRules(JobStoreHarness):
    @pytest.fixture
    def closed(self, tmp_path: Path, clock: ManualClock) -> JobStore:
        """A store with one job, closed."""
        store = self.open_store(new_directory(tmp_path, "closed"), clock)
        store.insert(Job("a"))
        store.close()
        return store

    @pytest.mark.parametrize("use", USES.values(), ids=USES.keys())
    def test_a_closed_store_is_of_no_use(
        self, closed: JobStore, use: Callable[[JobStore], object]
    ) -> None:
        with pytest.raises(StoreClosedError):
            use(closed)

    def test_a_store_is_closed_once(self, closed: JobStore) -> None:
        closed.close()
        with pytest.raises(StoreClosedError):
            closed.insert(Job("a"))

    def test_a_store_is_closed_by_its_block(self, tmp_path: Path, clock: ManualClock) -> None:
        with self.open_store(new_directory(tmp_path, "block"), clock) as store:
            store.insert(Job("a"))
            assert store.check() == []
        with pytest.raises(StoreClosedError):
            store.find(1)

    def test_a_store_is_closed_where_its_block_raises(
        self, tmp_path: Path, clock: ManualClock
    ) -> None:
        store = self.open_store(new_directory(tmp_path, "block"), clock)
        with pytest.raises(KeyError), store:
            raise KeyError
        with pytest.raises(StoreClosedError):
            store.find(1)

    def test_what_was_made_before_the_end_is_of_no_use_after_it(
        self, tmp_path: Path, clock: ManualClock
    ) -> None:
        store = self.open_store(new_directory(tmp_path, "made"), clock)
        store.insert(Job("a"))
        view, numbers, snapshot = store.all(), store.all().ids(), store.snapshot()
        batch: Batch = store.batch().__enter__()
        batch.insert(Job("a"))
        store.close()
        for use in (lambda: list(view), lambda: list(numbers), view.__len__, numbers.__len__):
            with pytest.raises(StoreClosedError):
                use()
        with pytest.raises((StoreClosedError, SnapshotEndedError)):
            snapshot.find(1)
        with pytest.raises(StoreClosedError):
            batch.__exit__(None, None, None)

    def test_a_store_can_be_closed_while_an_iteration_is_half_way(
        self, tmp_path: Path, clock: ManualClock
    ) -> None:
        store = self.open_store(new_directory(tmp_path, "half"), clock)
        store.insert_many([Job("a")] * 2500)
        half_way = iter(store.all())
        next(half_way)
        store.close()
        with pytest.raises(StoreClosedError):
            list(half_way)

    def test_jobs_outlive_their_store(self, tmp_path: Path, clock: ManualClock) -> None:
        store = self.open_store(new_directory(tmp_path, "outlived"), clock)
        given = store.insert(Job("a", {"n": 1}, result=b"x" * 9000, error="oh"))
        found, (listed,) = store.find(given), store.all()
        store.close()
        for job in (given, found, listed):
            assert job is not None
            assert (job.arguments, job.result, job.error) == ({"n": 1}, b"x" * 9000, "oh")
