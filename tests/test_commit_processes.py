"""Commits beside processes that stop, are killed, write without a pause, end, or fork."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

import quelmdb
from quelmdb import Job, StoreBusyError
from quelmdb.counters import Counters
from quelmdb.filesystem import MIB
from tests.children import Child, in_child
from tests.committing import THREADS, alarm, wait_for
from tests.durabilities import by_durability, ephemeral

pytest_plugins = ["tests.fixtures"]


# --- Other processes ----------------------------------------------------------


def _stop_within_a_transaction(pipe: Connection, path: Path) -> None:
    finish = Counters.finish

    def stop_and_finish(counters: Counters) -> None:
        pipe.send("within")
        os.kill(os.getpid(), signal.SIGSTOP)
        finish(counters)

    patched: Any = Counters
    patched.finish = stop_and_finish
    with quelmdb.open(path) as store:
        store.insert(Job("slow"))


@by_durability(16 * MIB)
def test_a_wait_for_a_stopped_process_can_be_interrupted_and_times_out(
    options: dict[str, Any], path: Path
) -> None:
    with quelmdb.open(path, write_timeout=0.1, **options) as store:
        store.insert(Job("a"))
        with Child(_stop_within_a_transaction, path) as child:
            assert child.receive() == "within"
            with pytest.raises(StoreBusyError, match="another process"):
                store.insert(Job("timed out"))
            with pytest.raises(KeyboardInterrupt), alarm(0.02):
                store.insert(Job("interrupted"))
            assert len(store.all()) == 1  # reading goes on
            late = store.submit.insert(Job("late"))
            child.signal(signal.SIGCONT)
            assert late.result(10).worker == "late"
            child.receive()
        assert [job.worker for job in store.all()] == ["a", "slow", "late"]


@by_durability(16 * MIB)
def test_a_process_that_is_killed_while_it_writes_lets_others_in(
    options: dict[str, Any], path: Path
) -> None:
    with quelmdb.open(path, **options) as store:
        with Child(_stop_within_a_transaction, path) as child:
            child.receive()
            late = store.submit.insert(Job("late"))
            child.kill()
            assert late.result(10).worker == "late"
        assert [job.worker for job in store.all()] == ["late"]


def _write_without_a_pause(pipe: Connection, path: Path) -> None:
    with quelmdb.open(path) as store:
        pipe.send("ready")
        while not pipe.poll():
            store.insert(Job("busy"))


def test_a_process_that_writes_without_a_pause_does_not_keep_others_out(path: Path) -> None:
    with quelmdb.open(path) as store, Child(_write_without_a_pause, path) as child:
        child.receive()
        wait_for(lambda: len(store.all("busy")) > 10)
        before = len(store.all("busy"))
        for _ in range(50):
            store.insert(Job("mine"))
        others = len(store.all("busy")) - before
        child.send()
        child.receive()
    assert others < 50 * 10  # in turn would be 50


def _threads_that_tell(pipe: Connection, path: Path, options: dict[str, Any]) -> None:
    lock = threading.Lock()
    store = quelmdb.open(path, **options)

    def work(number: int) -> None:
        while True:
            job = store.insert(Job("a", number))
            with lock:
                pipe.send(job.id)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(work, range(THREADS)))


@by_durability(16 * MIB)
def test_what_was_acknowledged_to_threads_survives_the_kill_of_the_process(
    options: dict[str, Any], tmp_path: Path
) -> None:
    for kills in range(1, 5):
        path = tmp_path / f"{kills}.qdb"
        with Child(_threads_that_tell, path, options) as child:
            told = [child.receive() for _ in range(kills * 40)]
            child.kill()
            while child.pipe.poll():
                try:
                    told.append(child.pipe.recv())
                except (EOFError, OSError):
                    break
        with quelmdb.open(path) as store:
            assert set(told) <= set(store.all().ids())
            assert store.check() == []


def _has_company(path: Path) -> bool:
    with quelmdb.open(path) as store:
        return store._opened.wakeup.has_company()


def _look(path: Path) -> int:
    with quelmdb.open(path, readonly=True) as store:
        return len(store.all())


def test_all_processes_know_whether_several_write_to_an_ephemeral_store(path: Path) -> None:
    """Who writes alone need not stand in line."""
    with quelmdb.open(path, **ephemeral(16 * MIB)) as store:
        wakeup = store._opened.wakeup
        assert not wakeup.has_company()
        assert in_child(_look, path) == 0
        assert not wakeup.has_company()
        assert in_child(_has_company, path)
        assert wakeup.has_company()  # until somebody opens it who is alone
    assert not _has_company(path)


# --- The end ------------------------------------------------------------------


def test_a_process_that_ends_without_closing_has_committed_what_it_submitted(path: Path) -> None:
    code = """
import quelmdb, sys
store = quelmdb.open(sys.argv[1])
for number in range(500):
    store.submit.insert(quelmdb.Job("a", number))
"""
    subprocess.run([sys.executable, "-c", code, path], check=True)
    with quelmdb.open(path) as store:
        assert [job.arguments for job in store.all()] == list(range(500))


def test_a_fork_in_the_middle_of_writes_leaves_them_to_the_parent(path: Path) -> None:
    with quelmdb.open(path) as store:
        futures = [store.submit.insert(Job("a")) for _ in range(200)]

        def use() -> str:
            with pytest.raises(quelmdb.ForkedStoreError):
                store.insert(Job("b"))
            with quelmdb.open(path) as own:
                return own.insert(Job("child")).worker or ""

        assert in_child(use) == "child"
        assert len({future.result().id for future in futures}) == 200
