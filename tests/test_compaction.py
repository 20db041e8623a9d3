"""Compaction: a store is the same behind it, and smaller."""

from __future__ import annotations

import errno
import json
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import quelmdb
from quelmdb import DiskError, Job, Status, compaction, layout
from quelmdb.environment import Superseded
from quelmdb.lockfile import LockFile
from quelmdb.maintenance.offline import repair_store
from quelmdb.opening import Opener
from tests import compacting
from tests.children import in_child
from tests.compacting import CAPACITY, fill, generations
from tests.damage import data_file
from tests.durabilities import ephemeral
from tests.repairing import root_of
from tools.app import commands

pytest_plugins = ["tests.fixtures"]
store = compacting.store

OLD_STORE = Path(__file__).parent / "data" / "store-v1"


def test_a_compacted_store_has_the_same_jobs_and_fewer_bytes(store: quelmdb.Store) -> None:
    fill(store)
    before = [job.as_dict() for job in store.all()]
    assert store.wasted() > 0.5
    compacted = store.compact()
    assert compacted.after < compacted.before / 2
    assert store.wasted() == 0
    assert [job.as_dict() for job in store.all()] == before
    assert store.paused() == ["c"]
    assert store.check() == []
    assert store.info().generation == compacted.generation == 2


def test_ids_and_claims_go_on_behind_a_compaction(store: quelmdb.Store) -> None:
    fill(store)
    last = store.insert(Job("a"))
    (claimed,) = store.claim("a")
    store.destroy(last)
    store.compact()
    assert last.id is not None
    assert store.insert(Job("a")).id == last.id + 1
    assert store.complete(claimed).status is Status.COMPLETED
    (again,) = store.claim("a")
    assert again.claim > claimed.claim


def test_a_store_is_compacted_again_and_again(store: quelmdb.Store, path: Path) -> None:
    for generation in range(2, 6):
        job = store.insert(Job("a", generation))
        assert store.compact().generation == generation
        assert store.find(job) == job
        assert generations(path) == [f"{generation:06d}"]


def test_a_snapshot_keeps_what_it_sees_until_it_ends(store: quelmdb.Store, path: Path) -> None:
    fill(store)
    with store.snapshot() as snapshot:
        jobs = list(snapshot.all())
        store.compact()
        store.destroy_many(list(store.all().ids()))
        store.compact()
        assert list(snapshot.all()) == jobs
        assert generations(path) == ["000001", "000003"]
    assert generations(path) == ["000003"]
    assert list(store.all()) == []


def test_a_view_that_is_iterated_goes_on_in_the_next_generation(store: quelmdb.Store) -> None:
    store.insert_many(Job("a", n) for n in range(2_000))
    jobs = iter(store.all())
    seen = [next(jobs).arguments for _ in range(10)]
    store.compact()
    assert seen + [job.arguments for job in jobs] == list(range(2_000))


def test_who_comes_late_to_a_generation_that_is_closed_goes_on_in_the_next_one(
    store: quelmdb.Store,
) -> None:
    late = store._opened.environment
    store.compact()
    assert late.is_gone
    with pytest.raises(Superseded):
        late.read(lambda *_: None)
    with pytest.raises(Superseded):
        late.begin_snapshot()


@pytest.mark.parametrize("count", [0, 10, 1000])
def test_a_small_store_that_is_used_wastes_nothing(count: int, store: quelmdb.Store) -> None:
    """What its next transactions need would be free again behind a compaction."""
    for _ in range(20):
        store.insert_many(Job(f"w {n % 7}", n) for n in range(count // 10))
        store.complete_many(store.claim(limit=count // 10))
        store.prune("completed", keep=count)
    assert store.wasted() < 0.1
    assert store.check() == []


def test_what_is_wasted_is_told_of_a_store_of_before_there_were_options(path: Path) -> None:
    old = path.with_name("old.qdb")
    shutil.copytree(OLD_STORE, old)
    with quelmdb.open(old, readonly=True) as store:
        assert 0 <= store.wasted() < 1
        assert store.info().free_bytes >= store.wasted() * store.info().used_bytes
    quelmdb.open(path).close()


def test_threads_write_and_read_through_compactions(store: quelmdb.Store) -> None:
    stop = threading.Event()
    done: list[int] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            while not stop.is_set():
                job = store.insert(Job("t"))
                assert store.find(job) is not None
                assert job.id is not None
                done.append(job.id)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        store.compact()
    stop.set()
    for thread in threads:
        thread.join()
    assert not errors
    assert sorted(done) == list(store.all().ids())


def test_an_ephemeral_store_grows_by_compaction(path: Path) -> None:
    with quelmdb.open(path, **ephemeral(CAPACITY)) as store:
        store.insert(Job("a"))
        store.compact(capacity=2 * CAPACITY)
        assert store.info().file_bytes == 2 * CAPACITY
        with pytest.raises(quelmdb.DurabilityError, match="can only grow"):
            store.compact(capacity=CAPACITY)
    with quelmdb.open(path) as store:
        assert store.info().file_bytes == 2 * CAPACITY
        assert len(store.all()) == 1


def test_a_store_of_which_some_cannot_be_reached_is_not_compacted_nor_backed_up(
    tmp_path: Path,
) -> None:
    """A copy would be without it, and sound: the only one of what is lost would be deleted."""
    path = tmp_path / "jobs.qdb"
    with quelmdb.open(path) as store:
        store.insert_many(Job("a", n) for n in range(1_000))
    root = root_of(path, layout.JOBS)
    with data_file(path).open("r+b") as file:
        file.seek(root * 4096 + 12)  # the end of its pointers
        end = int.from_bytes(file.read(2), sys.byteorder)
        file.seek(root * 4096 + 12)
        file.write((end - 2).to_bytes(2, sys.byteorder))
    with quelmdb.open(path) as store:
        with pytest.raises(quelmdb.CorruptStoreError, match="jobs has 1,000 entries, of which"):
            store.compact()
        with pytest.raises(quelmdb.CorruptStoreError, match="not copied"):
            store.backup(tmp_path / "copy.qdb")
    assert generations(path) == ["000001"]
    assert repair_store(path).kept == 1_000


def test_a_full_store_has_no_capacity_to_be_given(path: Path) -> None:
    with quelmdb.open(path) as store:
        with pytest.raises(quelmdb.DurabilityError):
            store.compact(capacity=CAPACITY)
        assert store.info().generation == 1


def test_a_store_open_for_reading_is_not_compacted(path: Path) -> None:
    quelmdb.open(path).close()
    with quelmdb.open(path, readonly=True) as store, pytest.raises(quelmdb.ReadOnlyStoreError):
        store.compact()


def test_it_is_told_how_much_is_copied(
    store: quelmdb.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "_TELL_SECONDS", 0.0001)
    store.insert_many(Job("a", b"x" * 100) for _ in range(3_000))
    told: list[int] = []
    compacted = store.compact(progress=told.append)
    assert told
    assert told == sorted(told)
    assert all(0 <= size <= compacted.after + CAPACITY for size in told)


def test_the_command_compacts_what_is_wasted_and_nothing_else(path: Path) -> None:
    with quelmdb.open(path) as store:
        fill(store)

    def run(*arguments: str) -> Any:
        found = CliRunner().invoke(commands, ["compact", str(path), *arguments, "--json"])
        assert found.exit_code == 0, found.output
        return json.loads(found.stdout)

    first = run("--if-wasted", "30%")
    assert first["compacted"]
    assert first["after"] < first["before"]
    assert not run("--if-wasted", "1%")["compacted"]
    assert run()["generation"] == 3


def _may_enter(path: Path) -> bool:
    return LockFile(path / layout.OWNERS_FILE, readonly=False).try_lock(layout.WRITER_BYTE)


def test_others_wait_for_a_compaction_at_the_gate(
    store: quelmdb.Store, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where they hear signals, also behind a process that writes alone; and before the
    maintenance of the store, as who opens it does: else two could wait for each other."""
    seen = []
    maintenance = Opener.maintenance

    def look(opener: Opener) -> Any:
        seen.append(in_child(_may_enter, path))
        return maintenance(opener)

    monkeypatch.setattr(Opener, "maintenance", look)
    store.insert(Job("a"))
    store.compact()
    assert seen == [False]
    assert in_child(_may_enter, path)


def test_a_compaction_that_cannot_be_sealed_leaves_no_copy(
    store: quelmdb.Store, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(directory: Path) -> None:
        raise OSError(errno.EIO, "no")

    store.insert(Job("a"))
    with monkeypatch.context() as patched:
        patched.setattr(compaction, "sync_directory", fail)
        with pytest.raises(DiskError):
            store.compact()
    assert generations(path) == ["000001"]
    assert store.insert(Job("a")).id == 2
    store.compact()
    assert len(store.all()) == 2
