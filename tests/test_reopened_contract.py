"""A store that is opened again before every read keeps the contract."""

from __future__ import annotations

from pathlib import Path

from quelmdb import Job
from quelmdb.persistence import Clock, JobStore
from quelmdb.testing import JobStoreContract, ManualClock
from tests import inmemory
from tests.reopening import ReopeningStore

tmp_path = inmemory.tmp_path


class TestReopenedStore(JobStoreContract):
    def open_store(self, directory: Path, clock: Clock) -> ReopeningStore:
        return ReopeningStore(directory, clock)

    def reopen(self, store: JobStore, directory: Path, clock: Clock) -> ReopeningStore:
        store.close()
        return self.open_store(directory, clock)


def test_the_reopening_store_is_opened_again_before_every_read(tmp_path: Path) -> None:
    with ReopeningStore(tmp_path / "store", ManualClock()) as store:
        job = store.insert(Job("a"))
        before = store.store
        for question in (
            lambda: store.find(job),
            lambda: next(iter(store.all())),
            lambda: len(store.all().ids()),
            store.counts,
            store.check,
        ):
            opened = store.reopened
            question()
            assert store.reopened == opened + 1
        assert store.store is not before
        assert store.find(job) == job
