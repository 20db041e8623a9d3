"""The file of an ephemeral store has its capacity from the beginning, and never another size."""

from __future__ import annotations

import shutil
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

import quelmdb
from quelmdb import DurabilityError, Job, ReadOnlyStoreError
from quelmdb.durability import LARGEST_CAPACITY, SMALLEST_CAPACITY, Wanted, wanted
from tests import ephemerals
from tests.children import Child, in_child
from tests.damage import data_file, used_bytes
from tests.durabilities import CAPACITY, EPHEMERAL, FULL
from tests.ephemerals import allocated, size_of

pytest_plugins = ["tests.fixtures"]
ephemeral = ephemerals.ephemeral


# --- Capacity -----------------------------------------------------------------


def test_the_capacity_is_1_gib_where_none_is_named() -> None:
    assert wanted("ephemeral", None).for_new() == ("ephemeral", 2**30)


def test_the_capacity_that_is_not_named_is_allocated(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quelmdb.durability.DEFAULT_CAPACITY", 2 * CAPACITY)
    quelmdb.open(path, durability="ephemeral").close()
    assert size_of(path) == 2 * CAPACITY


@pytest.mark.parametrize(
    ("capacity", "rounded"),
    [
        (SMALLEST_CAPACITY, SMALLEST_CAPACITY),
        (CAPACITY + 1, CAPACITY + 2**16),
        (CAPACITY + 2**16, CAPACITY + 2**16),
    ],
)
def test_a_capacity_is_rounded_up_to_64_kib(capacity: int, rounded: int, path: Path) -> None:
    with quelmdb.open(path, durability="ephemeral", capacity=capacity) as store:
        assert store.info().file_bytes == size_of(path) == rounded
    for same in (capacity, rounded, None):
        with quelmdb.open(path, durability="ephemeral", capacity=same) as store:
            store.insert(Job("a"))
        quelmdb.open(path, capacity=same).close()


def test_the_largest_capacity_is_a_tebibyte() -> None:
    assert wanted("ephemeral", LARGEST_CAPACITY) == Wanted("ephemeral", 2**40)


@pytest.mark.parametrize(
    "capacity",
    [0, -1, 1, SMALLEST_CAPACITY - 1, LARGEST_CAPACITY + 1, 2**63, True, 2.0**23, "8M", b"8"],
)
@pytest.mark.parametrize("durability", ["ephemeral", None])
def test_a_capacity_that_cannot_be_is_refused(
    durability: Any, capacity: Any, tmp_path: Path
) -> None:
    with pytest.raises(DurabilityError, match="between 4,194,304 and 1,099,511,627,776") as caught:
        quelmdb.open(tmp_path / "jobs.qdb", durability=durability, capacity=capacity)
    assert caught.value.found == capacity
    assert not (tmp_path / "jobs.qdb").exists()


@pytest.mark.parametrize("durability", ["full", None])
def test_a_full_store_is_not_made_with_a_capacity(durability: Any, tmp_path: Path) -> None:
    with pytest.raises(DurabilityError, match="only an ephemeral store has a capacity"):
        quelmdb.open(tmp_path / "jobs.qdb", durability=durability, capacity=CAPACITY)
    assert not (tmp_path / "jobs.qdb").exists()


# --- Its file -----------------------------------------------------------------


def test_all_of_the_capacity_is_allocated_when_the_store_is_made(path: Path) -> None:
    with quelmdb.open(path, **EPHEMERAL) as store:
        assert size_of(path) == CAPACITY
        assert allocated(path) >= CAPACITY
        store.insert_many(Job("a", b"x" * 200) for _ in range(1000))
    assert size_of(path) == CAPACITY


@pytest.mark.parametrize("length", ["whole", "used part"])
def test_a_copy_with_holes_is_filled_when_it_is_opened(
    length: str, ephemeral: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.qdb"
    shutil.copytree(ephemeral, copy)
    content = data_file(ephemeral).read_bytes()[: used_bytes(ephemeral)]
    with data_file(copy).open("wb") as file:
        file.write(content)
        file.truncate(CAPACITY if length == "whole" else len(content))
    assert allocated(copy) < CAPACITY
    with quelmdb.open(copy, readonly=True) as store:
        assert len(store.all()) == 1000
    with quelmdb.open(copy) as store:
        assert size_of(copy) == CAPACITY
        assert allocated(copy) >= CAPACITY
        store.insert_many(Job("a", b"x" * 200) for _ in range(1000))
        assert store.check() == []


@pytest.mark.parametrize("options", [{}, {"readonly": True}, EPHEMERAL], ids=str)
def test_a_second_process_never_resizes_it(options: dict[str, Any], ephemeral: Path) -> None:
    def work() -> None:
        with quelmdb.open(ephemeral, **options) as store:
            with suppress(ReadOnlyStoreError):
                store.insert(Job("b"))
            assert size_of(ephemeral) == CAPACITY

    with quelmdb.open(ephemeral) as store:
        in_child(work)
        assert size_of(ephemeral) == CAPACITY
        store.insert_many(Job("a", b"x" * 200) for _ in range(1000))


@pytest.mark.parametrize("asked", [FULL, {"capacity": 2 * CAPACITY}, {"capacity": 2**40}], ids=str)
def test_nor_does_one_that_asks_for_another_size(asked: dict[str, Any], ephemeral: Path) -> None:
    def work() -> None:
        with pytest.raises(DurabilityError):
            quelmdb.open(ephemeral, **asked)

    with quelmdb.open(ephemeral) as store:
        in_child(work)
        assert size_of(ephemeral) == CAPACITY
        store.insert_many(Job("a", b"x" * 200) for _ in range(1000))


# --- A process that dies ------------------------------------------------------


def test_what_a_killed_process_had_acknowledged_is_there(path: Path) -> None:
    def work(pipe: Connection) -> None:
        with quelmdb.open(path, **EPHEMERAL) as store:
            while True:
                inserted = store.insert(Job("a", b"x" * 300)).id
                (job,) = store.claim("a")
                pipe.send((inserted, store.complete(job).id))

    with Child(work) as child:
        told = [child.receive() for _ in range(200)]
        child.kill()
        while child.pipe.poll():
            with suppress(EOFError):
                told.append(child.pipe.recv())
                continue
            break
    with quelmdb.open(path) as store:
        assert {inserted for inserted, _ in told} <= set(store.all().ids())
        assert {completed for _, completed in told} <= set(store.completed().ids())
        assert len(told) >= 200
