"""Requests: each is done once or not at all, in order, and whoever asked is told or relieved."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import quelmdb
from quelmdb import Job, Status, StoreClosedError
from quelmdb.counters import Counters
from quelmdb.requests import FutureRequest, Request, WaitingRequest
from tests.children import in_child

pytest_plugins = ["tests.fixtures"]

_OTHER = -1  # no thread has this number
_PATIENCE = 30.0


class _Result(WaitingRequest[int]):
    """A request, with what was given back of it."""

    __slots__ = ("returned",)

    def __init__(self) -> None:
        self.returned: list[int] = []
        super().__init__(lambda writer: 7, 0, self.returned.append)

    def end(self) -> None:
        self.result = 7
        self.deliver()


# --- Each step of a request ---------------------------------------------------


def test_what_was_not_begun_is_withdrawn() -> None:
    request = _Result()
    request.withdraw()
    assert not request.take()
    assert request.returned == []


def test_what_is_withdrawn_behind_its_beginning_is_given_back_at_its_end() -> None:
    request = _Result()
    assert request.take()
    request.withdraw()
    assert request.returned == []
    request.end()
    assert request.returned == [7]


def test_what_is_withdrawn_behind_its_end_is_given_back() -> None:
    request = _Result()
    assert request.take()
    request.end()
    assert request.returned == []
    request.withdraw()
    assert request.returned == [7]


def test_of_an_error_nothing_is_given_back() -> None:
    request = _Result()
    assert request.take()
    request.error = ZeroDivisionError()
    request.deliver()
    with pytest.raises(ZeroDivisionError):
        request.wait(None)
    request.withdraw()
    assert request.returned == []


@pytest.mark.parametrize("kind", [WaitingRequest, FutureRequest])
def test_a_request_is_taken_once(kind: Callable[..., Request[None]]) -> None:
    request = kind(lambda writer: None, 0)
    assert request.take()
    assert not request.take()


def test_a_future_that_was_ended_by_its_owner_is_not_taken() -> None:
    request: FutureRequest[int] = FutureRequest(lambda writer: 1, 0)
    request.future.set_result(2)
    assert not request.take()


# --- In the committer ---------------------------------------------------------


class _Turn:
    """The lock of those who write: the committer waits for it until somebody else has
    submitted something, or `go_on`."""

    def __init__(self, committer: Any) -> None:
        self._committer = committer
        self._turn = committer._turn
        self.reached, self.go_on = threading.Event(), threading.Event()

    def __enter__(self) -> None:
        if threading.current_thread().name == "quelmdb-committer":
            self.reached.set()
            while not (self.go_on.is_set() or self._committer._requests.qsize()):
                time.sleep(0.0005)
        self._turn.acquire()

    def __exit__(self, *reason: object) -> None:
        self._turn.release()


def test_a_call_does_not_overtake_what_the_committer_has_in_its_hands(
    store: quelmdb.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn = _Turn(store._committer)
    monkeypatch.setattr(store._committer, "_turn", turn)
    inserted = store.submit.insert(Job("first", id=1))
    turn.reached.wait()  # the queue is empty, and nobody writes
    try:
        store.update(Job("second", id=1))
    finally:
        turn.go_on.set()
    assert inserted.result(_PATIENCE).worker == "first"
    assert [job.worker for job in store.all()] == ["second"]


def test_a_callback_that_exits_harms_nobody(store: quelmdb.Store) -> None:
    with store._committer._turn:
        futures = [store.submit.insert(Job("a")) for _ in range(3)]
        for future in futures:
            future.add_done_callback(lambda future: sys.exit())
    assert [future.result(_PATIENCE).id for future in futures] == [1, 2, 3]
    assert store.submit.insert(Job("b")).result(_PATIENCE).id == 4


def test_a_future_that_its_owner_ends_harms_nobody(store: quelmdb.Store) -> None:
    with store._committer._turn:
        before, mine, after = (store.submit.insert(Job("a")) for _ in range(3))
        mine.set_result(Job("mine"))
    assert before.result(_PATIENCE).id == 1
    assert after.result(_PATIENCE).id == 2


@contextmanager
def _somebody_writes(store: quelmdb.Store) -> Iterator[None]:
    """As far as callers know: they ask the committer."""
    store._committer._busy = _OTHER
    try:
        yield
    finally:
        store._committer._busy = 0


@pytest.mark.parametrize("moment", ["before it is begun", "behind its delivery"])
def test_a_claim_that_is_interrupted_before_it_waits_is_given_back(
    moment: str, store: quelmdb.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.insert_many([Job("a")] * 3)

    def interrupted(request: WaitingRequest[Any], timeout: float | None) -> None:
        while moment == "behind its delivery" and request._received:
            time.sleep(0.0005)
        store._committer._busy = 0
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, _somebody_writes(store):
        patch.setattr(WaitingRequest, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            store.claim("a", limit=2)
    store._committer.finish()
    assert [job.attempt for job in store.jobs(Status.QUEUED)] == [0, 0, 0]


def test_a_callback_that_writes_beside_others_leaves_no_trace_of_them(
    store: quelmdb.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that is taken for writing for ever would not wait for its own writes at
    the end."""
    done: Future[Job] = Future()

    def write(future: Future[Job]) -> None:
        with _somebody_writes(store):
            store._committer._busy = _OTHER
            job = store.insert(Job("b"))
            busy.append(store._committer._busy)
        done.set_result(job)

    busy: list[int] = []
    with store._committer._turn:
        store.submit.insert(Job("a")).add_done_callback(write)
    assert done.result(_PATIENCE).id == 2
    assert busy == [0]


# --- The end ------------------------------------------------------------------


def test_a_signal_handler_may_close_the_store_within_a_write(tmp_path: Path) -> None:
    def close_within(path: Path) -> str:
        store = quelmdb.open(path)
        store.submit.insert(Job("a")).result()  # there is a committer now
        finish = Counters.finish

        def close(number: int, frame: FrameType | None) -> None:
            store.close()

        def signal_and_finish(counters: Counters) -> None:
            patched.finish = finish
            signal.raise_signal(signal.SIGALRM)
            finish(counters)

        signal.signal(signal.SIGALRM, close)
        patched: Any = Counters
        patched.finish = signal_and_finish
        try:
            store.insert(Job("b"))
        except quelmdb.QuelmdbError as error:
            return type(error).__name__
        return "written"

    assert in_child(close_within, tmp_path / "s") in ("StoreClosedError", "written")
    with quelmdb.open(tmp_path / "s") as store:
        assert [job.worker for job in store.all()][:1] == ["a"]
        assert store.check() == []


def test_closing_beside_threads_that_submit_leaves_no_future_open(tmp_path: Path) -> None:
    for number in range(20):
        store = quelmdb.open(tmp_path / str(number))
        submit = store.submit
        begun = threading.Barrier(4)
        futures: list[Future[Job]] = []

        def work(
            begun: threading.Barrier = begun,
            submit: quelmdb.Submit = submit,
            futures: list[Future[Job]] = futures,
        ) -> None:
            begun.wait()
            try:
                while True:
                    futures.append(submit.insert(Job("a")))
            except StoreClosedError:
                pass

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        begun.wait()
        while len(futures) < 10 * number:
            time.sleep(0.0005)
        store.close()
        for thread in threads:
            thread.join()
        errors = [future.exception(_PATIENCE) for future in futures]
        assert {type(error) for error in errors} <= {type(None), StoreClosedError}
        with quelmdb.open(tmp_path / str(number)) as again:
            ids = {future.result().id for future in futures if future.exception() is None}
            assert set(again.all().ids()) == ids
            assert again.check() == []
