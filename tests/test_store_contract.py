"""The LMDB store keeps the contract."""

from __future__ import annotations

from pathlib import Path

import quelmdb
from quelmdb.persistence import Clock, JobStore
from quelmdb.testing import JobStoreContract


class TestStore(JobStoreContract):
    def open_store(self, directory: Path, clock: Clock) -> quelmdb.Store:
        return quelmdb.open(directory, clock=clock)

    def reopen(self, store: JobStore, directory: Path, clock: Clock) -> quelmdb.Store:
        store.close()
        return self.open_store(directory, clock)
