"""Pages that a reader still sees, where there are no others: a write waits a little for it."""

from __future__ import annotations

from multiprocessing.connection import Connection
from pathlib import Path

import pytest

import quelmdb
from quelmdb import Job, StoreFullError
from quelmdb.environment import Environment
from tests.children import Child
from tests.durabilities import EPHEMERAL

pytest_plugins = ["tests.fixtures"]


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
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "jobs.qdb"
    with quelmdb.open(path, **EPHEMERAL) as store:
        store.insert_many(Job("a", n) for n in range(100))
        with Child(_look, path) as reader:
            reader.receive()
            asked: list[int] = []
            pinned_bytes = Environment.pinned_bytes

            def ask(environment: Environment) -> int:
                asked.append(pinned_bytes(environment))
                if len(asked) == 1:
                    reader.send()
                    assert reader.receive() == 100
                    reader.join()
                return asked[-1]

            monkeypatch.setattr(Environment, "pinned_bytes", ask)
            while not asked:
                _change(store, 1)
            assert asked[0]
        assert len(store.jobs("queued")) == 100
        assert store.check() == []


def test_where_the_reader_stays_it_is_an_error_and_the_store_goes_on_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "jobs.qdb"
    with quelmdb.open(path, **EPHEMERAL) as store:
        store.insert_many(Job("a", n) for n in range(100))
        with Child(_look, path) as reader:
            reader.receive()
            with pytest.raises(StoreFullError, match="quelmdb readers"):
                _change(store, 1000)
            assert store.check() == []
            pauses: list[float] = []
            monkeypatch.setattr("quelmdb.transactions.time.sleep", pauses.append)
            with pytest.raises(StoreFullError):
                _change(store, 1000)
            assert not pauses  # that one waits in vain is enough
            reader.send()
            assert reader.receive() == 100
            reader.join()
        store.complete_many([*store.jobs("started"), *store.claim("a", limit=100)])
        assert len(store.completed()) == 100
        assert store.check() == []
