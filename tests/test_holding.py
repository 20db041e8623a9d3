"""Other processes see since when a snapshot is held."""

from __future__ import annotations

import os
import threading
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

import quelmdb
from quelmdb import Job, ReaderSlot
from tests.children import Child, in_child

pytest_plugins = ["tests.fixtures"]

needs_memfd = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="memfd_create is Linux's")


def _hold(pipe: Connection, path: Path, readonly: bool) -> None:
    with quelmdb.open(path, readonly=readonly) as store:
        pipe.send("open")
        pipe.recv()
        with store.snapshot():
            pipe.send("held")
            pipe.recv()
        pipe.send("ended")
        pipe.recv()


def _snapshots(store: quelmdb.Store, pid: int) -> list[ReaderSlot]:
    return [slot for slot in store.info().readers if slot.pid == pid and slot.since]


@needs_memfd
@pytest.mark.parametrize("readonly", [False, True])
def test_it_is_told_since_when_another_process_holds_a_snapshot(
    readonly: bool, path: Path, store: quelmdb.Store
) -> None:
    with Child(_hold, path, readonly) as child:
        child.receive()
        before = datetime.now(UTC)
        child.send()
        child.receive()
        store.insert(Job("a"))
        (slot,) = _snapshots(store, child.pid)
        assert slot.since is not None
        assert before.timestamp() - 0.1 <= slot.since.timestamp() <= datetime.now(UTC).timestamp()
        assert slot.transaction == store.info().transaction - 1
        child.send()
        child.receive()
        assert _snapshots(store, child.pid) == []


@needs_memfd
def test_each_thread_tells_of_its_own(store: quelmdb.Store) -> None:
    def hold(begun: threading.Event, ended: threading.Event) -> None:
        with store.snapshot():
            begun.set()
            ended.wait()

    ended = threading.Event()
    threads = []
    for _ in range(2):
        begun = threading.Event()
        threads.append(threading.Thread(target=hold, args=(begun, ended)))
        threads[-1].start()
        begun.wait()
    slots = _snapshots(store, os.getpid())
    assert {slot.thread for slot in slots} == {f"{thread.ident:x}" for thread in threads}
    ended.set()
    for thread in threads:
        thread.join()
    assert _snapshots(store, os.getpid()) == []


def test_a_snapshot_is_to_be_had_without_a_descriptor_left(path: Path) -> None:
    def work() -> int:
        with quelmdb.open(path) as store:
            store.insert(Job("a"))
            taken: list[int] = []
            try:
                while True:
                    taken.append(os.dup(0))
            except OSError:
                pass
            with store.snapshot() as snapshot:
                return len(snapshot.all())

    assert in_child(work) == 1


@needs_memfd
def test_snapshots_leave_no_descriptors(store: quelmdb.Store, path: Path) -> None:
    with store.snapshot():
        pass
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        with store.snapshot():
            store.insert(Job("a"))
    assert len(os.listdir("/proc/self/fd")) == before


@needs_memfd
def test_a_snapshot_that_is_forgotten_is_held_no_more(store: quelmdb.Store) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        snapshot = store.snapshot()
        assert len(os.listdir("/proc/self/fd")) == before + 1
        del snapshot
        assert len(os.listdir("/proc/self/fd")) == before
    assert store._opened.environment.is_idle()


@needs_memfd
def test_a_store_that_is_closed_and_a_fork_let_go_of_what_they_had(path: Path) -> None:
    def descriptors() -> list[str]:
        links = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
        return [os.readlink(link) for link in links if os.path.lexists(link)]

    def held() -> int:
        return sum("quelmdb" in target for target in descriptors() if "memfd:" in target)

    store = quelmdb.open(path)
    snapshot = store.snapshot()
    assert held() == 1
    assert in_child(held) == 0
    store.close()
    assert held() == 0
    snapshot.close()
