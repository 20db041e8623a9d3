"""Threads: a store may be used by any of them at the same time."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from typing import Any

from quelmdb.errors import JobExistsError, StaleClaim
from quelmdb.job import Job
from quelmdb.persistence import JobStore
from quelmdb.status import Status
from quelmdb.testing.harness import JobStoreHarness
from quelmdb.testing.rules.helpers import id_of, ids

_THREADS = 8


def outcomes_in_threads(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """What each call returns, or the error that it raises, each in a thread of its own,
    all begun at the same moment."""
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], Any]) -> Any:
        barrier.wait()
        try:
            return call()
        except Exception as error:
            return error

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


def in_threads(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """What each call returns, as above; the first error is raised."""
    outcomes = outcomes_in_threads(calls)
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
    return outcomes


class ThreadRules(JobStoreHarness):
    def test_inserts_of_many_threads_get_ids_of_their_own(self, store: JobStore) -> None:
        def insert() -> list[int]:
            return [id_of(store.insert(Job("a"))) for _ in range(25)]

        given = in_threads([insert] * _THREADS)
        assert all(each == sorted(each) for each in given)
        assert sorted(chain.from_iterable(given)) == list(store.all().ids())
        assert len(store.all()) == 25 * _THREADS

    def test_jobs_are_claimed_once_by_many_threads(self, store: JobStore) -> None:
        jobs = store.insert_many(Job("ab"[n % 2]) for n in range(400))

        def work() -> list[Job]:
            claimed: list[Job] = []
            while taken := store.claim("a", "b", limit=3):
                claimed += taken
            return claimed

        by_thread = in_threads([work] * _THREADS)
        claimed = list(chain.from_iterable(by_thread))
        assert sorted(map(id_of, claimed)) == ids(jobs)
        assert len({job.claim for job in claimed}) == len(jobs)
        for each in by_thread:
            assert ids(each) == sorted(map(id_of, each))

    def test_jobs_are_claimed_once_while_they_are_inserted_and_completed(
        self, store: JobStore
    ) -> None:
        everything_is_in = threading.Event()

        def insert() -> None:
            for _ in range(20):
                store.insert_many([Job("a")] * 5)

        def insert_all() -> None:
            in_threads([insert] * 2)
            everything_is_in.set()

        def work() -> list[int]:
            done: list[int] = []
            while True:
                was_in = everything_is_in.is_set()
                claimed = store.claim("a", limit=4)
                if not claimed and was_in:
                    return done
                done += [id_of(job) for job in store.complete_many(claimed)]

        _, *done = in_threads([insert_all, *[work] * 4])
        assert sorted(chain.from_iterable(done)) == list(store.completed().ids())
        assert store.counts() == {**dict.fromkeys(Status, 0), Status.COMPLETED: 200}

    def test_of_many_completions_one_counts(self, store: JobStore) -> None:
        store.insert(Job("a"))
        (claimed,) = store.claim("a")
        outcomes = outcomes_in_threads(
            [partial(store.complete, claimed, number) for number in range(_THREADS)]
        )
        (completed,) = [outcome for outcome in outcomes if isinstance(outcome, Job)]
        assert Counter(map(type, outcomes)) == {Job: 1, StaleClaim: _THREADS - 1}
        assert store.find(claimed) == completed

    def test_of_many_inserts_with_one_id_one_counts(self, store: JobStore) -> None:
        outcomes = outcomes_in_threads(
            [partial(store.insert, Job("a", n, id=7)) for n in range(_THREADS)]
        )
        assert Counter(map(type, outcomes)) == {Job: 1, JobExistsError: _THREADS - 1}
        assert [store.find(7)] == [outcome for outcome in outcomes if isinstance(outcome, Job)]

    def test_one_threads_error_is_not_anothers(self, store: JobStore) -> None:
        store.insert(Job("a", id=1))

        def insert() -> Counter[type]:
            return Counter(
                type(self._try(store, Job("a", id=1 if n % 2 else None))) for n in range(20)
            )

        assert in_threads([insert] * _THREADS) == [{Job: 10, JobExistsError: 10}] * _THREADS
        assert len(store.all()) == 1 + 10 * _THREADS

    def test_a_batch_is_seen_whole_or_not_at_all(self, store: JobStore) -> None:
        def write() -> None:
            for n in range(30):
                with store.batch() as batch:
                    batch.insert(Job("a", n))
                    batch.insert(Job("b", n))

        def read() -> set[tuple[int, int]]:
            seen = set()
            for _ in range(60):
                with store.snapshot() as snapshot:
                    seen.add((len(snapshot.all("a")), len(snapshot.all("b"))))
                counts = store.counts()
                seen.add((counts[Status.QUEUED] // 2, (counts[Status.QUEUED] + 1) // 2))
            return seen

        _, _, *seen = in_threads([write, write, read, read])
        assert all(a == b for a, b in chain.from_iterable(seen))
        assert len(store.all()) == 120

    def test_listings_are_in_order_while_threads_write(self, store: JobStore) -> None:
        jobs = store.insert_many([Job("a")] * 300)
        stays = {id_of(job) for job in jobs[::2]}

        def write() -> None:
            for job in jobs[1::2]:
                store.update(job.replace(status="failed"))
                store.destroy(job)

        def read() -> bool:
            for _ in range(10):
                told = [id_of(job) for job in store.all("a")]
                if told != sorted(set(told)) or not stays <= set(told):
                    return False
            return True

        assert in_threads([write, read, read]) == [None, True, True]

    @staticmethod
    def _try(store: JobStore, job: Job) -> object:
        try:
            return store.insert(job)
        except JobExistsError as error:
            return error
