"""A limit of the address space is enough for a store, or a clear error."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import pytest

import quelmdb
from quelmdb import Job, StoreFullError
from quelmdb.filesystem import MIB
from tests.children import in_child
from tests.durabilities import by_durability, ephemeral
from tests.filling import CAPACITY, create_ephemeral, jobs_of

pytest_plugins = ["tests.fixtures"]


def _limit_address_space(size: int) -> None:
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (size, hard))


def _address_space() -> int:
    """Bytes that this process has in use (proc(5), statm)."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


@by_durability(64 * MIB)
def test_a_store_opens_and_works_under_a_limit_of_address_space(
    options: dict[str, Any], path: Path
) -> None:
    def work() -> None:
        _limit_address_space(_address_space() + 2**30)
        for _ in range(2):
            with quelmdb.open(path, **options) as store:
                store.insert_many(jobs_of(1000))
                store.complete_many(store.claim(limit=100))
                assert store.check() == []
        with quelmdb.open(path, readonly=True) as store:
            assert len(store.completed()) == 200

    in_child(work)


def test_a_capacity_that_the_address_space_does_not_hold_is_a_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "jobs.qdb"

    def work() -> None:
        _limit_address_space(_address_space() + 512 * MIB)
        with pytest.raises(StoreFullError, match=r"raise its limit \(ulimit -v\)") as caught:
            quelmdb.open(path, durability="ephemeral")
        assert str(path) in str(caught.value)
        assert str(path) in str(caught.value.path)

    in_child(work)
    with quelmdb.open(path, **ephemeral(CAPACITY)) as store:
        store.insert(Job("a"))
        assert store.check() == []


@pytest.mark.parametrize("readonly", [False, True])
def test_so_it_is_where_the_store_is_there_already(readonly: bool, path: Path) -> None:
    def work() -> None:
        _limit_address_space(_address_space() + 64 * MIB)
        with pytest.raises(StoreFullError, match=r"raise its limit \(ulimit -v\)") as caught:
            quelmdb.open(path, readonly=readonly)
        assert str(path) in str(caught.value.path)

    create_ephemeral(path, 128 * MIB)
    in_child(work)
