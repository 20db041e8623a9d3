"""insert_many, update_many and destroy_many: in order, and all of it or nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from quelmdb.codec import DEFAULT_LIMIT
from quelmdb.errors import EncodeError, InvalidJobError, JobExistsError, TooLargeError
from quelmdb.job import Job
from quelmdb.persistence import JobStore
from quelmdb.testing.clock import ManualClock
from quelmdb.testing.harness import JobStoreHarness
from quelmdb.testing.rules.helpers import found, id_of, ids, label, unchanged
from quelmdb.values import MAX_CHOSEN_ID


class _CallersError(Exception):
    """Raised by the caller's own iterable."""


def _breaks_after(*jobs: Any) -> Iterator[Any]:
    yield from jobs
    raise _CallersError


class ManyRules(JobStoreHarness):
    def test_insert_many_returns_the_jobs_as_stored_in_the_order_given(
        self, store: JobStore, clock: ManualClock
    ) -> None:
        jobs = store.insert_many(Job("a", {"n": n}) for n in range(100))
        assert [job.arguments["n"] for job in jobs] == list(range(100))
        assert ids(jobs) == sorted({id_of(job) for job in jobs})
        assert {job.created_at for job in jobs} == {job.updated_at for job in jobs} == {clock.time}
        assert list(store.all()) == jobs

    def test_many_of_nothing_is_nothing(self, store: JobStore) -> None:
        store.insert(Job("a"))
        with unchanged(store):
            assert store.insert_many([]) == []
            assert store.update_many(iter(())) == []
            store.destroy_many([])
            assert store.restore([]) == []

    def test_insert_many_mixes_chosen_and_given_ids(self, store: JobStore) -> None:
        given, chosen, next_given = store.insert_many([Job("a"), Job("b", id=500), Job("c")])
        assert chosen.id == 500
        assert id_of(given) < 500 < id_of(next_given)

    def test_insert_many_may_fill_gaps_backwards(self, store: JobStore) -> None:
        assert ids(store.insert_many(Job("a", id=n) for n in (30, 20, 10))) == [30, 20, 10]
        assert ids(store.all("a")) == ids(store.incomplete()) == [10, 20, 30]

    @pytest.mark.parametrize(
        ("bad", "error"),
        [
            (Job("a", id=1000), JobExistsError),
            (Job("a", id=5), JobExistsError),
            (Job("a", id=MAX_CHOSEN_ID + 1), InvalidJobError),
            (Job("a", {1, 2}), EncodeError),
            (Job("a", result=[object()]), EncodeError),
            (Job("a", bytes(DEFAULT_LIMIT)), TooLargeError),
            (None, InvalidJobError),
            ("job", InvalidJobError),
        ],
        ids=label,
    )
    def test_insert_many_inserts_none_where_one_is_refused(
        self, store: JobStore, bad: Any, error: type[Exception]
    ) -> None:
        store.insert(Job("a", id=1000))
        with unchanged(store), pytest.raises(error):
            store.insert_many([Job("new worker", b"x" * 5000), Job("a", id=5), bad, Job("a")])
        assert store.workers() == ["a"]

    def test_workers_of_a_refused_call_leave_no_trace(self, store: JobStore) -> None:
        for _ in range(2):
            with pytest.raises(EncodeError):
                store.insert_many([Job("first"), Job("second", object())])
            with pytest.raises(JobExistsError):
                store.insert_many([Job("first"), Job("second", id=5), Job("third", id=5)])
        jobs = store.insert_many([Job("third"), Job("second"), Job("first")])
        assert store.workers() == ["first", "second", "third"]
        for job in jobs:
            assert list(store.all(job.worker)) == [job]

    def test_insert_many_refuses_a_chosen_id_that_it_has_just_given(self, store: JobStore) -> None:
        first = store.insert(Job("a"))
        with unchanged(store), pytest.raises(JobExistsError):
            store.insert_many([Job("a", id=id_of(first) + 1), Job("a", id=id_of(first) + 1)])

    def test_update_many_updates_in_the_order_given(
        self, store: JobStore, clock: ManualClock
    ) -> None:
        jobs = store.insert_many([Job("a", 1), Job("a", 2)])
        clock.advance(1_000)
        updated = store.update_many(
            [
                jobs[1].replace(arguments="second"),
                Job("b", "missing", id=700),
                Job("c", "without id"),
                jobs[0].replace(status="failed"),
                jobs[1].replace(arguments="second again"),
            ]
        )
        assert [job.updated_at for job in updated] == [clock.time] * 5
        assert [job.arguments for job in updated] == [
            "second",
            "missing",
            "without id",
            1,
            "second again",
        ]
        assert id_of(updated[2]) > 700
        assert list(store.all()) == [updated[3], updated[4], updated[1], updated[2]]

    @pytest.mark.parametrize(
        ("bad", "error"),
        [
            (Job("a", id=MAX_CHOSEN_ID + 1), InvalidJobError),
            (Job("a", {1, 2}), EncodeError),
            (Job("a", result="\ud800"), EncodeError),
            (5, InvalidJobError),
        ],
        ids=label,
    )
    def test_update_many_updates_none_where_one_is_refused(
        self, store: JobStore, bad: Any, error: type[Exception]
    ) -> None:
        job = store.insert(Job("a", b"x" * 5000))
        with unchanged(store), pytest.raises(error):
            store.update_many([job.replace(status="failed"), Job("new"), bad])
        assert store.workers() == ["a"]

    def test_destroy_many_takes_ids_jobs_and_none(self, store: JobStore) -> None:
        jobs = store.insert_many([Job("a")] * 5)
        store.destroy_many(
            iter([jobs[3], None, jobs[0].id, 999_999, jobs[3].id, Job("a"), jobs[0]])
        )
        assert list(store.all()) == [jobs[1], jobs[2], jobs[4]]

    def test_a_view_can_be_destroyed_or_updated_as_it_is(self, store: JobStore) -> None:
        store.insert_many(Job("a", status=("failed", "queued")[n % 2]) for n in range(1000))
        store.destroy_many(store.failed(limit=100).ids())
        store.update_many(job.replace(status="queued") for job in store.failed())
        assert len(store.failed()) == 0
        assert len(store.incomplete()) == 900
        store.destroy_many(store.all())
        assert len(store.all()) == 0

    @pytest.mark.parametrize("bad", [0, -1, True, 1.0, "1", 2**63, object], ids=repr)
    def test_destroy_many_destroys_none_where_one_is_no_id(self, store: JobStore, bad: Any) -> None:
        job = store.insert(Job("a", id=1))
        with unchanged(store), pytest.raises(InvalidJobError):
            store.destroy_many([job, bad])

    def test_an_iterable_that_raises_changes_nothing(self, store: JobStore) -> None:
        job = store.insert(Job("a"))
        (claimed,) = store.claim("a")
        with unchanged(store), pytest.raises(_CallersError):
            store.insert_many(_breaks_after(Job("a"), Job("b")))
        with unchanged(store), pytest.raises(_CallersError):
            store.update_many(_breaks_after(job.replace(worker="b")))
        with unchanged(store), pytest.raises(_CallersError):
            store.destroy_many(_breaks_after(job))
        with unchanged(store), pytest.raises(_CallersError):
            store.complete_many(_breaks_after(claimed))
        with unchanged(store), pytest.raises(_CallersError):
            store.complete_many([claimed, claimed], _breaks_after(1))
        for many in (store.cancel_many, store.retry_many):
            with unchanged(store), pytest.raises(_CallersError):
                many(_breaks_after(claimed))
        with unchanged(store), pytest.raises(_CallersError):
            store.restore(_breaks_after(Job("a", id=77)))

    def test_an_iterable_may_use_the_store(self, store: JobStore) -> None:
        store.insert_many(Job("a", n) for n in range(10))
        copies = store.insert_many(Job("b", found(store, job).arguments) for job in store.all("a"))
        assert [job.arguments for job in copies] == list(range(10))

    def test_ids_of_a_refused_call_may_be_given_but_never_twice(self, store: JobStore) -> None:
        stored = store.insert_many([Job("a")] * 3)
        with pytest.raises(JobExistsError):
            store.insert_many([Job("a"), Job("a"), Job("a", id=stored[0].id)])
        stored += store.insert_many([Job("a")] * 3)
        assert ids(store.all()) == ids(stored) == sorted({id_of(job) for job in stored})
