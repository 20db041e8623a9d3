"""A full disk: inserts are refused, what is stored can still be worked on, and once there
is space all is as before."""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

import quelmdb
from quelmdb import Job, StoreFullError
from quelmdb.filesystem import MIB
from tests.children import in_child, in_children
from tests.faults.smalldisk import limit_file_size, run_on_disk
from tests.filling import work_on
from tests.mounts import needs_mounts

_DISK: int = 24  # MiB


@pytest.fixture
def on_small_disk(tmp_path: Path) -> Callable[[Callable[[Path], None]], None]:
    """Runs a test in a child, on a disk of its own, and checks the store that it leaves."""
    return partial(run_on_disk, tmp_path, _DISK)


def _fill(store: quelmdb.Store, jobs_at_a_time: int = 200) -> int:
    """Inserts until that is refused; returns how many jobs were."""
    inserted = 0
    while True:
        try:
            inserted += len(store.insert_many([Job("a", b"x" * 800)] * jobs_at_a_time))
        except StoreFullError:
            assert len(store.all()) == inserted
            return inserted


def _ballast(path: Path) -> Path:
    """A file beside the store that takes all the space that is left."""
    ballast = path.with_name("ballast")
    with ballast.open("wb", buffering=0) as file:
        try:
            while file.write(b"x" * 4096):
                pass
        except OSError:
            pass
    return ballast


def _assert_refused(store: quelmdb.Store) -> None:
    before = store.counts()
    for insert in (
        lambda: store.insert_many([Job("a", b"x" * 800)] * 200),
        lambda: store.restore([Job("a", b"x" * 2**20, id=10**9)]),
        lambda: store.update(Job("a", b"x" * 2**20, id=1)),
        lambda: store.update(Job("a", b"x" * 2**20)),
    ):
        with pytest.raises(StoreFullError, match="no space left") as caught:
            insert()
        assert caught.value.path is not None
        assert str(store.path) in caught.value.path
    assert store.counts() == before


@needs_mounts
def test_inserts_are_refused_and_claims_and_endings_go_on(
    on_small_disk: Callable[[Callable[[Path], None]], None],
) -> None:
    def test(path: Path) -> None:
        with quelmdb.open(path) as store:
            inserted = _fill(store)
            assert inserted > 5000
            work_on(store, 800)
            _assert_refused(store)
            claimed = store.claim(limit=500)
            assert len(claimed) == 500
            store.complete_many(claimed)
            assert len(store.all()) == inserted
            work_on(store, 400)

    on_small_disk(test)


@needs_mounts
def test_destroying_jobs_makes_room_for_others(
    on_small_disk: Callable[[Callable[[Path], None]], None],
) -> None:
    def test(path: Path) -> None:
        with quelmdb.open(path) as store:
            _fill(store)
            for _ in range(5):
                _assert_refused(store)
                store.destroy_many(list(store.all().ids())[:3000])
                before = len(store.all())
                for _ in range(10):
                    store.insert_many([Job("b", b"x" * 800)] * 100)
                assert len(store.all()) == before + 1000
                _fill_up(store)
                work_on(store, 100)

    on_small_disk(test)


def _fill_up(store: quelmdb.Store) -> None:
    with suppress(StoreFullError):
        while True:
            store.insert_many([Job("c", b"x" * 800)] * 100)


@needs_mounts
def test_a_full_store_is_emptied_at_once_and_filled_again_as_often_as_one_likes(
    on_small_disk: Callable[[Callable[[Path], None]], None],
) -> None:
    def test(path: Path) -> None:
        with quelmdb.open(path) as store:
            fillings = []
            for _ in range(5):
                fillings.append(_fill(store))
                work_on(store, 50)
                store.destroy_many(list(store.all().ids()))
            assert min(fillings) > 0.8 * max(fillings)

    on_small_disk(test)


@needs_mounts
def test_all_works_again_when_there_is_space(
    on_small_disk: Callable[[Callable[[Path], None]], None],
) -> None:
    def test(path: Path) -> None:
        with quelmdb.open(path) as store:
            store.insert_many([Job("a", b"x" * 800)] * 1000)
            for _ in range(3):
                ballast = _ballast(path)
                _fill_up(store)
                work_on(store, 200)
                _assert_refused(store)
                ballast.unlink()
                store.insert_many([Job("a", b"x" * 800)] * 500)
                work_on(store, 100)

    on_small_disk(test)


@needs_mounts
def test_a_store_can_be_opened_and_worked_on_while_the_disk_is_full(
    on_small_disk: Callable[[Callable[[Path], None]], None],
) -> None:
    def test(path: Path) -> None:
        with quelmdb.open(path) as store:
            inserted = _fill(store)
        _ballast(path)
        with quelmdb.open(path, readonly=True) as store:
            assert len(store.all()) == inserted
        for _ in range(3):
            with quelmdb.open(path) as store:
                work_on(store, 100)
                _assert_refused(store)

    on_small_disk(test)


@needs_mounts
def test_readers_find_room_for_their_slots_while_the_disk_is_full(
    on_small_disk: Callable[[Callable[[Path], None]], None],
) -> None:
    """LMDB writes to its lock file through a memory map: a hole in it would be a SIGBUS."""

    def test(path: Path) -> None:
        with quelmdb.open(path) as store:
            store.insert(Job("a"))
        _ballast(path)
        with quelmdb.open(path) as store:
            for snapshot in [store.snapshot() for _ in range(1000)]:
                assert len(snapshot.all()) == 1
                snapshot.close()

    on_small_disk(test)


@needs_mounts
def test_a_lock_file_with_holes_is_filled_when_the_store_is_opened(
    on_small_disk: Callable[[Callable[[Path], None]], None],
) -> None:
    """As LMDB makes it, where a store was copied without one."""

    def test(path: Path) -> None:
        quelmdb.open(path).close()
        lock = path / "000001" / "lock.mdb"
        lock.unlink()
        with lock.open("wb") as file:
            file.truncate(65664)
        with quelmdb.open(path) as store:
            assert lock.stat().st_blocks * 512 >= 65664
            _ballast(path)
            for snapshot in [store.snapshot() for _ in range(1000)]:
                snapshot.close()

    on_small_disk(test)


@needs_mounts
def test_processes_work_together_on_a_full_disk(
    on_small_disk: Callable[[Callable[[Path], None]], None],
) -> None:
    def work(number: int, path: Path) -> int:
        with quelmdb.open(path) as store:
            inserted = 0
            for _ in range(20):
                with suppress(StoreFullError):
                    inserted += len(store.insert_many([Job("b", b"x" * 800)] * 100))
                for job in store.claim("a", limit=10):
                    store.complete(job)
            return inserted

    def test(path: Path) -> None:
        with quelmdb.open(path) as store:
            _fill(store)
        inserted = in_children(3, work, path, method="fork")
        with quelmdb.open(path) as store:
            assert len(store.completed("a")) == 3 * 20 * 10
            assert len(store.all("b")) == sum(inserted)

    on_small_disk(test)


@needs_mounts
def test_an_insert_that_is_too_much_at_once_changes_nothing(
    on_small_disk: Callable[[Callable[[Path], None]], None],
) -> None:
    def test(path: Path) -> None:
        with quelmdb.open(path) as store:
            store.insert(Job("a", "first"))
            with pytest.raises(StoreFullError):
                store.insert_many([Job("a", b"x" * 2**20)] * _DISK)
            batch = store.batch().__enter__()
            batch.destroy(1)
            batch.insert_many([Job("a", b"x" * 2**20)] * _DISK)
            with pytest.raises(StoreFullError):
                batch.__exit__(None, None, None)
            assert [job.arguments for job in store.all()] == ["first"]
            store.insert_many([Job("a", b"x" * 2**20)] * (_DISK // 3))

    on_small_disk(test)


@needs_mounts
def test_creation_on_a_full_disk_is_refused_and_works_when_there_is_space(
    on_small_disk: Callable[[Callable[[Path], None]], None],
) -> None:
    def test(path: Path) -> None:
        made = 0
        for pages in range(40):
            ballast = _ballast(path)
            os.truncate(ballast, ballast.stat().st_size - pages * 4096)
            with suppress(StoreFullError):
                in_child(lambda: quelmdb.open(path).close())
                made += 1
            ballast.unlink()
            with quelmdb.open(path) as store:
                store.insert(Job("a"))
                assert store.check() == []
            shutil.rmtree(path)
        assert 0 < made < 40
        quelmdb.open(path).close()

    on_small_disk(test)


def test_a_limit_of_file_size_is_as_a_full_disk(tmp_path: Path) -> None:
    """RLIMIT_FSIZE, `ulimit -f`."""

    def test(path: Path) -> None:
        limit_file_size(8 * 2**20)
        with quelmdb.open(path) as store:
            inserted = _fill(store)
            assert inserted > 1000
            work_on(store, 400)
            _assert_refused(store)
            store.destroy_many(list(store.all().ids())[: inserted // 2])
            store.insert_many([Job("b", b"x" * 800)] * 100)
            limit_file_size(resource.RLIM_INFINITY)
            store.insert_many([Job("b", b"x" * 800)] * 5000)
            assert store.check() == []

    in_child(test, tmp_path / "jobs.qdb")


def test_creation_under_a_small_limit_of_file_size_is_refused(tmp_path: Path) -> None:
    def test(path: Path) -> None:
        for limit in (0, 4096, 32768):
            limit_file_size(limit)
            with pytest.raises(StoreFullError):
                quelmdb.open(path)
        limit_file_size(resource.RLIM_INFINITY)
        with quelmdb.open(path) as store:
            store.insert(Job("a"))
            assert store.check() == []

    in_child(test, tmp_path / "jobs.qdb")


def test_the_reserve_stays_whatever_a_transaction_adds(tmp_path: Path) -> None:
    with quelmdb.open(tmp_path / "jobs.qdb") as store:
        jobs = store.insert_many(Job("a", n) for n in range(3000))
        with store.batch() as batch:
            for _ in range(3000):
                batch.insert(Job("b", b"x" * 1000))
        assert _reserve(store) >= 4 * MIB
        store.update_many(job.replace(arguments=b"x" * 1000) for job in jobs)
        assert _reserve(store) >= 4 * MIB
        store.update_many(Job("c", b"x" * 1000) for _ in range(3000))
        assert _reserve(store) >= 4 * MIB
        for job in store.claim(limit=100):
            store.complete(job, b"x" * 100_000)
            assert _reserve(store) >= 4 * MIB
        assert store.check() == []


def _reserve(store: quelmdb.Store) -> int:
    """What is allocated behind the used part, and what claims may have used of it."""
    info = store.info()
    return info.file_bytes - info.used_bytes + MIB
