"""A process without file descriptors: what is open goes on, what needs another one says so,
nothing is left half done, and with descriptors all works again."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

import quelmdb
import quelmdb.aio
from quelmdb import Job, Status, Store, StoreError
from tests.children import in_child
from tests.durabilities import DURABILITIES, EPHEMERAL
from tests.faults.every_verb import VERBS, all_of, prepared, seed
from tests.faults.figures import Tell
from tests.faults.smalldisk import assert_tells
from tests.jobs_for_runner import Noop
from tests.runners import Runner, eventually

pytest_plugins = ["tests.fixtures"]

_MOST: Final = 40  # that anything here needs


@contextmanager
def descriptors_left(count: int) -> Iterator[None]:
    """Within it this process has so many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    null = os.open(os.devnull, os.O_RDONLY)
    held = []
    try:
        highest = max(map(int, os.listdir("/proc/self/fd")))
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1 + _MOST, hard))
        try:
            while True:
                held.append(os.dup(null))
        except OSError:
            pass
        for _ in range(count):
            os.close(held.pop())
        yield
    finally:
        for descriptor in (null, *held):
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _open_now() -> int:
    return len(os.listdir("/proc/self/fd"))


def _refused_until_there_are_enough(deed: Callable[[], object], path: Path) -> int:
    """Tries with none, one, two..., and returns how many were too few. Each refusal says what
    is missing and where, and lets go of what it has opened."""
    for count in range(_MOST):
        before = _open_now()
        with descriptors_left(count):
            try:
                deed()
            except StoreError as error:
                assert_tells(error, path.parent, "too many open files")
            else:
                return count
        assert _open_now() == before
    raise AssertionError("it needs too many")


# --- Opening ------------------------------------------------------------------


@pytest.mark.parametrize("durability", DURABILITIES)
@pytest.mark.parametrize("what", ["create", "open", "readonly"])
def test_a_store_is_opened_with_enough_descriptors_and_refused_with_less(
    what: str, durability: str, path: Path, figure: Tell
) -> None:
    def deed() -> None:
        options = {"readonly": True} if what == "readonly" else DURABILITIES[durability]
        quelmdb.open(path, **options).close()

    if what != "create":
        quelmdb.open(path, **DURABILITIES[durability]).close()
    needed = in_child(_refused_until_there_are_enough, deed, path)
    assert needed > 1
    figure(f"{what}, {durability}: refused with less than {needed} descriptors")


def test_asyncio_is_told_so_too(path: Path) -> None:
    async def open_it() -> None:
        async with await quelmdb.aio.open(path) as store:
            await store.insert(Job("a"))

    async def work() -> None:
        await asyncio.to_thread(lambda: None)  # has a thread that needs none
        with descriptors_left(0), pytest.raises(StoreError, match="open files"):
            await open_it()
        await open_it()

    in_child(lambda: asyncio.run(work()))


# --- What is open -------------------------------------------------------------


def _use_all_of(store: Store) -> None:
    for name, verb in VERBS.items():
        try:
            verb.act(store, prepared(store, verb))
        except BaseException as error:
            error.add_note(f"in {name}")
            raise
        store.insert_many(Job(f"worker {n % 3}", n) for n in range(30))
    with store.snapshot() as snapshot:
        assert len(snapshot.all()) == len(list(store.all()))
    assert store.wait(timeout=0)
    assert store.info().counts == store.counts()


@pytest.mark.parametrize("durability", DURABILITIES)
def test_a_store_that_is_open_needs_no_descriptors(durability: str, path: Path) -> None:
    def work() -> None:
        with quelmdb.open(path) as store:
            with descriptors_left(0):
                _use_all_of(store)
                for deed in (
                    store.check,
                    store.compact,
                    lambda: store.backup(path.with_name("backup.qdb")),
                ):
                    before = all_of(store)
                    with pytest.raises(StoreError, match="open files"):
                        deed()
                    assert all_of(store) == before
            assert store.check() == []
            store.compact()
            store.backup(path.with_name("backup.qdb"))

    seed(path, **DURABILITIES[durability])
    in_child(work)


@pytest.mark.parametrize("durability", DURABILITIES)
@pytest.mark.parametrize("what", ["compact", "backup", "check"])
def test_maintenance_with_too_few_descriptors_leaves_all_as_it_was(
    what: str, durability: str, path: Path, figure: Tell
) -> None:
    target = path.with_name("copy.qdb")

    def work() -> int:
        with quelmdb.open(path) as store:
            before = all_of(store)
            deeds: dict[str, Callable[[], object]] = {
                "compact": store.compact,
                "backup": lambda: store.backup(target),
                "check": store.check,
            }

            def deed() -> None:
                try:
                    deeds[what]()
                finally:
                    assert all_of(store) == before

            needed = _refused_until_there_are_enough(deed, path)
            assert store.check() == []
            store.compact()
            assert all_of(store) == before
            names = {entry.name for entry in path.iterdir() if entry.is_dir()}
            assert names == {f"{store.info().generation:06}"}
        if what == "backup":
            with quelmdb.open(target, create=False) as copy:
                assert copy.check() == []
                assert len(copy.all()) == len(before[0])
        return needed

    seed(path, **DURABILITIES[durability])
    needed = in_child(work)
    figure(f"{what}, {durability}: refused with less than {needed} descriptors")


# --- Moving on ----------------------------------------------------------------


def _compact(path: Path) -> None:
    with quelmdb.open(path) as store:
        store.compact()


@pytest.mark.parametrize("durability", DURABILITIES)
@pytest.mark.parametrize("how", ["read", "write", "submit", "snapshot", "wait"])
def test_who_has_no_descriptors_for_the_next_generation_is_told_and_goes_there_later(
    how: str, durability: str, path: Path, figure: Tell
) -> None:
    def work() -> int:
        with quelmdb.open(path) as store:
            count = len(store.all())
            deeds: dict[str, Callable[[], object]] = {
                "read": store.counts,
                "write": lambda: store.insert(Job("a")),
                "submit": lambda: store.submit.insert(Job("a")).result(),
                "snapshot": lambda: store.snapshot().close(),
                "wait": lambda: store.wait(timeout=0),
            }
            in_child(_compact, path)
            needed = _refused_until_there_are_enough(deeds[how], path)
            assert len(store.all()) == count + (how in ("write", "submit"))
            assert store.info().generation == 2
            assert [entry.name for entry in path.iterdir() if entry.is_dir()] == ["000002"]
            _use_all_of(store)
            return needed

    seed(path, **DURABILITIES[durability])
    needed = in_child(work)
    assert needed
    figure(f"{how}, {durability}: refused with less than {needed} descriptors")


# --- Runners --------------------------------------------------------------------


def _let_have(pid: int, more: int) -> None:
    """Lets a process have so many descriptors above the last one that it has."""
    last = max(int(number) for number in os.listdir(f"/proc/{pid}/fd"))
    hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (last + 1 + more, hard))


def test_a_runner_without_descriptors_goes_on_and_survives_a_compaction(path: Path) -> None:
    with quelmdb.open(path, **EPHEMERAL) as store:

        def done() -> int:
            return store.counts()[Status.COMPLETED]

        def workers() -> set[int]:
            return {owner.pid for owner in store.info().owners if owner.alive} - {os.getpid()}

        store.insert_many(Noop.job(n) for n in range(100))
        with Runner(path, f"{Noop.__module__}:Noop", processes=1, log_level="INFO") as runner:
            eventually(lambda: done() == 100 and len(workers()) == 1)
            before = workers()
            for pid in before:
                _let_have(pid, 0)
            store.insert_many(Noop.job(n) for n in range(100))
            eventually(lambda: done() == 200)
            store.compact()  # to move on takes descriptors
            store.insert_many(Noop.job(n) for n in range(100))
            runner.logs("too many open files")
            for pid in before & workers():
                _let_have(pid, 50)
            eventually(lambda: done() == 300)
            runner.signal(signal.SIGTERM)
            code, log = runner.end()
        assert code == 0, log
        assert store.check() == []
