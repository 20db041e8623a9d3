"""A store that is used after its end, by too many, or with what it does not take."""

from __future__ import annotations

import gc
import inspect
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

import quelmdb
from quelmdb import (
    InvalidJobError,
    Job,
    SnapshotEndedError,
    StoreClosedError,
    TooLargeError,
    TooManyReadersError,
    WrongThreadError,
)
from quelmdb.engine import Transaction
from quelmdb.engine_errors import MAX_READERS
from quelmdb.environment import Environment
from quelmdb.reading import StoreSnapshot
from tests import inmemory
from tests.children import Child, in_child
from tests.uses import HARMLESS, READS, STORE_READS, WRITES

pytest_plugins = ["tests.fixtures"]
tmp_path = inmemory.tmp_path

# --- After the end ------------------------------------------------------------


def _public(kind: type) -> set[str]:
    return {name for name, _ in inspect.getmembers(kind) if not name.startswith("_")}


def test_the_tables_of_uses_have_every_public_method() -> None:
    assert STORE_READS.keys() | WRITES.keys() | HARMLESS == _public(quelmdb.Store)
    assert READS.keys() | {"close"} == _public(StoreSnapshot)


@pytest.mark.parametrize("use", [*STORE_READS, *WRITES])
def test_a_closed_store_refuses_every_use(use: str, path: Path) -> None:
    store = quelmdb.open(path)
    store.insert(Job("a"))
    store.close()
    store.close()
    with pytest.raises(StoreClosedError, match="was closed") as caught:
        {**STORE_READS, **WRITES}[use](store)
    assert caught.value.path == str(path)


def test_views_batches_and_iterations_end_with_their_store(path: Path) -> None:
    store = quelmdb.open(path)
    store.insert_many([Job("a")] * 300)
    view, half = store.all(), iter(store.all())
    next(half)
    batch = store.batch().__enter__()
    batch.insert(Job("a"))
    store.close()
    uses: list[Callable[[], object]] = [
        lambda: list(view),
        lambda: len(view),
        lambda: list(view.ids()),
        lambda: list(half),
        lambda: batch.__exit__(None, None, None),
    ]
    for use in uses:
        with pytest.raises(StoreClosedError):
            use()


@pytest.mark.parametrize("use", READS)
def test_a_snapshot_whose_store_was_closed_refuses_every_use(use: str, path: Path) -> None:
    store = quelmdb.open(path)
    store.insert_many([Job("a")] * 3)
    snapshot = store.snapshot()
    store.close()
    with pytest.raises(StoreClosedError):
        READS[use](snapshot)
    snapshot.close()
    with pytest.raises(SnapshotEndedError):
        READS[use](snapshot)


@pytest.mark.parametrize("use", [*READS, "close"])
def test_a_snapshot_in_another_thread_refuses_every_use(use: str, store: quelmdb.Store) -> None:
    jobs = store.insert_many([Job("a")] * 3)
    raised: list[BaseException] = []
    with store.snapshot() as snapshot:

        def run() -> None:
            try:
                snapshot.close() if use == "close" else READS[use](snapshot)
            except WrongThreadError as error:
                raised.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        assert len(raised) == 1
        assert list(snapshot.all()) == jobs


@pytest.mark.parametrize("use", ["read", "write", "within"])
def test_closing_waits_for_what_is_under_way(use: str, path: Path) -> None:
    """Else LMDB would take the map from under it."""
    store = quelmdb.open(path)
    job = store.insert(Job("a"))
    environment = store._opened.environment
    within, go_on = threading.Event(), threading.Event()

    def count(environment: Environment, transaction: Transaction) -> int:
        within.set()
        go_on.wait()
        return transaction.stat(environment.databases.jobs)["entries"]

    def run() -> int:
        if use == "within":
            snapshot = environment.begin_read()
            return environment.within(snapshot, count)
        if use == "read":
            return environment.read(count)
        return store._commit(lambda writer: count(environment, writer.transaction))

    with ThreadPoolExecutor(2) as pool:
        counting = pool.submit(run)
        within.wait()
        closing = pool.submit(store.close)
        while store._committer._gone is None:
            pass
        with pytest.raises(StoreClosedError):
            store.find(job)
        assert not closing.done()
        go_on.set()
        assert counting.result() == 1
        closing.result()


@pytest.mark.parametrize("snapshots", [False, True])
def test_closing_beside_threads_that_read_and_write_is_orderly(
    snapshots: bool, tmp_path: Path, long: bool
) -> None:
    def close_in_the_middle(path: Path) -> None:
        store = quelmdb.open(path)
        store.insert_many(Job("a", b"x" * 3000) for _ in range(200))
        works = [_read, _write, _claim, _check, *([_snapshot] if snapshots else [])]
        begun = threading.Barrier(len(works) + 1)
        ends: list[BaseException] = []

        def run(work: Callable[[quelmdb.Store], object]) -> None:
            begun.wait()
            try:
                while True:
                    work(store)
            except BaseException as error:
                ends.append(error)

        threads = [threading.Thread(target=run, args=(work,)) for work in works]
        for thread in threads:
            thread.start()
        begun.wait()
        list(store.all())
        store.close()
        for thread in threads:
            thread.join()
        assert [type(end) for end in ends] == [StoreClosedError] * len(works), ends
        with quelmdb.open(path) as store:
            assert store.check() == []

    for number in range(200 if long else 6):
        in_child(close_in_the_middle, tmp_path / str(number))


def _read(store: quelmdb.Store) -> None:
    for job in store.all():
        assert job.arguments == b"x" * 3000 or job.worker == "b"
    store.counts()
    store.workers()
    list(store.all("a").ids())


def _write(store: quelmdb.Store) -> None:
    store.update_many(job.replace(worker="b") for job in store.all("a", limit=5))
    store.insert_many([Job("a", b"x" * 3000)] * 5)


def _claim(store: quelmdb.Store) -> None:
    store.complete_many(store.claim("b", limit=5))
    store.rescue()


def _check(store: quelmdb.Store) -> None:
    assert store.check() == []
    store.info()


def _snapshot(store: quelmdb.Store) -> None:
    with store.snapshot() as snapshot:
        assert len(list(snapshot.all())) == len(snapshot.all())


# --- Too many -----------------------------------------------------------------


@pytest.fixture
def full(store: quelmdb.Store) -> Iterator[list[quelmdb.Snapshot]]:
    """As many snapshots as there are slots."""
    store.insert(Job("a"))
    snapshots = [store.snapshot() for _ in range(MAX_READERS)]
    yield snapshots
    for snapshot in snapshots:
        snapshot.close()


def test_a_full_reader_table_is_an_error_and_no_end(
    full: list[quelmdb.Snapshot], store: quelmdb.Store
) -> None:
    for use in (store.snapshot, lambda: store.find(1), store.counts, store.claim, store.check):
        with pytest.raises(TooManyReadersError, match=f"{MAX_READERS}") as caught:
            use()
        assert str(store.path) in (caught.value.path or "")
    store.insert(Job("b"))  # writing takes no slot
    assert all(len(snapshot.all()) == 1 for snapshot in full)
    full.pop().close()
    assert len(store.all()) == 2
    assert [job.worker for job in store.claim(limit=9)] == ["a", "b"]


@pytest.mark.usefixtures("full")
def test_a_full_reader_table_is_an_error_in_other_processes(store: quelmdb.Store) -> None:
    with pytest.raises(TooManyReadersError):
        in_child(_count, store.path, method="forkserver")


def _count(path: str) -> int:
    with quelmdb.open(path) as store:
        return len(store.all())


def test_snapshots_that_are_forgotten_free_their_slots(store: quelmdb.Store) -> None:
    for _ in range(3):
        snapshots = [store.snapshot() for _ in range(MAX_READERS)]
        del snapshots
        gc.collect()
    assert len(store.info().readers) <= 1  # its own


def test_the_slots_of_killed_processes_are_freed_by_themselves(store: quelmdb.Store) -> None:
    def take(pipe: Connection, count: int) -> None:
        with quelmdb.open(store.path) as other:
            snapshots = [other.snapshot() for _ in range(count)]
            pipe.send(len(snapshots))
            threading.Event().wait()

    for _ in range(3):
        with Child(take, MAX_READERS - 1) as child:
            assert child.receive() == MAX_READERS - 1
            child.kill()
    snapshots = [store.snapshot() for _ in range(MAX_READERS - 1)]
    for snapshot in snapshots[10:]:
        snapshot.close()
    assert {reader.pid for reader in store.info().readers} == {os.getpid()}
    for snapshot in snapshots[:10]:
        snapshot.close()


def test_the_pages_of_killed_readers_are_recycled(path: Path) -> None:
    """The slot of a dead reader would keep every page that it saw."""

    def snapshot_and_wait(pipe: Connection) -> None:
        with quelmdb.open(path) as other, other.snapshot():
            pipe.send(None)
            threading.Event().wait()

    with quelmdb.open(path) as store:
        store.insert_many(Job("a", n) for n in range(2000))
        with Child(snapshot_and_wait) as child:
            child.receive()
            child.kill()
    with quelmdb.open(path) as store:  # opening looks for dead readers
        used = store.info().used_bytes
        for _ in range(40):
            store.update_many(list(store.all(limit=200)))
        assert store.info().used_bytes < 2 * used


# --- What it does not take ----------------------------------------------------

NO_IDS: list[Any] = [0, -1, 2**63, 2**64, 2**200, True, False, 1.0, "1", b"1"]


@pytest.mark.parametrize("value", NO_IDS, ids=repr)
def test_what_is_no_id_is_refused_at_every_verb(value: Any, store: quelmdb.Store) -> None:
    store.insert_many([Job("a")] * 3)
    with store.snapshot() as snapshot:
        uses: list[Callable[[], object]] = [
            lambda: store.find(value),
            lambda: snapshot.find(value),
            lambda: store.destroy(value),
            lambda: store.destroy_many([1, value]),
            lambda: store.batch().destroy(value),
            lambda: store.batch().destroy_many([value]),
            lambda: store.insert(Job("a", id=value)),
            lambda: store.update(Job("a", id=value)),
            lambda: store.restore([Job("a", id=value)]),
        ]
        if not (type(value) is int and value == 0):  # after=0 is "from the first"
            uses.append(lambda: list(store.all(after=value)))
            uses.append(lambda: len(snapshot.failed(after=value).ids()))
        for use in uses:
            with pytest.raises(InvalidJobError):
                use()
    assert len(store.all()) == 3


@pytest.mark.parametrize("value", [-1, True, 1.0, "1", 2**200 * -1], ids=repr)
def test_what_is_no_limit_is_refused(value: Any, store: quelmdb.Store) -> None:
    with pytest.raises(InvalidJobError):
        list(store.all(limit=value))
    with pytest.raises(InvalidJobError):
        store.claim(limit=value)


def test_the_limit_of_arguments_binds_writes_and_not_what_is_stored(path: Path) -> None:
    with quelmdb.open(path, argument_limit=1000) as small, quelmdb.open(path) as large:
        big = large.insert(Job("a", b"x" * 5000))
        small.insert(Job("a", b"x" * 900))
        (held, other) = small.claim(limit=2)
        refused: list[Callable[[], object]] = [
            lambda: small.insert(Job("a", b"x" * 1000)),
            lambda: small.insert_many([Job("a"), Job("a", ["x" * 500] * 2)]),
            lambda: small.update(Job("a", b"x" * 1000, id=2)),
            lambda: small.complete(held, result=b"x" * 1000),
            lambda: small.batch().__enter__().complete(held, "x" * 1000),
            lambda: small.restore([big]),
        ]
        for write in refused:
            with pytest.raises(TooLargeError) as caught:
                write()
            assert caught.value.expected == 1000
        assert len(small.all()) == 2
        assert held.arguments == b"x" * 5000  # stored before, it is read and moved
        assert small.complete(held, result=b"x" * 900).arguments == b"x" * 5000
        assert small.release(other).attempt == 0


@pytest.mark.parametrize("limit", [0, -1, 2**31, 1.5, True, "1", None])
def test_a_limit_of_arguments_that_is_none_is_refused(limit: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="limit"):
        quelmdb.open(tmp_path / "jobs.qdb", argument_limit=limit)
    assert list(tmp_path.iterdir()) == []
