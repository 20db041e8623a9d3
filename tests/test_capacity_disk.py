"""A full store or disk ends no process by a signal: all of the file was allocated at once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

import quelmdb
from quelmdb import Job, StoreFullError
from quelmdb.filesystem import MIB
from tests.children import Child, in_child, in_children
from tests.faults.smalldisk import run_on_disk
from tests.filling import CAPACITY, assert_full, create_ephemeral, fill, jobs_of, size_of, work_on
from tests.mounts import needs_mounts

pytest_plugins = ["tests.fixtures"]

DISK = 16  # MiB

OnSmallDisk = Callable[[Callable[[Path], None]], None]


@pytest.fixture
def on_small_disk(tmp_path: Path) -> OnSmallDisk:
    """Runs a test in a child, on a disk of its own, and checks the store that it leaves."""

    def run(test: Callable[[Path], None]) -> None:
        def then_look(path: Path) -> None:
            test(path)
            with quelmdb.open(path, create=False) as store:
                assert store.info().durability == "ephemeral"

        run_on_disk(tmp_path, DISK, then_look)

    return run


def _ballast(path: Path) -> Path:
    """A file beside the store that takes all the space that is left."""
    ballast = path.with_name("ballast")
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(b"x" * 4096):
            pass
    assert _free(path.parent) == 0
    return ballast


def _free(place: Path) -> int:
    space = os.statvfs(place)
    return space.f_bavail * space.f_frsize


# --- Several processes --------------------------------------------------------


def _work_beside_others(number: int, path: Path) -> int:
    """Inserts until that was refused often, or claims and completes, or looks."""
    with quelmdb.open(path) as store:
        match number:
            case 0 | 1 | 2:
                refused = 0
                while refused < 5:
                    try:
                        store.insert_many(jobs_of(50, 700))
                    except StoreFullError:
                        refused += 1
                return refused
            case 3:
                claimed = [job for _ in range(300) for job in store.claim()]
                return len([store.complete(job) for job in claimed])
            case 4:
                done = 0
                for _ in range(30):
                    done += len(store.complete_many(store.claim(limit=100)))
                return done
            case _:
                for _ in range(300):
                    store.counts()
                    list(store.jobs(limit=10))
                return 0


@needs_mounts
def test_processes_fill_it_and_work_on_it_at_the_same_time(on_small_disk: OnSmallDisk) -> None:
    """A child that dies of a signal (SIGBUS) is an error of `in_children`."""

    def test(path: Path) -> None:
        create_ephemeral(path)
        with quelmdb.open(path) as store:
            store.insert_many(jobs_of(1000))
        told = in_children(6, _work_beside_others, path, method="fork")
        assert told[:3] == [5, 5, 5]
        with quelmdb.open(path) as store:
            assert len(store.completed()) == told[3] + told[4] > 0
            fill(store)
            work_on(store, 200)
            store.destroy_many(list(store.all().ids())[:3000])
            before = len(store.all())
            store.insert_many(jobs_of(500))
            assert len(store.all()) == before + 500

    on_small_disk(test)


@needs_mounts
def test_a_disk_that_is_filled_by_others_changes_nothing(on_small_disk: OnSmallDisk) -> None:
    def test(path: Path) -> None:
        create_ephemeral(path)
        _ballast(path)
        told = in_children(6, _work_beside_others, path, method="fork")
        assert told[:3] == [5, 5, 5]
        with quelmdb.open(path) as store:
            for _ in range(2):
                fill(store)
                work_on(store, 200)
                store.destroy_many(list(store.all().ids()))
            for snapshot in [store.snapshot() for _ in range(500)]:
                snapshot.close()
            assert _free(path.parent) == 0

    on_small_disk(test)


@needs_mounts
def test_after_a_restart_it_is_served_although_the_disk_is_full(
    on_small_disk: OnSmallDisk,
) -> None:
    def test(path: Path) -> None:
        create_ephemeral(path)
        with quelmdb.open(path) as store:
            fill(store)
        (path / "boot").write_bytes(b"00000000-0000-4000-8000-000000000000")
        _ballast(path)
        with quelmdb.open(path) as store:
            work_on(store, 100)

    on_small_disk(test)


def _insert_when_told(pipe: Connection, path: Path) -> None:
    with quelmdb.open(path) as store:
        store.insert(Job("b"))
        pipe.send("open")
        pipe.recv()
        assert_full(store)
        pipe.send("full")
        pipe.recv()
        store.insert_many(jobs_of(100))
        pipe.send("inserted")


def test_what_one_process_has_filled_is_full_for_another(path: Path) -> None:
    create_ephemeral(path)
    with Child(_insert_when_told, path) as other:
        assert other.receive() == "open"
        with quelmdb.open(path) as store:
            fill(store)
            other.send()
            assert other.receive() == "full"
            store.destroy_many(list(store.all().ids())[:1000])
            other.send()
            assert other.receive() == "inserted"


def test_a_process_that_opens_a_full_one_finds_it_full(path: Path) -> None:
    def work() -> None:
        with quelmdb.open(path) as store:
            assert_full(store)
            work_on(store, 100)

    create_ephemeral(path)
    with quelmdb.open(path) as store:
        fill(store)
    in_child(work)


# --- Creation -----------------------------------------------------------------


@needs_mounts
def test_a_store_that_does_not_fit_is_refused_and_gives_the_space_back(
    on_small_disk: OnSmallDisk,
) -> None:
    def test(path: Path) -> None:
        before = _free(path.parent)
        for capacity in (DISK * MIB, 2 * DISK * MIB, 2**40):
            with pytest.raises(StoreFullError, match="No space left") as caught:
                create_ephemeral(path, capacity)
            assert caught.value.path == str(path)
            assert _free(path.parent) > before - 16384
        create_ephemeral(path)
        with quelmdb.open(path) as store:
            assert size_of(store) == CAPACITY

    on_small_disk(test)


@needs_mounts
def test_a_store_that_fits_by_a_page_is_made_or_refused_and_never_half(
    on_small_disk: OnSmallDisk,
) -> None:
    def test(path: Path) -> None:
        def create() -> None:
            with quelmdb.open(path, durability="ephemeral", capacity=CAPACITY) as store:
                fill(store)
                work_on(store, 20)

        made = 0
        for pages in range(0, 40, 5):
            ballast = _ballast(path)
            os.truncate(ballast, ballast.stat().st_size - CAPACITY - pages * 4096)
            with suppress(StoreFullError):
                in_child(create)
                made += 1
            ballast.unlink()
            with quelmdb.open(path, durability="ephemeral", capacity=CAPACITY) as store:
                store.destroy_many(list(store.all().ids())[:500])
                store.insert(Job("a"))
                assert store.check() == []
            shutil.rmtree(path)
        assert 0 < made < 8
        create_ephemeral(path)

    on_small_disk(test)
