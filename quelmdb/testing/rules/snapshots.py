"""Snapshots: one point in time, until they end, in the thread that took them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from quelmdb.errors import InvalidJobError, SnapshotEndedError, WrongThreadError
from quelmdb.job import Job
from quelmdb.persistence import JobStore
from quelmdb.reader import Snapshot
from quelmdb.status import Status
from quelmdb.testing.harness import JobStoreHarness
from quelmdb.testing.rules.helpers import found, ids
from quelmdb.testing.rules.threads import in_threads, outcomes_in_threads

USES: dict[str, Callable[[Snapshot], object]] = {
    "find": lambda snapshot: snapshot.find(1),
    "find None": lambda snapshot: snapshot.find(None),
    "started_at": lambda snapshot: snapshot.started_at(1),
    "started_at None": lambda snapshot: snapshot.started_at(None),
    "jobs": lambda snapshot: list(snapshot.jobs("queued", worker="a")),
    "all": lambda snapshot: list(snapshot.all()),
    "completed": lambda snapshot: list(snapshot.completed("a")),
    "failed": lambda snapshot: list(snapshot.failed(reverse=True)),
    "incomplete": lambda snapshot: list(snapshot.incomplete(limit=1)),
    "ids": lambda snapshot: list(snapshot.all().ids()),
    "len": lambda snapshot: len(snapshot.all()),
    "len of ids": lambda snapshot: len(snapshot.all().ids()),
    "counts": lambda snapshot: snapshot.counts(),
    "workers": lambda snapshot: snapshot.workers(),
}

each_use = pytest.mark.parametrize("use", USES.values(), ids=USES.keys())


def _change(store: JobStore) -> None:
    """Every kind of write, on a store that has five queued jobs of one worker."""
    claimed = store.claim("a", limit=3)
    store.complete(claimed[0], "done")
    store.fail(claimed[1], "oh")
    store.update(claimed[2].replace(worker="b", arguments=b"x" * 9000))
    store.destroy_many([job.id for job in store.jobs("queued", limit=1)])
    store.insert_many([Job("c")] * 100)


class SnapshotRules(JobStoreHarness):
    def test_a_snapshot_stays_as_it_was(self, store: JobStore) -> None:
        jobs = store.insert_many(Job("a", b"x" * (n * 1000)) for n in range(5))
        with store.snapshot() as snapshot:
            _change(store)
            assert list(snapshot.all()) == list(snapshot.incomplete("a")) == jobs
            assert list(snapshot.all().ids()) == ids(jobs)
            assert [snapshot.find(job) for job in jobs] == jobs
            assert snapshot.find(jobs[-1].replace(id=99)) is None
            assert len(snapshot.failed()) == len(snapshot.completed()) == 0
            assert snapshot.counts() == {**dict.fromkeys(Status, 0), Status.QUEUED: 5}
            assert snapshot.counts("c") == dict.fromkeys(Status, 0)
            assert snapshot.workers() == ["a"]
        assert len(store.all()) == 104

    def test_a_snapshot_listens_to_the_options_of_views(self, store: JobStore) -> None:
        jobs = store.insert_many(Job("ab"[n % 2], status=list(Status)[n % 6]) for n in range(60))
        with store.snapshot() as snapshot:
            store.destroy_many(jobs)
            wanted = [job for job in jobs if job.status in ("queued", "failed")]
            view = snapshot.jobs("queued", "failed", after=jobs[40].id, limit=7, reverse=True)
            assert list(view) == [job for job in wanted if job in jobs[:40]][::-1][:7]
            assert len(view) == 7

    def test_an_iteration_in_a_snapshot_does_not_see_later_writes(self, store: JobStore) -> None:
        jobs = store.insert_many([Job("a")] * 2500)
        told = []
        with store.snapshot() as snapshot:
            for job in snapshot.incomplete():
                told.append(job)
                if job.id == jobs[0].id:
                    store.destroy_many(jobs)
                    store.insert(Job("a"))
        assert told == jobs

    def test_jobs_of_a_snapshot_outlive_it(self, store: JobStore) -> None:
        store.insert(Job("a", b"x" * 9000, result="r" * 9000, error="e"))
        with store.snapshot() as snapshot:
            (job,) = snapshot.all()
        store.destroy(job)
        store.insert_many([Job("b", b"y" * 9000)] * 20)
        assert (job.arguments, job.result, job.error) == (b"x" * 9000, "r" * 9000, "e")

    def test_snapshots_of_different_times_differ(self, store: JobStore) -> None:
        with store.snapshot() as first:
            store.insert(Job("a"))
            with store.snapshot() as second:
                store.insert(Job("a"))
                assert [len(first.all()), len(second.all()), len(store.all())] == [0, 1, 2]
            assert len(first.all()) == 0

    @each_use
    def test_a_snapshot_that_has_ended_answers_nothing(
        self, store: JobStore, use: Callable[[Snapshot], object]
    ) -> None:
        store.insert(Job("a"))
        with store.snapshot() as snapshot:
            use(snapshot)
        with pytest.raises(SnapshotEndedError):
            use(snapshot)

    def test_what_was_made_in_a_snapshot_ends_with_it(self, store: JobStore) -> None:
        store.insert_many([Job("a")] * 10)
        with store.snapshot() as snapshot:
            view, numbers = snapshot.all(), snapshot.all().ids()
            jobs_half_way, ids_half_way = iter(view), iter(numbers)
            next(jobs_half_way)
            next(ids_half_way)
        for use in (
            lambda: next(jobs_half_way),
            lambda: next(ids_half_way),
            lambda: list(view),
            lambda: list(numbers),
            lambda: len(view),
            lambda: len(numbers),
            view.ids().__len__,
        ):
            with pytest.raises(SnapshotEndedError):
                use()

    def test_a_snapshot_ends_once(self, store: JobStore) -> None:
        snapshot = store.snapshot()
        snapshot.close()
        snapshot.close()
        with pytest.raises(SnapshotEndedError):
            snapshot.find(1)

    def test_a_snapshot_ends_where_its_block_raises(self, store: JobStore) -> None:
        snapshot = store.snapshot()
        with pytest.raises(KeyError), snapshot:
            raise KeyError
        with pytest.raises(SnapshotEndedError):
            snapshot.find(1)

    @each_use
    def test_a_snapshot_belongs_to_its_thread(
        self, store: JobStore, use: Callable[[Snapshot], object]
    ) -> None:
        store.insert(Job("a"))
        with store.snapshot() as snapshot:
            (outcome,) = outcomes_in_threads([lambda: use(snapshot)])
            assert isinstance(outcome, WrongThreadError)
            use(snapshot)

    def test_what_was_made_in_a_snapshot_belongs_to_its_thread(self, store: JobStore) -> None:
        store.insert_many([Job("a")] * 10)
        with store.snapshot() as snapshot:
            view = snapshot.all()
            half_way = iter(view)
            next(half_way)
            uses: list[Callable[[], object]] = [
                lambda: next(half_way),
                lambda: list(view),
                lambda: list(view.ids()),
                lambda: len(view),
            ]
            for use in uses:
                (outcome,) = outcomes_in_threads([use])
                assert isinstance(outcome, WrongThreadError)

    def test_a_snapshot_taken_in_another_thread_works_there(self, store: JobStore) -> None:
        job = store.insert(Job("a"))

        def look() -> list[Job]:
            with store.snapshot() as snapshot:
                return list(snapshot.all())

        assert in_threads([look]) == [[job]]

    @pytest.mark.parametrize("value", [0, True, 1.0, "1"], ids=repr)
    def test_a_snapshot_refuses_what_a_store_refuses(self, store: JobStore, value: Any) -> None:
        with store.snapshot() as snapshot:
            with pytest.raises(InvalidJobError):
                snapshot.find(value)
            with pytest.raises(InvalidJobError):
                list(snapshot.jobs("unknown"))
            with pytest.raises(InvalidJobError):
                list(snapshot.all(""))

    def test_a_change_of_what_a_snapshot_told_does_not_reach_the_store(
        self, store: JobStore
    ) -> None:
        job = store.insert(Job("a", {"list": []}))
        with store.snapshot() as snapshot:
            for told in (snapshot.find(job), *snapshot.all()):
                assert told is not None
                told.arguments["list"].append(1)
            assert snapshot.find(job) == job
        assert found(store, job) == job
