"""Bad input: an error at the call, and nothing stored."""

from __future__ import annotations

from typing import Any

import pytest

from quelmdb.errors import InvalidJobError
from quelmdb.job import Job
from quelmdb.persistence import Persistence
from quelmdb.testing.harness import PersistenceHarness
from quelmdb.testing.rules.helpers import label, unchanged

NO_IDS: list[Any] = [0, -1, 2**63, 2**200, True, False, 1.0, "1", b"1", [], {}, (1,), {"id": 1}]
NO_JOBS: list[Any] = [None, 5, "job", {}, {"worker": "a"}, [], Job]
NO_WORKERS: list[Any] = ["", "x" * 501, "é" * 251, "\ud800", 5, b"a", ["a"], ("a",), object()]


class RefusalRules(PersistenceHarness):
    @pytest.mark.parametrize("value", NO_IDS, ids=repr)
    def test_find_refuses_what_is_no_id(self, store: Persistence, value: Any) -> None:
        store.insert(Job("a", id=1))
        with pytest.raises(InvalidJobError):
            store.find(value)

    @pytest.mark.parametrize("value", NO_IDS, ids=repr)
    def test_destroy_refuses_what_is_no_id(self, store: Persistence, value: Any) -> None:
        store.insert(Job("a", id=1))
        with unchanged(store), pytest.raises(InvalidJobError):
            store.destroy(value)

    @pytest.mark.parametrize("value", NO_JOBS, ids=repr)
    def test_insert_refuses_what_is_no_job(self, store: Persistence, value: Any) -> None:
        with unchanged(store), pytest.raises(InvalidJobError):
            store.insert(value)

    @pytest.mark.parametrize("value", NO_JOBS, ids=repr)
    def test_update_refuses_what_is_no_job(self, store: Persistence, value: Any) -> None:
        with unchanged(store), pytest.raises(InvalidJobError):
            store.update(value)

    @pytest.mark.parametrize("value", NO_WORKERS, ids=label)
    def test_listings_refuse_what_is_no_worker(self, store: Persistence, value: Any) -> None:
        store.insert(Job("a"))
        for listing in (store.all, store.completed, store.failed, store.incomplete):
            with pytest.raises(InvalidJobError):
                list(listing(value))

    @pytest.mark.parametrize("value", NO_WORKERS, ids=label)
    def test_no_job_can_have_such_a_worker(self, store: Persistence, value: Any) -> None:
        with unchanged(store), pytest.raises(InvalidJobError):
            store.insert(Job(value))

    def test_a_store_works_on_after_an_error(self, store: Persistence) -> None:
        bad: Any = None
        with pytest.raises(InvalidJobError):
            store.insert(bad)
        job = store.insert(Job("a"))
        assert list(store.all()) == [job]
