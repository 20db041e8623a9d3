"""Group commit: threads share transactions, and nobody waits for ever or pays for another."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import quelmdb
from quelmdb import (
    DiskError,
    Job,
    JobExistsError,
    StaleClaim,
    Status,
    StoreBusyError,
    StoreClosedError,
)
from quelmdb.counters import Counters
from tests.children import Child, in_child

pytest_plugins = ["tests.fixtures"]

THREADS = 16


@contextmanager
def _held(store: quelmdb.Store) -> Iterator[threading.Event]:
    """Somebody else writes, to the end of the block or until the event is set: what is
    asked for meanwhile has to wait."""
    committer = store._committer
    taken, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        with committer._turn:
            committer._busy = threading.get_ident()
            taken.set()
            let_go.wait()
            committer._busy = 0

    with ThreadPoolExecutor(1) as pool:
        holding = pool.submit(hold)
        taken.wait()
        try:
            yield let_go
        finally:
            let_go.set()
            holding.result()


def _wait_for(condition: Callable[[], object]) -> None:
    while not condition():
        time.sleep(0.001)


@pytest.fixture
def transactions(store: quelmdb.Store, monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """One item for each write transaction that was begun."""
    begun: list[None] = []
    begin_write = store._opened.environment.begin_write

    def count() -> Any:
        begun.append(None)
        return begin_write()

    monkeypatch.setattr(store._opened.environment, "begin_write", count)
    return begun


def _at_once(store: quelmdb.Store, calls: list[Callable[[], Any]]) -> list[Future[Any]]:
    """The calls, made by threads of their own while somebody else writes."""
    pool = ThreadPoolExecutor(len(calls))
    with pool, _held(store):
        waiting = store._committer._requests
        futures = [pool.submit(call) for call in calls]
        _wait_for(lambda: waiting.qsize() >= len(calls) - 1)  # the committer has the first
    return futures


# --- Sharing ------------------------------------------------------------------


def test_threads_that_write_at_the_same_time_share_a_transaction(
    store: quelmdb.Store, transactions: list[None]
) -> None:
    futures = _at_once(store, [lambda: store.insert(Job("a"))] * THREADS)
    assert sorted(future.result().id for future in futures) == list(range(1, THREADS + 1))
    assert len(transactions) == 1


def test_every_kind_of_write_shares_it(store: quelmdb.Store, transactions: list[None]) -> None:
    store.insert_many([Job("a")] * 4)
    held = store.claim("a", limit=4)
    transactions.clear()
    futures = _at_once(
        store,
        [
            lambda: store.complete(held[0], "done"),
            lambda: store.fail(held[1], "why"),
            lambda: store.release(held[2]),
            lambda: store.destroy(held[3]),
            lambda: store.insert(Job("b")),
            lambda: store.insert(Job("b", id=100)),
            lambda: store.update(Job("c", id=200)),
            lambda: store.insert_many([Job("d")] * 3),
        ],
    )
    for future in futures:
        future.result()
    assert len(transactions) == 1
    assert store.counts()[Status.COMPLETED] == store.counts()[Status.FAILED] == 1
    assert len(store.all()) == 3 + 2 + 1 + 3


def test_a_lone_thread_writes_by_itself(store: quelmdb.Store) -> None:
    store.insert(Job("a"))
    assert "quelmdb-committer" not in {thread.name for thread in threading.enumerate()}


def test_many_threads_lose_nothing_and_give_no_id_twice(
    store: quelmdb.Store, transactions: list[None]
) -> None:
    def work(number: int) -> list[int | None]:
        ids = [store.insert(Job("a", number)).id for _ in range(20)]
        for job in store.claim("a", limit=10):
            store.complete(job, number)
        return ids

    with ThreadPoolExecutor(THREADS) as pool:
        ids = [job_id for some in pool.map(work, range(THREADS)) for job_id in some]
    assert sorted(filter(None, ids)) == list(range(1, THREADS * 20 + 1))
    assert store.counts()[Status.COMPLETED] == THREADS * 10
    assert len(transactions) < THREADS * 31


def test_the_committer_ends_when_it_has_nothing_to_do_and_starts_again(
    store: quelmdb.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quelmdb.commit._IDLE_SECONDS", 0.01)
    for number in (1, 2, 3):
        assert store.submit.insert(Job("a")).result().id == number
        _wait_for(lambda: not store._committer._committer)


# --- Errors -------------------------------------------------------------------


def test_an_error_fails_its_own_caller_alone(
    store: quelmdb.Store, transactions: list[None]
) -> None:
    taken = store.insert(Job("a", id=50))
    (held,) = store.claim()
    store.complete(held)
    transactions.clear()
    futures = _at_once(
        store,
        [
            lambda: store.insert(taken),
            lambda: store.complete(held),
            lambda: store.insert(Job("b")),
            lambda: store.insert(taken),
        ],
    )
    errors = [type(future.exception()) for future in futures]
    assert errors == [JobExistsError, StaleClaim, type(None), JobExistsError]
    assert len(transactions) == 1
    assert [job.worker for job in store.all()] == ["a", "b"]


def test_a_write_that_fails_half_way_is_undone_and_the_others_happen(
    store: quelmdb.Store,
) -> None:
    store.insert(Job("a", id=50))
    futures = _at_once(
        store,
        [
            lambda: store.insert(Job("b")),
            lambda: store.insert_many([Job("half", id=60), Job("half", id=50)]),
            lambda: store.insert(Job("b")),
        ],
    )
    assert isinstance(futures[1].exception(), JobExistsError)
    assert futures[0].result().worker == futures[2].result().worker == "b"
    assert [job.worker for job in store.all()] == ["a", "b", "b"]


def test_where_the_shared_transaction_fails_each_gets_one_of_its_own(
    store: quelmdb.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish, failures = Counters.finish, [DiskError("once")]

    def fail_once(counters: Counters) -> None:
        finish(counters)
        if failures:
            raise failures.pop()

    monkeypatch.setattr(Counters, "finish", fail_once)
    futures = _at_once(store, [lambda: store.insert(Job("a"))] * THREADS)
    assert sorted(future.result().id for future in futures) == list(range(1, THREADS + 1))


def test_where_nothing_can_be_written_each_is_told(
    store: quelmdb.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(counters: Counters) -> None:
        raise DiskError("the disk is gone")

    with monkeypatch.context() as patch:
        patch.setattr(Counters, "finish", fail)
        futures = _at_once(store, [lambda: store.insert(Job("a"))] * THREADS)
        for future in futures:
            with pytest.raises(DiskError, match="gone"):
                future.result()
    assert store.insert(Job("a")).id == 1


# --- Interrupts and time-outs --------------------------------------------------


@contextmanager
def _alarm(seconds: float, handler: signal._HANDLER | None = None) -> Iterator[None]:
    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, handler or interrupt)
    # Other tests leave callbacks of the collector behind, in which an exception is ignored.
    gc.disable()
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        gc.enable()
        signal.signal(signal.SIGALRM, before)


def test_who_is_interrupted_while_waiting_has_changed_nothing(store: quelmdb.Store) -> None:
    with _held(store), pytest.raises(KeyboardInterrupt), _alarm(0.02):
        store.insert(Job("a"))
    store.submit.insert(Job("b")).result()
    assert [job.worker for job in store.all()] == ["b"]


def test_who_waits_longer_than_the_time_out_has_changed_nothing(path: Path) -> None:
    with quelmdb.open(path, write_timeout=0.02) as store:
        with _held(store):
            with pytest.raises(StoreBusyError, match=r"another process.*write_timeout") as caught:
                store.insert(Job("a"))
            assert caught.value.expected == 0.02
        store.submit.insert(Job("b")).result()
        assert [job.worker for job in store.all()] == ["b"]


@pytest.mark.parametrize("timeout", [0, -1.0])
def test_a_time_out_is_above_0(timeout: float, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="write_timeout"):
        quelmdb.open(tmp_path / "s", write_timeout=timeout)
    assert not (tmp_path / "s").exists()


@contextmanager
def _held_within_its_transaction(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """The committer stops within its transactions, until the event is set."""
    finish, go_on = Counters.finish, threading.Event()

    def wait_and_finish(counters: Counters) -> None:
        go_on.wait()
        finish(counters)

    with monkeypatch.context() as patch:
        patch.setattr(Counters, "finish", wait_and_finish)
        try:
            yield go_on
        finally:
            go_on.set()


def test_a_claim_whose_caller_is_interrupted_behind_the_start_is_given_back(
    store: quelmdb.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.insert_many([Job("a")] * 3)
    with _held_within_its_transaction(monkeypatch) as go_on:
        store.submit.insert(Job("b"))  # so that the claim has to wait
        with pytest.raises(KeyboardInterrupt), _alarm(0.05):
            store.claim("a", limit=3)
        go_on.set()
        store._committer.finish()
    _wait_for(lambda: not store.jobs(Status.STARTED).ids())
    jobs = store.jobs(Status.QUEUED, worker="a")
    assert [job.attempt for job in jobs] == [0, 0, 0]


def test_a_signal_handler_may_write_while_its_thread_waits(store: quelmdb.Store) -> None:
    written: list[Job] = []

    with _held(store) as let_go:

        def write(number: int, frame: FrameType | None) -> None:
            let_go.set()
            written.append(store.insert(Job("from the handler")))

        with _alarm(0.05, write):
            job = store.insert(Job("from the program"))
    assert {job.worker for job in store.all()} == {job.worker, written[0].worker}


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


def test_a_wait_for_a_stopped_process_can_be_interrupted_and_times_out(path: Path) -> None:
    with quelmdb.open(path, write_timeout=0.1) as store:
        store.insert(Job("a"))
        with Child(_stop_within_a_transaction, path, method="spawn") as child:
            assert child.receive() == "within"
            with pytest.raises(StoreBusyError, match="another process"):
                store.insert(Job("timed out"))
            with pytest.raises(KeyboardInterrupt), _alarm(0.02):
                store.insert(Job("interrupted"))
            assert len(store.all()) == 1  # reading goes on
            late = store.submit.insert(Job("late"))
            child.signal(signal.SIGCONT)
            assert late.result(10).worker == "late"
            child.receive()
        assert [job.worker for job in store.all()] == ["a", "slow", "late"]


def test_a_process_that_is_killed_while_it_writes_lets_others_in(path: Path) -> None:
    with quelmdb.open(path) as store:
        with Child(_stop_within_a_transaction, path, method="spawn") as child:
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
    with quelmdb.open(path) as store, Child(_write_without_a_pause, path, method="spawn") as child:
        child.receive()
        _wait_for(lambda: len(store.all("busy")) > 10)
        before = len(store.all("busy"))
        for _ in range(50):
            store.insert(Job("mine"))
        others = len(store.all("busy")) - before
        child.send()
        child.receive()
    assert others < 50 * 10  # in turn would be 50


def _threads_that_tell(pipe: Connection, path: Path, durability: Any) -> None:
    lock = threading.Lock()
    store = quelmdb.open(path, durability=durability, capacity=None)

    def work(number: int) -> None:
        while True:
            job = store.insert(Job("a", number))
            with lock:
                pipe.send(job.id)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(work, range(THREADS)))


@pytest.mark.parametrize("durability", ["full", "ephemeral"])
def test_what_was_acknowledged_to_threads_survives_the_kill_of_the_process(
    durability: Any, tmp_path: Path
) -> None:
    for kills in range(1, 5):
        path = tmp_path / f"{kills}.qdb"
        with Child(_threads_that_tell, path, durability, method="spawn") as child:
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


# --- The end ------------------------------------------------------------------


def test_closing_finishes_what_was_submitted(path: Path) -> None:
    store = quelmdb.open(path)
    futures = [store.submit.insert(Job("a")) for _ in range(100)]
    store.close()
    assert [future.result(0).id for future in futures] == list(range(1, 101))
    with pytest.raises(StoreClosedError):
        store.submit.insert(Job("a"))
    with quelmdb.open(path) as store:
        assert len(store.all()) == 100


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


def test_a_close_that_is_interrupted_can_be_repeated(path: Path) -> None:
    store = quelmdb.open(path)
    with _held(store):
        late = store.submit.insert(Job("a"))
        with pytest.raises(KeyboardInterrupt), _alarm(0.02):
            store.close()
    assert late.result(10).id == 1
    assert store.insert(Job("b")).id == 2
    store.close()
    with quelmdb.open(path) as store:
        assert len(store.all()) == 2


def test_closing_one_of_two_handles_finishes_what_was_submitted(store: quelmdb.Store) -> None:
    other = quelmdb.open(store.path)
    futures = [other.submit.insert(Job("a")) for _ in range(100)]
    other.close()
    assert all(future.done() for future in futures)
    assert len(store.all()) == 100


def test_a_callback_may_close_the_store(path: Path) -> None:
    store = quelmdb.open(path)
    closed = threading.Event()

    def close(future: Future[Job]) -> None:
        store.close()
        closed.set()

    with _held(store):
        store.submit.insert(Job("a")).add_done_callback(close)
    assert closed.wait(10)
    with pytest.raises(StoreClosedError):
        store.insert(Job("a"))


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
