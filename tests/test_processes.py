"""Many processes and threads on one store, however the processes are started."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

import pytest

import quelmdb
from quelmdb import Job, ReadOnlyStoreError, Status, StoreBusyError, StoreClosedError
from tests.children import METHODS, in_child, in_children

pytest_plugins = ["tests.fixtures"]

_PROCESSES = 4
_THREADS = 3

Told = list[tuple[int | None, str]]


def _insert_in_threads(number: int, path: Path) -> Told:
    """Ids and arguments of what was inserted, as they were acknowledged."""
    with quelmdb.open(path) as store, ThreadPoolExecutor(_THREADS) as pool:

        def insert(thread: int) -> Told:
            names = [f"{number}.{thread}.{n}" for n in range(25)]
            return [(store.insert(Job("a", name)).id, name) for name in names]

        return list(chain.from_iterable(pool.map(insert, range(_THREADS))))


@pytest.mark.parametrize("method", METHODS)
def test_every_insert_of_many_processes_and_threads_is_there(
    method: str, store: quelmdb.Store
) -> None:
    told = in_children(_PROCESSES, _insert_in_threads, Path(store.path), method=method)
    expected = dict(chain.from_iterable(told))
    assert len(expected) == _PROCESSES * _THREADS * 25
    assert {job.id: job.arguments for job in store.all()} == expected
    assert list(store.all().ids()) == sorted(id for id in expected if id)


def _claim_until_none_is_left(number: int, path: Path) -> list[Job]:
    claimed: list[Job] = []
    with quelmdb.open(path) as store:
        while jobs := store.claim("a", "b", limit=1 + number):
            claimed += jobs
            store.complete_many(jobs[1:])
            for job in jobs[:1]:
                store.fail(job, "because")
    return claimed


@pytest.mark.parametrize("method", METHODS)
def test_each_job_is_claimed_once_by_many_processes(method: str, store: quelmdb.Store) -> None:
    jobs = store.insert_many(Job("abc"[n % 3]) for n in range(300))
    by_process = in_children(_PROCESSES, _claim_until_none_is_left, Path(store.path), method=method)
    claimed = list(chain.from_iterable(by_process))
    assert sorted(job.id or 0 for job in claimed) == [job.id for job in jobs if job.worker != "c"]
    assert len({job.claim for job in claimed}) == len(claimed)
    assert {job.attempt for job in claimed} == {1}
    owners = [{job.owner for job in claims} for claims in by_process if claims]
    assert all(len(numbers) == 1 for numbers in owners)
    assert len(set.union(*owners)) == len(owners)
    assert store.counts()[Status.QUEUED] == 100
    assert store.counts()[Status.STARTED] == 0


def test_readers_never_wait_for_a_writer_nor_a_writer_for_readers(store: quelmdb.Store) -> None:
    store.insert_many(Job("a", n) for n in range(100))
    with store.snapshot() as snapshot:
        path = Path(store.path)
        assert in_child(_write_beside_a_reader, path, method="forkserver") == 200
        assert len(snapshot.all()) == 100
        assert [job.arguments for job in snapshot.all()] == list(range(100))
    assert len(store.all()) == 200


def _write_beside_a_reader(path: Path) -> int:
    with quelmdb.open(path) as store:
        store.insert_many(Job("a", n) for n in range(100))
        return len(store.all())


class TestOpenedTwiceInOneProcess:
    def test_it_is_one_store(self, path: Path) -> None:
        with quelmdb.open(path) as one, quelmdb.open(path) as other:
            assert other.find(one.insert(Job("a"))) == one.find(1)
            assert one.claim()[0].owner == other.insert(Job("b")).claim + 1
            assert len(one.info().readers) <= 1
            assert one.complete(next(iter(other.jobs("started")))).status == "completed"

    def test_through_a_symlink_or_a_relative_path_too(
        self, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        link = tmp_path / "link"
        link.symlink_to(path, target_is_directory=True)
        monkeypatch.chdir(tmp_path)
        with (
            quelmdb.open(path) as store,
            quelmdb.open(link) as linked,
            quelmdb.open("jobs.qdb") as relative,
            quelmdb.open(bytes(path)) as in_bytes,  # type: ignore[arg-type]
        ):
            job = store.insert(Job("a"))
            assert linked.find(job) == relative.find(job) == in_bytes.find(job) == job

    def test_closing_one_handle_leaves_the_other_working(self, path: Path) -> None:
        one, other = quelmdb.open(path), quelmdb.open(path)
        job = one.insert(Job("a"))
        (claimed,) = one.claim()
        view = one.all()
        one.close()
        one.close()
        with pytest.raises(StoreClosedError):
            one.find(job)
        with pytest.raises(StoreClosedError):
            list(view)
        assert other.find(job) == claimed
        assert in_child(_rescue, path) == []  # other keeps what one claimed
        other.complete(claimed)
        other.close()
        with pytest.raises(StoreClosedError):
            other.find(job)

    @pytest.mark.parametrize("first", [False, True])
    def test_reading_only_beside_writing_is_refused(self, first: bool, path: Path) -> None:
        quelmdb.open(path).close()
        with quelmdb.open(path, readonly=first) as store:
            with pytest.raises(StoreBusyError, match="close it first"):
                quelmdb.open(path, readonly=not first)
            assert list(store.all()) == []
            with quelmdb.open(path, readonly=first) as same:
                assert same.counts() == store.counts()
        with quelmdb.open(path, readonly=not first) as store:
            assert list(store.all()) == []

    def test_another_process_may_read_only_beside_writing(self, store: quelmdb.Store) -> None:
        job = store.insert(Job("a"))
        assert in_child(_look_only, Path(store.path)) == [job]

    def test_threads_open_and_close_it_at_the_same_time(self, path: Path) -> None:
        def use(number: int) -> list[int | None]:
            ids = []
            for _ in range(20):
                with quelmdb.open(path) as store:
                    ids.append(store.insert(Job("a", number)).id)
            return ids

        with ThreadPoolExecutor(4) as pool:
            ids = sorted(id or 0 for id in chain.from_iterable(pool.map(use, range(4))))
        with quelmdb.open(path) as store:
            assert list(store.all().ids()) == ids == list(range(1, 81))


def _rescue(path: Path) -> list[Job]:
    with quelmdb.open(path) as store:
        return store.rescue()


def _look_only(path: Path) -> list[Job]:
    with quelmdb.open(path, readonly=True) as store:
        with pytest.raises(ReadOnlyStoreError):
            store.insert(Job("b"))
        return list(store.all())


def _insert_once(path: Path) -> int | None:
    with quelmdb.open(path) as store:
        return store.insert(Job("theirs")).id


def _claim_once(path: Path) -> int:
    with quelmdb.open(path) as store:
        (job,) = store.claim("a")
        return job.claim


@pytest.mark.parametrize(
    "nothing",
    [
        lambda store: store.destroy(10**6),
        lambda store: store.insert_many([]),
        lambda store: store.complete_many([]),
        lambda store: store.claim("nobody"),
        lambda store: store._commit(lambda writer: None),
        lambda store: store.submit.destroy(10**6).result(),
    ],
)
def test_numbers_are_given_once_though_a_process_has_committed_nothing_in_between(
    nothing: Callable[[quelmdb.Store], object], path: Path
) -> None:
    """LMDB numbers only transactions that change something; what is remembered of the
    counters must not outlive the one transaction of another process."""
    with quelmdb.open(path) as store:
        store.insert_many([Job("a")] * 10)
        ids, claims = [], []
        for _ in range(2):
            ids.append(store.insert(Job("ours")).id)
            nothing(store)
            ids.append(in_child(_insert_once, path))
            ids.append(store.insert(Job("ours")).id)
            (job,) = store.claim("a")
            nothing(store)
            theirs = in_child(_claim_once, path)
            (late,) = store.claim("a")
            claims += [job.claim, theirs, late.claim]
        assert ids == list(range(11, 17))
        assert claims == sorted(set(claims))
