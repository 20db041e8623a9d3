"""The eight listings of Que: which jobs are in them, in which order."""

from __future__ import annotations

import pytest

from quelmdb.job import Job
from quelmdb.persistence import Persistence
from quelmdb.status import Status
from quelmdb.testing.harness import PersistenceHarness
from quelmdb.testing.rules.helpers import id_of, ids
from quelmdb.values import ANY


class SomeWorker:
    """A class that stands for a worker."""

    def perform(self) -> None:
        """A function that stands for a worker."""


class ListingRules(PersistenceHarness):
    def test_a_new_store_lists_nothing(self, store: Persistence) -> None:
        assert list(store.all()) == []
        assert list(store.completed()) == []
        assert list(store.failed()) == []
        assert list(store.incomplete()) == []

    @pytest.mark.parametrize("status", Status)
    def test_each_listing_has_the_statuses_that_it_says(
        self, store: Persistence, status: Status
    ) -> None:
        job = store.insert(Job("a", status=status))
        in_listing = {
            "completed": status is Status.COMPLETED,
            "failed": status is Status.FAILED,
            "incomplete": status in (Status.SCHEDULED, Status.QUEUED, Status.STARTED),
        }
        assert list(store.all()) == [job]
        assert list(store.completed()) == [job] * in_listing["completed"]
        assert list(store.failed()) == [job] * in_listing["failed"]
        assert list(store.incomplete()) == [job] * in_listing["incomplete"]

    @pytest.mark.parametrize("status", Status)
    def test_a_worker_narrows_every_listing(self, store: Persistence, status: Status) -> None:
        mine = store.insert(Job("mine", status=status))
        store.insert(Job("other", status=status))
        store.insert(Job(None, status=status))
        assert list(store.all("mine")) == [mine]
        for listing in (store.completed, store.failed, store.incomplete):
            in_all = [job for job in listing() if job.worker == "mine"]
            assert list(listing("mine")) == in_all

    def test_a_worker_of_none_is_a_worker_like_any_other(self, store: Persistence) -> None:
        nobody = store.insert(Job(None))
        somebody = store.insert(Job("a"))
        done = store.insert(Job(None, status="completed"))
        assert list(store.all(None)) == [nobody, done]
        assert list(store.incomplete(None)) == [nobody]
        assert list(store.completed(None)) == [done]
        assert list(store.failed(None)) == []
        assert list(store.all(ANY)) == [nobody, somebody, done]

    @pytest.mark.parametrize("name", ["None", "any worker", "worker", "status", "id", "ANY"])
    def test_no_name_has_a_special_meaning(self, store: Persistence, name: str) -> None:
        store.insert(Job("a"))
        store.insert(Job(None))
        assert list(store.all(name)) == []
        job = store.insert(Job(name))
        assert list(store.all(name)) == [job]

    def test_an_unknown_worker_has_no_jobs(self, store: Persistence) -> None:
        store.insert(Job("a"))
        for listing in (store.all, store.completed, store.failed, store.incomplete):
            assert list(listing("unknown")) == []

    def test_names_that_begin_alike_are_different_workers(self, store: Persistence) -> None:
        names = ["a", "ab", "abc", "A", "a ", "ä", "a\0", "x" * 500]
        jobs = {name: store.insert(Job(name)) for name in names}
        for name, job in jobs.items():
            assert list(store.all(name)) == [job]

    def test_a_class_or_function_stands_for_its_name(self, store: Persistence) -> None:
        by_class = store.insert(Job(SomeWorker))
        by_function = store.insert(Job(SomeWorker.perform))
        assert by_class.worker == f"{__name__}:SomeWorker"
        assert by_function.worker == f"{__name__}:SomeWorker.perform"
        assert list(store.all(SomeWorker)) == list(store.all(by_class.worker)) == [by_class]
        assert list(store.incomplete(SomeWorker.perform)) == [by_function]

    def test_every_listing_is_by_ascending_id(self, store: Persistence) -> None:
        for job_id in (5, 300, 1, 70_000, 2, 2**40, 256, 255, 2**62):
            store.insert(Job("a", id=job_id, status=("queued", "failed")[job_id % 2]))
        store.update(Job("a", id=255, status="queued"))
        store.update(Job("a", id=5, status="started"))
        for listing in (store.all, store.failed, store.incomplete):
            listed = [id_of(job) for job in listing()]
            assert listed == sorted(listed)
            assert ids(listing("a")) == listed
        assert len(list(store.all())) == 9

    def test_a_destroyed_job_leaves_every_listing(self, store: Persistence) -> None:
        for status in Status:
            store.destroy(store.insert(Job("a", status=status)))
        for listing in (store.all, store.completed, store.failed, store.incomplete):
            assert list(listing()) == []
            assert list(listing("a")) == []

    def test_listings_have_whole_jobs(self, store: Persistence) -> None:
        job = store.insert(Job("a", {"n": [1, 2]}, status="failed", result=[3], error="oh"))
        (listed,) = store.failed()
        assert listed.as_dict() == job.as_dict()

    def test_a_listing_tells_what_is_stored_when_it_is_asked_for(self, store: Persistence) -> None:
        job = store.insert(Job("a"))
        assert list(store.failed()) == []
        failed = store.update(job.replace(status="failed"))
        assert list(store.failed()) == [failed]
