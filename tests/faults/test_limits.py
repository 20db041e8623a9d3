"""Where address space, threads or slots for readers are short: it is told clearly, what can go
on does, and with more of them all works again."""

from __future__ import annotations

import asyncio
import resource
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

import quelmdb
import quelmdb.aio
from quelmdb import Job, Store, StoreError, StoreFullError, TooManyReadersError, engine
from quelmdb.filesystem import MIB
from tests.children import Child, in_child
from tests.durabilities import DURABILITIES
from tests.faults.figures import Tell
from tests.faults.smalldisk import assert_tells

pytest_plugins = ["tests.fixtures"]


def _limit_address_space(size: int) -> None:
    """To `size` bytes beside what this process has from the one that it was forked from."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + size, hard))


@pytest.mark.parametrize("gibibytes", [1, 2, 8])
def test_in_a_small_address_space_the_store_opens_and_works(gibibytes: int, path: Path) -> None:
    """`ulimit -v`, as batch systems set it: the usual map has 1 TiB."""

    def work() -> int:
        _limit_address_space(gibibytes * 2**30)
        with quelmdb.open(path) as store:
            store.insert_many(Job("a", b"x" * 1000) for _ in range(5000))
            store.complete_many(store.claim(limit=1000))
            assert store.check() == []
            return len(store.all())

    assert in_child(work) == 5000


def _with_a_map_of(size: int, pipe: Connection, path: Path) -> None:
    """Inserts 4 MiB whenever it is told to, in a process with such a map."""
    engine._MAP_SIZES = (size,)  # type: ignore[misc]
    with quelmdb.open(path) as store:
        while True:
            try:
                pipe.send(len(store.insert_many([Job("a", b"x" * MIB)] * 4)))
            except StoreFullError as error:
                pipe.send(str(error))
            pipe.recv()


def _small(pipe: Connection, path: Path) -> None:
    _with_a_map_of(64 * MIB, pipe, path)


def _usual(pipe: Connection, path: Path) -> None:
    _with_a_map_of(2**40, pipe, path)


def test_a_file_that_outgrows_a_small_map_is_a_clear_error_and_no_harm_to_others(
    path: Path,
) -> None:
    with Child(_small, path) as small, Child(_usual, path) as usual:
        for child in (small, usual):
            assert child.receive() == 4
        for _ in range(18):
            usual.send()
            assert usual.receive() == 4
        small.send()
        told = small.receive()
        assert "ulimit -v" in told
        assert str(path) in told
        usual.send()
        assert usual.receive() == 4
    with quelmdb.open(path) as store:
        assert len(store.all()) == 84


def test_a_map_that_is_full_is_a_clear_error(path: Path) -> None:
    with Child(_small, path) as small:
        told: Any = None
        while not isinstance(told, str):
            told = small.receive()
            small.send()
        assert "ulimit -v" in told
    with quelmdb.open(path) as store:
        store.insert(Job("a"))
        assert len(store.all()) > 4


# --- Address space for more than one map ---------------------------------------


def test_compaction_finds_address_space_beside_the_map_that_is_there(path: Path) -> None:
    """Also beside an old one, which a snapshot keeps."""

    def work() -> None:
        _limit_address_space(2**30)
        with quelmdb.open(path) as store:
            store.insert_many(Job("a", b"x" * 1000) for _ in range(5000))
            for _ in range(5):
                with store.snapshot() as snapshot:
                    store.compact()
                    store.insert(Job("b", b"x" * 1000))
                    assert len(snapshot.all()) == len(store.all()) - 1
            store.insert_many(Job("a", b"x" * 1000) for _ in range(5000))
            assert store.check() == []

    in_child(work)


def _compact(path: Path, times: int) -> None:
    with quelmdb.open(path) as store:
        for _ in range(times):
            store.compact()


def test_who_has_no_address_space_for_the_next_generation_goes_there_later(path: Path) -> None:
    def work() -> None:
        with quelmdb.open(path) as store:
            store.insert(Job("a"))
            in_child(_compact, path, 1)
            _limit_address_space(8 * MIB)
            for use in (store.counts, lambda: store.insert(Job("b")), store.snapshot):
                with pytest.raises(
                    StoreFullError, match=r"raise its limit \(ulimit -v\)"
                ) as caught:
                    use()
                assert caught.value.path == str(path / "000002" / "data.mdb")
            _limit_address_space(2**30)
            assert len(store.all()) == 1
            store.insert(Job("c"))
            assert store.check() == []

    in_child(work)


def test_a_compaction_without_address_space_leaves_all_as_it_was(path: Path) -> None:
    options: dict[str, Any] = {"durability": "ephemeral", "capacity": 64 * MIB}

    def work() -> None:
        with quelmdb.open(path, **options) as store:
            store.insert_many(Job("a", n) for n in range(100))
            before = list(store.all())
            for limit in (0, 16, 63, 65, 127):
                _limit_address_space(limit * MIB)
                with pytest.raises(StoreFullError, match="ulimit -v") as caught:
                    store.compact(128 * MIB)
                assert str(path) in (caught.value.path or "")
                assert list(store.all()) == before
                assert {entry.name for entry in path.iterdir() if entry.is_dir()} == {"000001"}
            store.insert(Job("b"))
            _limit_address_space(2**30)
            assert store.compact(128 * MIB).generation == 2
            assert len(store.all()) == 101

    in_child(work)


def test_of_many_stores_as_many_are_opened_as_find_address_space(
    tmp_path: Path, figure: Tell
) -> None:
    def work() -> int:
        _limit_address_space(2**30)
        stores: list[Store] = []

        def open_all() -> None:
            while True:
                stores.append(quelmdb.open(tmp_path / f"{len(stores)}.qdb"))

        with pytest.raises(StoreFullError, match="ulimit -v"):
            open_all()
        count = len(stores)
        for store in stores:
            store.insert_many(Job("a", b"x" * 1000) for _ in range(100))
        stores.pop(0).close()
        stores.append(quelmdb.open(tmp_path / "another.qdb"))
        for store in stores:
            store.insert(Job("b"))
            assert store.check() == []
            store.close()
        return count

    count = in_child(work)
    assert count > 4
    figure(f"{count} stores in 1 GiB of address space, the next one refused")


# --- Threads --------------------------------------------------------------------


@contextmanager
def _no_new_threads() -> Iterator[None]:
    """As where the limit of a user's processes (`ulimit -u`) is reached."""

    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        yield


def test_a_write_for_which_no_thread_can_be_started_says_so_and_changes_nothing(
    store: Store,
) -> None:
    with _no_new_threads():
        for number in range(10):
            with pytest.raises(StoreError, match="can't start new thread") as caught:
                store.submit.insert(Job("a", number))
            assert caught.value.path == store.path
            assert store.path in str(caught.value)
            store.insert(Job("b"))  # who finds nobody else writing writes by himself
    assert len(store.all("a")) == 0
    assert store.submit.insert(Job("c")).result().id == 11


def test_threads_that_write_at_once_without_a_committer_are_done_or_told_so(
    store: Store, long: bool, figure: Tell
) -> None:
    each = 2_000 if long else 200

    def insert(began: threading.Barrier) -> tuple[int, int]:
        done = refused = 0
        began.wait()
        for number in range(each):
            try:
                store.insert(Job("a", number))
                done += 1
            except StoreError as error:
                assert_tells(error, store.path, "can't start new thread")
                refused += 1
        return done, refused

    began = threading.Barrier(5)
    with ThreadPoolExecutor(4) as threads:
        futures = [threads.submit(insert, began) for _ in range(4)]
        with _no_new_threads():
            began.wait()
            told = [future.result() for future in futures]
    done, refused = (sum(numbers) for numbers in zip(*told, strict=True))
    assert len(store.all()) == done
    assert done + refused == 4 * each
    store.submit.insert(Job("b")).result()
    assert store.check() == []
    figure(f"4 threads: {done:,} inserts done, {refused:,} refused for want of a thread")


def test_a_wait_of_asyncio_goes_on_without_a_thread(path: Path) -> None:
    """It looks by itself, once a second, and hears of others as soon as there are threads."""

    async def work() -> None:
        async with await quelmdb.aio.open(path) as store:
            with _no_new_threads():
                assert not await store.wait(timeout=0.01)
                assert not await store.wait(timeout=0.01)
                with pytest.raises(StoreError, match="can't start new thread"):
                    await store.insert(Job("a"))
            waiting = asyncio.create_task(store.wait(timeout=60))
            await asyncio.sleep(0)
            await store.insert(Job("a"))
            assert await waiting

    asyncio.run(work())


# --- Slots for readers ----------------------------------------------------------


def _hold_slots(pipe: Connection, path: Path, count: int) -> None:
    with quelmdb.open(path) as store:
        snapshots = [store.snapshot() for _ in range(count)]
        pipe.send(len(snapshots))
        pipe.recv()


@pytest.mark.parametrize("durability", DURABILITIES)
def test_slots_that_other_processes_have_taken_are_free_again_when_these_have_died(
    durability: str, path: Path, figure: Tell
) -> None:
    with quelmdb.open(path, **DURABILITIES[durability]) as store:
        store.insert(Job("a"))
        with Child(_hold_slots, path, 512) as one, Child(_hold_slots, path, 512) as other:
            assert (one.receive(), other.receive()) == (512, 512)
            for use in (store.counts, store.claim, store.snapshot, store.compact, store.check):
                with pytest.raises(TooManyReadersError, match="reader slots are taken") as caught:
                    use()
                assert caught.value.path == str(path / "000001" / "data.mdb")
            store.insert(Job("b"))  # to write takes no slot
            other.kill()
            assert len(store.all()) == 2  # who finds none looks for the dead
            assert [job.worker for job in store.claim(limit=2)] == ["a", "b"]
            # Those of one process are still taken, those of the other free, but for one.
            snapshots = [store.snapshot() for _ in range(511)]
            with pytest.raises(TooManyReadersError):
                snapshots += [store.snapshot() for _ in range(2)]
            for snapshot in snapshots:
                snapshot.close()
        assert store.compact().generation == 2
        assert store.check() == []
    figure(f"{durability}: 1,024 slots taken by two processes, 512 free again at the death of one")
