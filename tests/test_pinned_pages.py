"""Pages that a reader still sees, where there are no others: a write waits a little for it."""

from __future__ import annotations

from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

import quelmdb
from quelmdb import Job, StoreFullError
from quelmdb.environment import Environment
from tests.children import Child
from tests.durabilities import EPHEMERAL

pytest_plugins = ["tests.fixtures"]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[quelmdb.Store]:
    with quelmdb.open(tmp_path / "jobs.qdb", **EPHEMERAL) as store:
        store.insert_many(Job("a", n) for n in range(100))
        yield store
        assert store.check() == []


@pytest.fixture
def reader(store: quelmdb.Store) -> Iterator[Child]:
    with Child(_look, Path(store.path)) as child:
        assert child.receive() == "open"
        yield child


def _end(reader: Child) -> None:
    reader.send()
    assert reader.receive() == 100
    reader.join()


def _look(pipe: Connection, path: Path) -> int:
    """Another process, in the middle of a look at the store."""
    with quelmdb.open(path, readonly=True) as store, store.snapshot() as snapshot:
        pipe.send("open")
        pipe.recv()
        return len(snapshot.all())


def _change(store: quelmdb.Store, times: int) -> None:
    """Frees pages, which whoever has a snapshot still sees."""
    for _ in range(times):
        for job in store.claim("a", limit=5):
            store.release(job)


def test_a_write_that_finds_no_page_waits_for_the_reader_that_has_them(
    store: quelmdb.Store, reader: Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    pinned_bytes = Environment.pinned_bytes

    def ask(environment: Environment) -> int:
        asked.append(pinned_bytes(environment))
        if len(asked) == 1:
            _end(reader)
        return asked[-1]

    monkeypatch.setattr(Environment, "pinned_bytes", ask)
    while not asked:
        _change(store, 1)
    assert asked[0]
    assert len(store.jobs("queued")) == 100


def test_where_the_reader_stays_it_is_an_error_and_the_store_goes_on_behind_it(
    store: quelmdb.Store, reader: Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StoreFullError, match="quelmdb readers"):
        _change(store, 1000)
    assert store.check() == []
    pauses: list[float] = []
    monkeypatch.setattr("quelmdb.transactions.time.sleep", pauses.append)
    with pytest.raises(StoreFullError):
        _change(store, 1000)
    assert not pauses  # that one waits in vain is enough
    assert store.check() == []
    _end(reader)
    store.complete_many([*store.jobs("started"), *store.claim("a", limit=100)])
    assert len(store.completed()) == 100
