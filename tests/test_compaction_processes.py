"""Compaction while other processes use the store: nobody loses anything, and everybody moves on."""

from __future__ import annotations

import signal
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

import quelmdb
from quelmdb import Job
from tests import compacting
from tests.children import Child, ChildDiedError
from tests.compacting import CAPACITY, fill, generations
from tests.durabilities import by_durability
from tests.steps import die_at_step

pytest_plugins = ["tests.fixtures"]
store = compacting.store


def _write_until_told(pipe: Connection, path: Path) -> list[int]:
    with quelmdb.open(path) as store:
        pipe.send("ready")
        acknowledged = []
        while not pipe.poll():
            job = store.insert(Job("p"))
            assert job.id is not None
            acknowledged.append(job.id)
            for claimed in store.claim("p"):
                store.complete(claimed)
        return acknowledged


def test_other_processes_move_on_and_lose_nothing(store: quelmdb.Store, path: Path) -> None:
    with Child(_write_until_told, path, method="spawn") as child:
        assert child.receive() == "ready"
        for _ in range(5):
            store.compact()
        child.send()
        acknowledged = child.receive()
    assert set(acknowledged) == set(store.all("p").ids())
    assert store.check() == []
    assert len(generations(path)) == 1


def _look_until_told(pipe: Connection, path: Path) -> int:
    with quelmdb.open(path, readonly=True) as store:
        pipe.send(len(store.all()))
        pipe.recv()
        pipe.send(len(store.all()))
        pipe.recv()
        return store.info().generation


def test_a_process_that_only_looks_moves_on(store: quelmdb.Store, path: Path) -> None:
    store.insert(Job("a"))
    with Child(_look_until_told, path, method="spawn") as child:
        assert child.receive() == 1
        store.compact()
        store.insert(Job("a"))
        child.send()
        assert child.receive() == 2
        child.send()
        assert child.receive() == 2


def _hold_a_snapshot(pipe: Connection, path: Path, readonly: bool = False) -> None:
    with quelmdb.open(path, readonly=readonly) as store, store.snapshot() as snapshot:
        pipe.send(len(snapshot.all()))
        pipe.recv()


def test_a_process_that_died_in_the_old_generation_is_no_obstacle(
    store: quelmdb.Store, path: Path
) -> None:
    store.insert(Job("a"))
    with Child(_hold_a_snapshot, path, method="spawn") as child:
        assert child.receive() == 1
        store.compact()
        assert generations(path) == ["000001", "000002"]
        child.kill()
        store.compact()
        store.close()
    with quelmdb.open(path) as again:
        assert len(again.all()) == 1
    assert generations(path) == ["000003"]


@pytest.mark.parametrize("readonly", [False, True])
def test_an_old_generation_is_deleted_by_who_is_left_when_its_last_reader_has_gone(
    store: quelmdb.Store, path: Path, readonly: bool
) -> None:
    """Killed, or not allowed to delete it."""
    store.insert(Job("a"))
    with Child(_hold_a_snapshot, path, readonly, method="spawn") as child:
        assert child.receive() == 1
        store.compact()
        assert len(store.all()) == 1
        assert generations(path) == ["000001", "000002"]
        if readonly:
            child.send()
            child.join()
        else:
            child.kill()
        assert len(store.all()) == 1
        assert generations(path) == ["000002"]


def _insert_when_told(pipe: Connection, path: Path) -> None:
    with quelmdb.open(path) as store:
        while True:
            pipe.send(store.insert(Job("a")).id)
            pipe.recv()


def test_a_process_that_only_writes_lets_go_of_the_old_generation(
    store: quelmdb.Store, path: Path
) -> None:
    with Child(_insert_when_told, path, method="spawn") as child:
        assert child.receive() == 1
        store.compact()
        assert generations(path) == ["000001", "000002"]
        child.send()
        assert child.receive() == 2
        assert generations(path) == ["000002"]


def _compact_and_die(pipe: Connection, path: Path, calls: int) -> None:
    """Dies at the `calls`-th step of a compaction that goes to the file system."""
    with quelmdb.open(path) as store:
        die_at_step(calls)
        store.compact()
    pipe.send("survived")


@by_durability(CAPACITY)
def test_a_compaction_killed_at_any_step_leaves_one_store(
    options: dict[str, Any], path: Path
) -> None:
    with quelmdb.open(path, **options) as store:
        fill(store, 500)
        before = list(store.all())
    for calls in range(1, 1_000):
        with Child(_compact_and_die, path, calls, method="fork") as child:
            try:
                child.receive()
            except ChildDiedError as error:
                assert error.exit_code == -signal.SIGKILL  # noqa: PT017
                survived = False
            else:
                survived = True
        with quelmdb.open(path) as store:
            assert list(store.all()) == before
            assert store.check() == []
            extra = store.insert(Job("x"))
            store.destroy(extra)
        if survived:
            break
    assert survived
    assert calls > 5
    assert len(generations(path)) == 1
