"""A store that was open at a fork: the child may not use it, and cannot harm the parent."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

import quelmdb
from quelmdb import ForkedStoreError, Job, Snapshot, Status
from tests.children import Child, in_child
from tests.uses import READS, STORE_READS, WRITES

pytest_plugins = ["tests.fixtures"]

_JOBS = 300


def _refusal(use: Callable[..., object], *arguments: object) -> str:
    """The text of the `ForkedStoreError` that it raises, or what it did instead."""
    try:
        return f"no error, but {use(*arguments)!r}"
    except ForkedStoreError as error:
        return str(error)
    except BaseException as error:
        return f"not ForkedStoreError, but {error!r}"


def _assert_refused(refusals: dict[str, str]) -> None:
    for name, told in refusals.items():
        assert "opened before a fork" in told, name
        assert "spawn or forkserver" in told, name


@pytest.fixture
def jobs(store: quelmdb.Store) -> list[Job]:
    return store.insert_many(Job("a", n) for n in range(_JOBS))


@pytest.mark.usefixtures("jobs")
def test_the_child_is_refused_every_kind_of_use(store: quelmdb.Store) -> None:
    uses: dict[str, Any] = {**STORE_READS, **WRITES}
    _assert_refused(in_child(lambda: {name: _refusal(use, store) for name, use in uses.items()}))
    assert len(store.all()) == _JOBS


@pytest.mark.usefixtures("jobs")
def test_the_child_is_refused_snapshots_that_were_taken_before(store: quelmdb.Store) -> None:
    with store.snapshot() as snapshot:
        _assert_refused(
            in_child(lambda: {name: _refusal(use, snapshot) for name, use in READS.items()})
        )
        assert len(snapshot.all()) == _JOBS


@pytest.mark.usefixtures("jobs")
def test_the_child_is_refused_views_that_are_half_iterated(store: quelmdb.Store) -> None:
    """Those of a store at their next page at the latest."""
    with store.snapshot() as snapshot:
        half: dict[str, Iterator[object]] = {
            "store": iter(store.all()),
            "snapshot": iter(snapshot.all()),
            "snapshot's ids": iter(snapshot.all().ids()),
        }
        for view in half.values():
            next(view)
        _assert_refused(
            in_child(lambda: {name: _refusal(list, view) for name, view in half.items()})
        )
        assert [len(list(view)) for view in half.values()] == [_JOBS - 1] * 3


@pytest.mark.usefixtures("jobs")
def test_the_child_is_refused_a_batch_that_the_parent_began(store: quelmdb.Store) -> None:
    with store.batch() as batch:
        batch.insert(Job("b"))
        _assert_refused(in_child(lambda: {"batch": _refusal(batch.__exit__, *_NO_ERROR)}))
    assert len(store.all("b")) == 1


_NO_ERROR = (None, None, None)


def _do_all_that_could_harm(store: quelmdb.Store, snapshot: Snapshot, view: Iterator[Job]) -> None:
    for use in (*STORE_READS.values(), *WRITES.values()):
        _refusal(use, store)
    snapshot.close()
    store.close()
    del view
    gc.collect()


def test_the_parent_goes_on_unharmed(store: quelmdb.Store, jobs: list[Job]) -> None:
    """Its snapshot is kept from being recycled, and its claims from being rescued."""
    (held,) = store.claim()
    with store.snapshot() as snapshot:
        view = iter(snapshot.all())
        before = list(islice(view, 10))
        for _ in range(3):
            in_child(_do_all_that_could_harm, store, snapshot, view)
        path = Path(store.path)
        assert in_child(_rewrite_everything_else, path, method="forkserver") == []
        assert before + list(view) == [held, *jobs[1:]]
        assert list(snapshot.all()) == [held, *jobs[1:]]
    assert [job.arguments for job in islice(store.all(), 1, None)] == ["new"] * (_JOBS - 1)
    assert store.complete(held).status is Status.COMPLETED


def _rewrite_everything_else(path: Path) -> list[Job]:
    """Takes every page that the reader table lets it; returns what it could rescue."""
    with quelmdb.open(path) as store:
        for _ in range(4):
            store.update_many(job.replace(arguments="new") for job in store.all() if not job.owner)
        return store.rescue()


def test_the_parent_goes_on_unharmed_when_the_child_finalises_its_interpreter(
    path: Path,
) -> None:
    """Not `os._exit`, as children of multiprocessing end, but an end with destructors."""
    script = """
import os, sys, quelmdb
from quelmdb import Job
store = quelmdb.open(sys.argv[1])
jobs = store.insert_many(Job("a", n) for n in range(100))
(held,) = store.claim()
snapshot = store.snapshot()
if os.fork() == 0:
    sys.exit()
assert os.wait()[1] == 0
for _ in range(5):
    store.update_many(job.replace(arguments="new") for job in store.all() if not job.owner)
assert list(snapshot.all()) == [held, *jobs[1:]]
snapshot.close()
store.complete(held)
assert len(store.info().owners) == 1
store.close()
"""
    subprocess.run([sys.executable, "-c", script, str(path)], check=True, timeout=60)


def test_opening_again_in_the_child_works(store: quelmdb.Store, jobs: list[Job]) -> None:
    (held,) = store.claim()
    path = Path(store.path)

    def use_in_child() -> tuple[list[Job], Job]:
        with quelmdb.open(path) as own:
            assert own.find(held) == held
            with pytest.raises(ForkedStoreError):
                store.find(held)
            return own.rescue(), own.complete(own.claim()[0])

    rescued, done = in_child(use_in_child)
    assert rescued == []
    assert store.find(done) == done
    assert done.owner == 0 != held.owner
    assert done.claim == held.claim + 1
    assert store.complete(held).id == 1


def test_opening_again_in_the_grandchild_works(store: quelmdb.Store) -> None:
    path = Path(store.path)

    def insert(generation: int) -> int:
        with quelmdb.open(path) as own:
            own.insert(Job("a", generation))
            return generation if generation == 3 else in_child(insert, generation + 1)

    assert in_child(insert, 1) == 3
    assert [job.arguments for job in store.all()] == [1, 2, 3]


def test_where_something_holds_the_old_store_the_error_names_spawn_and_forkserver(
    store: quelmdb.Store,
) -> None:
    path = Path(store.path)
    store.insert(Job("a"))
    with store.snapshot() as snapshot:
        for readonly in (False, True):
            told = in_child(_refusal, partial(quelmdb.open, path, readonly=readonly))
            assert "snapshot" in told
            assert "spawn or forkserver" in told
        assert len(snapshot.all()) == 1
    in_child(lambda: quelmdb.open(path).close())


def test_a_fork_while_threads_write_never_hangs_and_loses_nothing(store: quelmdb.Store) -> None:
    path = Path(store.path)
    acknowledged: list[int | None] = []
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            acknowledged.append(store.insert(Job("a", os.urandom(40))).id)
            len(store.all())

    threads = [threading.Thread(target=write) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(12):
            told = in_child(_use_after_fork, store, path)
            if isinstance(told, int):
                acknowledged.append(told)
            else:
                assert "spawn or forkserver" in told
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert sorted(id or 0 for id in acknowledged) == list(store.all().ids())


def _use_after_fork(inherited: quelmdb.Store, path: Path) -> int | str:
    """The id of a job that the child inserted, or why it could not open the store."""
    assert "opened before a fork" in _refusal(inherited.insert, Job("b"))
    assert "opened before a fork" in _refusal(inherited.counts)
    try:
        own = quelmdb.open(path)
    except ForkedStoreError as error:
        return str(error)
    with own:
        return own.insert(Job("b")).id or 0


def test_a_child_that_outlives_its_parent_keeps_nothing_of_the_parents_claims(path: Path) -> None:
    """POSIX locks are not inherited: the parent's death alone decides."""

    def claim_and_leave_an_orphan(pipe: Connection) -> None:
        store = quelmdb.open(path)
        store.insert(Job("a"))
        (job,) = store.claim()
        if os.fork() == 0:
            pipe.send((job, os.getpid()))
            pipe.recv()
            os._exit(0)
        threading.Event().wait()

    with Child(claim_and_leave_an_orphan) as child:
        job, orphan = child.receive()
        with quelmdb.open(path) as store:
            assert store.rescue() == []
            child.kill()
            os.kill(orphan, 0)  # it lives
            (rescued,) = store.claim()
            assert (rescued.id, rescued.attempt) == (job.id, 2)
            child.send()
