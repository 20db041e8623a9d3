"""Where the author of a store plugs it in, and what each test gets from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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


class Life:
    """A store, and what comes of it when it is opened again."""

    def __init__(self, store: JobStore, reopen: Callable[[JobStore], JobStore]) -> None:
        self.store = store
        self._reopen = reopen

    def reopen(self) -> JobStore:
        """`JobStoreHarness.reopen`."""
        self.store = self._reopen(self.store)
        return self.store


class JobStoreHarness(PersistenceHarness):
    """As `PersistenceHarness`; override `reopen`, too. Each test ends with the check of the
    store that it used."""

    def open_store(self, directory: Path, clock: Clock) -> JobStore:
        raise NotImplementedError("a class that runs the contract implements open_store")

    def reopen(self, store: JobStore, directory: Path, clock: Clock) -> JobStore:
        """Closes a store of `open_store`, which ends what this process holds, and opens it
        again: the same jobs, of which nobody holds those that are started."""
        raise NotImplementedError("a class that runs the contract of a JobStore implements reopen")

    @pytest.fixture
    def life(self, tmp_path: Path, clock: ManualClock) -> Iterator[Life]:
        directory = new_directory(tmp_path, "life")
        life = Life(
            self.open_store(directory, clock),
            lambda store: self.reopen(store, directory, clock),
        )
        yield life
        self.close_store(life.store)

    def close_store(self, store: Persistence) -> None:
        assert isinstance(store, JobStore)
        assert store.check() == []
        store.close()
