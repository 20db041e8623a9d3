"""Where the author of a store plugs it in, and what each test gets from it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from quelmdb.persistence import Clock, JobStore, Persistence
from quelmdb.testing.clock import ManualClock


def new_directory(parent: Path, name: str) -> Path:
    """An empty directory for a store."""
    directory = parent / name
    directory.mkdir()
    return directory


class PersistenceHarness:
    """Override `open_store`, and `close_store` where something must be released."""

    def open_store(self, directory: Path, clock: Clock) -> Persistence:
        """A new store. `directory` is empty, is for this store alone, and is taken away
        by the kit. Every time that the store writes is what `clock` tells."""
        raise NotImplementedError("a class that runs the contract implements open_store")

    def close_store(self, store: Persistence) -> None:
        """Called with each store when its test is over."""

    @pytest.fixture
    def clock(self) -> ManualClock:
        return ManualClock()

    @pytest.fixture
    def store(self, tmp_path: Path, clock: ManualClock) -> Iterator[Persistence]:
        store = self.open_store(new_directory(tmp_path, "store"), clock)
        store.initialize()
        yield store
        self.close_store(store)


class JobStoreHarness(PersistenceHarness):
    """As `PersistenceHarness`; each test ends with the check of the store that it used."""

    def open_store(self, directory: Path, clock: Clock) -> JobStore:
        raise NotImplementedError("a class that runs the contract implements open_store")

    def close_store(self, store: Persistence) -> None:
        assert isinstance(store, JobStore)
        assert store.check() == []
        store.close()
