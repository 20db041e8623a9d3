"""Which ids jobs get, which ones callers may choose, and what find and destroy make of them."""

from __future__ import annotations

import pytest

from quelmdb.errors import InvalidJobError, JobExistsError
from quelmdb.job import Job
from quelmdb.persistence import Persistence
from quelmdb.testing.harness import PersistenceHarness
from quelmdb.testing.rules.helpers import found, id_of, ids, unchanged
from quelmdb.values import MAX_CHOSEN_ID


class IdRules(PersistenceHarness):
    def test_initialize_changes_nothing_on_a_store_that_is_ready(self, store: Persistence) -> None:
        job = store.insert(Job("a", {"n": 1}))
        store.initialize()
        assert list(store.all()) == [job]
        assert id_of(store.insert(Job("a"))) > id_of(job)

    def test_an_insert_without_id_gets_one(self, store: Persistence) -> None:
        job = store.insert(Job("a"))
        assert id_of(job) > 0
        assert store.find(job.id) == job

    def test_the_given_job_stays_as_it_was(self, store: Persistence) -> None:
        given = Job("a")
        store.insert(given)
        assert given == Job("a")

    def test_ids_ascend_in_the_order_of_inserts(self, store: Persistence) -> None:
        given = [id_of(store.insert(Job("a"))) for _ in range(20)]
        assert given == sorted(set(given))

    def test_an_id_is_never_given_out_twice(self, store: Persistence) -> None:
        seen = set()
        for _ in range(5):
            job = store.insert(Job("a"))
            assert job.id not in seen
            seen.add(job.id)
            store.destroy(job)

    def test_the_next_id_is_above_all_that_were_destroyed(self, store: Persistence) -> None:
        jobs = [store.insert(Job("a")) for _ in range(3)]
        for job in jobs:
            store.destroy(job)
        assert id_of(store.insert(Job("a"))) > id_of(jobs[-1])

    def test_a_chosen_id_is_kept(self, store: Persistence) -> None:
        assert store.insert(Job("a", id=7)).id == 7
        assert ids(store.all()) == [7]

    def test_the_next_id_is_above_a_chosen_one(self, store: Persistence) -> None:
        store.insert(Job("a", id=1000))
        assert id_of(store.insert(Job("a"))) > 1000

    def test_the_next_id_is_above_a_chosen_one_that_was_destroyed(self, store: Persistence) -> None:
        store.insert(Job("a", id=1000))
        store.destroy(1000)
        assert id_of(store.insert(Job("a"))) > 1000

    def test_a_chosen_id_in_a_gap_does_not_lower_the_next(self, store: Persistence) -> None:
        store.insert(Job("a", id=1000))
        store.insert(Job("a", id=7))
        assert id_of(store.insert(Job("a"))) > 1000

    def test_an_id_may_be_chosen_again_once_it_is_free(self, store: Persistence) -> None:
        job = store.insert(Job("a"))
        store.destroy(job)
        assert store.insert(Job("b", id=job.id)).id == job.id
        assert found(store, job).worker == "b"

    def test_an_update_of_a_missing_id_raises_the_next(self, store: Persistence) -> None:
        store.update(Job("a", id=1000))
        assert id_of(store.insert(Job("a"))) > 1000

    def test_an_update_without_id_gets_the_next(self, store: Persistence) -> None:
        first = store.insert(Job("a", id=1000))
        second = store.update(Job("b"))
        third = store.insert(Job("c"))
        assert id_of(first) < id_of(second) < id_of(third)
        assert ids(store.all()) == ids([first, second, third])

    def test_insert_refuses_an_id_that_is_taken(self, store: Persistence) -> None:
        job = store.insert(Job("a", {"n": 1}))
        with unchanged(store), pytest.raises(JobExistsError) as caught:
            store.insert(Job("b", {"n": 2}, id=job.id))
        assert caught.value.job_id == job.id

    def test_insert_refuses_a_job_that_was_inserted(self, store: Persistence) -> None:
        job = store.insert(Job("a"))
        with unchanged(store), pytest.raises(JobExistsError):
            store.insert(job)

    def test_the_largest_id_that_may_be_chosen_works(self, store: Persistence) -> None:
        store.insert(Job("a", id=MAX_CHOSEN_ID))
        above = store.insert(Job("b"))
        assert id_of(above) > MAX_CHOSEN_ID
        assert ids(store.all()) == [MAX_CHOSEN_ID, above.id]
        assert store.find(above) == above
        assert store.update(above.replace(worker="c")).worker == "c"
        store.destroy(above)
        assert ids(store.all()) == [MAX_CHOSEN_ID]
        assert id_of(store.insert(Job("d"))) > id_of(above)

    def test_insert_refuses_an_id_above_the_largest_to_choose(self, store: Persistence) -> None:
        with unchanged(store), pytest.raises(InvalidJobError):
            store.insert(Job("a", id=MAX_CHOSEN_ID + 1))

    def test_update_refuses_a_missing_id_above_the_largest_to_choose(
        self, store: Persistence
    ) -> None:
        with unchanged(store), pytest.raises(InvalidJobError):
            store.update(Job("a", id=MAX_CHOSEN_ID + 1))

    def test_a_refused_id_does_not_raise_the_next(self, store: Persistence) -> None:
        with pytest.raises(InvalidJobError):
            store.insert(Job("a", id=MAX_CHOSEN_ID + 1))
        assert id_of(store.insert(Job("a"))) < MAX_CHOSEN_ID

    def test_find_takes_an_id_or_a_job_of_which_only_the_id_counts(
        self, store: Persistence
    ) -> None:
        job = store.insert(Job("a", {"n": 1}))
        assert store.find(job.id) == job
        assert store.find(job) == job
        assert store.find(Job("other", "arguments", id=job.id, status="failed")) == job

    def test_find_of_what_is_not_stored_is_none(self, store: Persistence) -> None:
        job = store.insert(Job("a"))
        assert store.find(id_of(job) + 1) is None
        assert store.find(2**63 - 1) is None

    def test_none_and_a_job_without_id_find_nothing(self, store: Persistence) -> None:
        store.insert(Job("a"))
        assert store.find(None) is None
        assert store.find(Job("a")) is None

    def test_destroy_takes_an_id_or_a_job_of_which_only_the_id_counts(
        self, store: Persistence
    ) -> None:
        first, second, third = (store.insert(Job("a")) for _ in range(3))
        store.destroy(id_of(first))
        assert ids(store.all()) == ids([second, third])
        store.destroy(Job("other", id=second.id, status="failed"))
        assert list(store.all()) == [third]
        assert store.find(first) is None

    def test_destroy_of_what_is_not_stored_changes_nothing(self, store: Persistence) -> None:
        job, gone = store.insert(Job("a")), store.insert(Job("a"))
        store.destroy(gone)
        with unchanged(store):
            store.destroy(gone)
            store.destroy(id_of(gone))
            store.destroy(id_of(gone) + 1)
            store.destroy(2**63 - 1)
        assert list(store.all()) == [job]

    def test_none_and_a_job_without_id_destroy_nothing(self, store: Persistence) -> None:
        store.insert(Job("a"))
        with unchanged(store):
            store.destroy(None)
            store.destroy(Job("a"))
