"""Nobody waits for ever: waits are interrupted or time out, and a close finishes what waits."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import pytest

import quelmdb
from quelmdb import Job, Status, StoreBusyError, StoreClosedError
from quelmdb.counters import Counters
from tests.committing import alarm, held, wait_for

pytest_plugins = ["tests.fixtures"]

# --- Interrupts and time-outs -------------------------------------------------


def test_who_is_interrupted_while_waiting_has_changed_nothing(store: quelmdb.Store) -> None:
    with held(store), pytest.raises(KeyboardInterrupt), alarm(0.02):
        store.insert(Job("a"))
    store.submit.insert(Job("b")).result()
    assert [job.worker for job in store.all()] == ["b"]


def test_who_waits_longer_than_the_time_out_has_changed_nothing(path: Path) -> None:
    with quelmdb.open(path, write_timeout=0.02) as store:
        with held(store):
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
        with pytest.raises(KeyboardInterrupt), alarm(0.05):
            store.claim("a", limit=3)
        go_on.set()
        store._committer.finish()
    wait_for(lambda: not store.jobs(Status.STARTED).ids())
    jobs = store.jobs(Status.QUEUED, worker="a")
    assert [job.attempt for job in jobs] == [0, 0, 0]


def test_a_signal_handler_may_write_while_its_thread_waits(store: quelmdb.Store) -> None:
    written: list[Job] = []

    with held(store) as let_go:

        def write(number: int, frame: FrameType | None) -> None:
            let_go.set()
            written.append(store.insert(Job("from the handler")))

        with alarm(0.05, write):
            job = store.insert(Job("from the program"))
    assert {job.worker for job in store.all()} == {job.worker, written[0].worker}


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


def test_a_close_that_is_interrupted_can_be_repeated(path: Path) -> None:
    store = quelmdb.open(path)
    with held(store):
        late = store.submit.insert(Job("a"))
        with pytest.raises(KeyboardInterrupt), alarm(0.02):
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

    with held(store):
        store.submit.insert(Job("a")).add_done_callback(close)
    assert closed.wait(10)
    with pytest.raises(StoreClosedError):
        store.insert(Job("a"))
