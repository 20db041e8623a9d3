"""Threads that write at the same time share a transaction, and an error is its caller's alone."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import quelmdb
from quelmdb import DiskError, Job, JobExistsError, StaleClaim, Status
from quelmdb.counters import Counters
from quelmdb.transactions import Transactions
from tests import committing
from tests.committing import THREADS, at_once, wait_for

pytest_plugins = ["tests.fixtures"]
transactions = committing.transactions


# --- Sharing ------------------------------------------------------------------


def test_threads_that_write_at_the_same_time_share_a_transaction(
    store: quelmdb.Store, transactions: list[None]
) -> None:
    futures = at_once(store, [lambda: store.insert(Job("a"))] * THREADS)
    assert sorted(future.result().id for future in futures) == list(range(1, THREADS + 1))
    assert len(transactions) == 1


def test_every_kind_of_write_shares_it(store: quelmdb.Store, transactions: list[None]) -> None:
    store.insert_many([Job("a")] * 4)
    held = store.claim("a", limit=4)
    transactions.clear()
    futures = at_once(
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
        wait_for(lambda: not store._committer._committer)


# --- Errors -------------------------------------------------------------------


def test_an_error_fails_its_own_caller_alone(
    store: quelmdb.Store, transactions: list[None]
) -> None:
    taken = store.insert(Job("a", id=50))
    (held,) = store.claim()
    store.complete(held)
    transactions.clear()
    futures = at_once(
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
    futures = at_once(
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
    futures = at_once(store, [lambda: store.insert(Job("a"))] * THREADS)
    assert sorted(future.result().id for future in futures) == list(range(1, THREADS + 1))


def test_where_nothing_can_be_written_each_is_told(
    store: quelmdb.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(counters: Counters) -> None:
        raise DiskError("the disk is gone")

    with monkeypatch.context() as patch:
        patch.setattr(Counters, "finish", fail)
        futures = at_once(store, [lambda: store.insert(Job("a"))] * THREADS)
        for future in futures:
            with pytest.raises(DiskError, match="gone"):
                future.result()
    assert store.insert(Job("a")).id == 1


def test_what_fails_behind_a_commit_makes_nothing_happen_twice(
    store: quelmdb.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(transactions: Transactions, writer: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(Transactions, "_committed", fail)
        assert store.submit.insert(Job("a")).result(10).id == 1
    assert len(store.all()) == 1
    assert store.submit.insert(Job("a")).result(10).id == 2


def test_a_thread_that_has_ended_before_its_starter_looks_has_done_its_work(
    store: quelmdb.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(threading.Event):
        """Of a starter that comes to run again when the thread is over."""

        def wait(self, timeout: float | None = None) -> bool:
            wait_for(lambda: not store._committer._committer and len(store.all()) == 1)
            return super().wait(timeout)

    monkeypatch.setattr("quelmdb.commit._IDLE_SECONDS", 0.01)
    monkeypatch.setattr("quelmdb.commit.threading.Event", Slow)
    assert store.submit.insert(Job("a")).result(10).id == 1


def test_more_than_a_transaction_takes_are_written_in_the_next_ones(
    store: quelmdb.Store, transactions: list[None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quelmdb.commit._MOST", 4)
    futures = at_once(store, [lambda: store.insert(Job("a"))] * 11)
    assert sorted(future.result(10).id for future in futures) == list(range(1, 12))
    assert len(transactions) == 3
