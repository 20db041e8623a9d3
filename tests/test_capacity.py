"""An ephemeral store that is full says so, lets what it has be worked on, and never ends a
process by a signal: all of its file was allocated when it was made."""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

import quelmdb
from quelmdb import Job, Store, StoreFullError
from quelmdb.filesystem import MIB
from tests.children import Child, in_child, in_children
from tests.damage import data_file
from tests.mounts import enter_private_mounts, mount_tmpfs, needs_mounts

pytest_plugins = ["tests.fixtures"]

DISK = 16  # MiB
CAPACITY = 8 * MIB
SMALL = 4 * MIB

OnSmallDisk = Callable[[Callable[[Path], None]], None]


@pytest.fixture
def on_small_disk(tmp_path: Path) -> OnSmallDisk:
    """Runs a test in a child, on a disk of its own, and checks the store that it leaves."""

    def run(test: Callable[[Path], None]) -> None:
        def in_namespace() -> None:
            enter_private_mounts()
            mount_tmpfs(tmp_path, DISK)
            test(tmp_path / "jobs.qdb")
            with quelmdb.open(tmp_path / "jobs.qdb", create=False) as store:
                assert store.info().durability == "ephemeral"
                assert store.check() == []

        in_child(in_namespace)

    return run


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    with quelmdb.open(path, durability="ephemeral", capacity=SMALL) as store:
        yield store


def _create(path: Path, capacity: int = CAPACITY) -> None:
    quelmdb.open(path, durability="ephemeral", capacity=capacity).close()


def _jobs(count: int, size: int = 800) -> list[Job]:
    return [Job("a", b"x" * size)] * count


def _fill(store: Store, size: int = 800) -> int:
    """Inserts until not even one job more is let in; returns how many were."""
    inserted = 0
    for at_a_time in (100, 1):
        with suppress(StoreFullError):
            while True:
                inserted += len(store.insert_many(_jobs(at_a_time, size)))
    return inserted


def _work_on(store: Store, jobs: int) -> None:
    """Takes so many jobs through every ending, one by one."""
    for number in range(jobs):
        (job,) = store.claim()
        match number % 4:
            case 0:
                store.complete(job, {"number": number})
            case 1:
                store.fail(job, "it failed " * 10)
            case 2:
                store.release(job)
            case 3:
                store.complete_many([job])


def _assert_full(store: Store) -> None:
    """Every way to add something is refused, and changes nothing."""
    before = (store.counts(), store.info().used_bytes)
    for insert in (
        lambda: store.insert_many(_jobs(200)),
        lambda: store.insert(Job("a", b"x" * 100_000)),
        lambda: store.submit.insert(Job("a", b"x" * 100_000)).result(),
        lambda: store.restore([Job("a", b"x" * 100_000, id=10**9)]),
        lambda: store.update(Job("a", b"x" * 100_000)),
        lambda: _insert_in_a_batch(store),
    ):
        with pytest.raises(StoreFullError, match="is full: it has a capacity of") as caught:
            insert()
        assert caught.value.path == str(data_file(Path(store.path)))
        assert f"{_size(store):,} bytes" in str(caught.value)
    assert (store.counts(), store.info().used_bytes) == before


def _insert_in_a_batch(store: Store) -> None:
    with store.batch() as batch:
        batch.insert_many(_jobs(2, 100_000))
        batch.destroy(1)


def _size(store: Store) -> int:
    return store.info().file_bytes


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
                        store.insert_many(_jobs(50, 700))
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
        _create(path)
        with quelmdb.open(path) as store:
            store.insert_many(_jobs(1000))
        told = in_children(6, _work_beside_others, path, method="fork")
        assert told[:3] == [5, 5, 5]
        with quelmdb.open(path) as store:
            assert len(store.completed()) == told[3] + told[4] > 0
            _fill(store)
            _work_on(store, 200)
            store.destroy_many(list(store.all().ids())[:3000])
            before = len(store.all())
            store.insert_many(_jobs(500))
            assert len(store.all()) == before + 500

    on_small_disk(test)


@needs_mounts
def test_a_disk_that_is_filled_by_others_changes_nothing(on_small_disk: OnSmallDisk) -> None:
    def test(path: Path) -> None:
        _create(path)
        _ballast(path)
        told = in_children(6, _work_beside_others, path, method="fork")
        assert told[:3] == [5, 5, 5]
        with quelmdb.open(path) as store:
            for _ in range(2):
                _fill(store)
                _work_on(store, 200)
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
        _create(path)
        with quelmdb.open(path) as store:
            _fill(store)
        (path / "boot").write_bytes(b"00000000-0000-4000-8000-000000000000")
        _ballast(path)
        with quelmdb.open(path) as store:
            _work_on(store, 100)

    on_small_disk(test)


def _insert_when_told(pipe: Connection, path: Path) -> None:
    with quelmdb.open(path) as store:
        store.insert(Job("b"))
        pipe.send("open")
        pipe.recv()
        _assert_full(store)
        pipe.send("full")
        pipe.recv()
        store.insert_many(_jobs(100))
        pipe.send("inserted")


def test_what_one_process_has_filled_is_full_for_another(path: Path) -> None:
    _create(path)
    with Child(_insert_when_told, path) as other:
        assert other.receive() == "open"
        with quelmdb.open(path) as store:
            _fill(store)
            other.send()
            assert other.receive() == "full"
            store.destroy_many(list(store.all().ids())[:1000])
            other.send()
            assert other.receive() == "inserted"


def test_a_process_that_opens_a_full_one_finds_it_full(path: Path) -> None:
    def work() -> None:
        with quelmdb.open(path) as store:
            _assert_full(store)
            _work_on(store, 100)

    _create(path)
    with quelmdb.open(path) as store:
        _fill(store)
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
                _create(path, capacity)
            assert caught.value.path == str(path)
            assert _free(path.parent) > before - 16384
        _create(path)
        with quelmdb.open(path) as store:
            assert _size(store) == CAPACITY

    on_small_disk(test)


@needs_mounts
def test_a_store_that_fits_by_a_page_is_made_or_refused_and_never_half(
    on_small_disk: OnSmallDisk,
) -> None:
    def test(path: Path) -> None:
        def create() -> None:
            with quelmdb.open(path, durability="ephemeral", capacity=CAPACITY) as store:
                _fill(store)
                _work_on(store, 20)

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
        _create(path)

    on_small_disk(test)


# --- What is refused ----------------------------------------------------------


def test_nothing_is_added_to_a_full_store(store: Store) -> None:
    _fill(store)
    _assert_full(store)
    _work_on(store, 300)
    _assert_full(store)


@pytest.mark.parametrize("size", [SMALL, 2 * SMALL])
def test_what_is_larger_than_the_store_is_refused(size: int, store: Store) -> None:
    (kept,) = store.insert_many([Job("a", "kept")])
    (job,) = store.claim()
    for write in (
        lambda: store.insert(Job("a", b"x" * size)),
        lambda: store.update(kept.replace(arguments=b"x" * size)),
        lambda: store.complete(job, b"x" * size),
        lambda: store.insert_many(_jobs(size // 1000, 1000)),
    ):
        with pytest.raises(StoreFullError, match="is full"):
            write()
    assert [job.arguments for job in store.all()] == ["kept"]
    store.complete(job, "done")


def test_what_is_larger_than_what_is_left_is_refused_and_what_is_smaller_is_not(
    store: Store,
) -> None:
    while store.info().used_bytes < MIB:
        store.insert_many(_jobs(100))
    before = store.counts()
    with pytest.raises(StoreFullError, match="is full"):
        store.insert(Job("big", b"x" * (3 * MIB // 2)))
    assert store.counts() == before
    assert store.insert(Job("big", b"x" * (MIB // 2))).arguments == b"x" * (MIB // 2)


def test_a_full_store_takes_smaller_arguments_and_refuses_larger_ones(store: Store) -> None:
    inserted = _fill(store)
    first = store.find(1)
    assert first is not None
    with pytest.raises(StoreFullError, match="is full"):
        store.update(first.replace(arguments=b"x" * 2000))
    with pytest.raises(StoreFullError, match="is full"):
        store.update(first.replace(arguments=b"x" * 100_000))
    assert store.find(1) == first
    for job in list(store.jobs(limit=500)):
        store.update(job.replace(arguments=b"y" * 400))
    for start in range(500, 2500, 100):
        jobs = list(store.jobs(after=start, limit=100))
        store.update_many(job.replace(arguments=None) for job in jobs)
    assert len(store.all()) == inserted


def test_a_large_result_is_refused_in_a_full_store_and_the_job_stays_held(store: Store) -> None:
    _fill(store)
    (job,) = store.claim()
    with pytest.raises(StoreFullError, match="is full"):
        store.complete(job, b"x" * 100_000)
    assert store.find(job) == job
    store.complete(job, b"x" * 200)


# --- What goes on -------------------------------------------------------------


@pytest.mark.parametrize("size", [100, 800, 1900, 20_000])
def test_a_full_store_carries_claims_and_completions_one_by_one(size: int, store: Store) -> None:
    inserted = _fill(store, size)
    for _ in range(min(inserted, 800)):
        (job,) = store.claim()
        store.complete(job, {"took": 1.5})
    assert len(store.all()) == inserted


@pytest.mark.parametrize("size", [0, 100, 800])
def test_a_full_store_carries_claims_and_completions_by_the_hundred(
    size: int, store: Store
) -> None:
    inserted = _fill(store, size)
    for _ in range(min(inserted // 100, 100)):
        claimed = store.claim(limit=100)
        assert len(claimed) == 100
        store.complete_many(claimed)
    assert len(store.all()) == inserted


def test_destroying_jobs_makes_room_for_others_as_often_as_one_likes(store: Store) -> None:
    fillings = []
    for at_a_time in (10_000, 1000, 100) * 3:
        fillings.append(_fill(store))
        _work_on(store, 50)
        ids = list(store.all().ids())
        for start in range(0, len(ids), at_a_time):
            store.destroy_many(ids[start : start + at_a_time])
    assert min(fillings) > 0.9 * max(fillings)


def test_a_full_store_can_be_emptied_one_by_one(store: Store) -> None:
    inserted = _fill(store, 3000)
    for job_id in list(store.all().ids()):
        store.destroy(job_id)
    assert _fill(store, 3000) > 0.9 * inserted


def test_a_snapshot_that_keeps_all_room_is_a_clear_error_and_all_goes_on_when_it_ends(
    store: Store,
) -> None:
    """What is destroyed beside it stays in the file for it."""
    ids = list(range(1, _fill(store) + 1))
    with store.snapshot() as snapshot:
        with pytest.raises(StoreFullError, match="is full"):
            _work_on(store, 10_000)
        assert list(snapshot.all().ids()) == ids
    _work_on(store, 200)
    store.destroy_many(ids[:1000])
    store.insert_many(_jobs(500))


# --- Address space ------------------------------------------------------------


def _limit_address_space(size: int) -> None:
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (size, hard))


def _address_space() -> int:
    """Bytes that this process has in use (proc(5), statm)."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


@pytest.mark.parametrize(
    "options", [{}, {"durability": "ephemeral", "capacity": 64 * MIB}], ids=["full", "ephemeral"]
)
def test_a_store_opens_and_works_under_a_limit_of_address_space(
    options: dict[str, Any], path: Path
) -> None:
    def work() -> None:
        _limit_address_space(_address_space() + 2**30)
        for _ in range(2):
            with quelmdb.open(path, **options) as store:
                store.insert_many(_jobs(1000))
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
    with quelmdb.open(path, durability="ephemeral", capacity=CAPACITY) as store:
        store.insert(Job("a"))
        assert store.check() == []


@pytest.mark.parametrize("readonly", [False, True])
def test_so_it_is_where_the_store_is_there_already(readonly: bool, path: Path) -> None:
    def work() -> None:
        _limit_address_space(_address_space() + 64 * MIB)
        with pytest.raises(StoreFullError, match=r"raise its limit \(ulimit -v\)") as caught:
            quelmdb.open(path, readonly=readonly)
        assert str(path) in str(caught.value.path)

    _create(path, 128 * MIB)
    in_child(work)


def test_every_job_of_a_full_store_can_be_worked_off(store: Store) -> None:
    """The smallest jobs, of which most are there: each leaves its mark in both indexes."""
    count = _fill(store, size=0)
    done = 0
    while jobs := store.claim(limit=20):
        done += len(store.complete_many(jobs))
    assert done == count
