"""A process whose memory ends at any allocation: the call raises, the store is as before it or
as behind it, and all goes on."""

from __future__ import annotations

import gc
import os
import random
import resource
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import pytest

import quelmdb
from quelmdb import Job, QuelmdbError, Store
from quelmdb.filesystem import MIB
from tests.children import Child, ChildDiedError, in_child
from tests.durabilities import DURABILITIES, full_and_ephemeral
from tests.faults.every_verb import VERBS, Verb, assert_none_lost, prepared, seed
from tests.faults.figures import Tell
from tests.faults.seeds import seeded

try:  # CPython's own means of testing: makes the n-th allocation fail
    _testcapi: Any = import_module("_testcapi")
except ImportError:
    _testcapi = None

pytest_plugins = ["tests.fixtures"]

pytestmark = pytest.mark.skipif(not _testcapi, reason="CPython was built without its tests")

# Where memory ends in the middle of them, threads and futures of CPython wait for ever.
_VERBS: Final = {name: verb for name, verb in VERBS.items() if not name.startswith("submit")}

_STEP: Final = 97  # allocations between two tries, in the short form


def _fails_at(allocation: int, deed: Callable[[], object]) -> bool:
    """Whether it raises where that allocation of it fails. What it raises tells of memory; a
    panic is what cbor2, which is made with PyO3, makes of it."""
    error: BaseException | None = None
    _testcapi.set_nomemory(allocation, allocation + 1)
    try:
        deed()
    except BaseException as raised:
        error = raised
    finally:
        _testcapi.remove_mem_hooks()
    if error is None:
        return False
    _assert_of_memory(error)
    return True


def _assert_of_memory(error: BaseException) -> None:
    is_ours = isinstance(error, QuelmdbError) and "memory" in str(error).lower()
    is_of_thread = "thread" in str(error) or "lock" in str(error)
    is_of_path = "PathLike" in str(error)  # what os.open says, since it could not look
    is_panic = type(error).__name__ == "PanicException"
    is_of_call = "positional argument" in str(error)  # of Python 3.13, which lost them
    is_of_python = is_of_thread or is_of_path or is_of_call
    of_memory = isinstance(error, MemoryError) or is_ours or is_of_python or is_panic
    assert of_memory, repr(error)


def _quietly() -> None:
    """Before allocations fail: no panic is printed, and no garbage collected in between."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    os.environ.pop("RUST_BACKTRACE", None)  # without memory it waits for itself
    gc.disable()


def _stored(store: Store) -> list[tuple[object, ...]]:
    """What there is, but for times and claims, which differ from try to try."""
    return [
        (job.id, job.worker, job.arguments, job.status, job.attempt, job.result, job.error)
        for job in store.all()
    ]


def _made_by(verb: Verb, path: Path) -> list[tuple[object, ...]]:
    """What there is behind a verb."""
    with quelmdb.open(path) as store:
        verb.act(store, prepared(store, verb))
        return _stored(store)


def _go_on(store: Store) -> None:
    job = store.insert(Job("afterwards", {"n": 1}))
    (claimed,) = store.claim("afterwards")
    assert claimed.id == job.id
    store.complete(claimed, "done")
    assert store.check() == []


def _fail_with(pipe: Connection, path: Path, verb: Verb, first: int, step: int) -> None:
    """Tells each allocation that is to fail, and whether all was done nevertheless: what failed
    came behind the commit. At the end None: there are no more."""
    _quietly()
    rng = random.Random(first)
    copy = shutil.copytree(path, path.with_name("expected.qdb"))
    after = _made_by(verb, copy)
    shutil.rmtree(copy)
    allocation: int | None = first
    while allocation is not None:
        shutil.copytree(path, copy)
        allocation = _fail_on(pipe, copy, verb, allocation, after, step, rng)
        shutil.rmtree(copy)
    pipe.send(None)


def _fail_on(
    pipe: Connection,
    path: Path,
    verb: Verb,
    allocation: int,
    after: list[tuple[object, ...]],
    step: int,
    rng: random.Random,
) -> int | None:
    """Fails until something is done; returns the next allocation, if there is one."""
    with quelmdb.open(path) as store:
        jobs = prepared(store, verb)
        jobs_before = list(store.all())
        before = found = _stored(store)
        while found == before:
            pipe.send(allocation)
            if not _fails_at(allocation, lambda: verb.act(store, jobs)):
                _go_on(store)
                return None
            found = _stored(store)
            allocation += rng.randrange(1, 2 * step)
        pipe.send("done")
        if verb.steps:
            assert_none_lost(jobs_before, store.all())
        else:
            assert found == after
        _go_on(store)
    return allocation


def _failures(path: Path, verb: Verb, step: int, rng: random.Random) -> Counter[str]:
    """What came of a verb whose allocations failed. py-lmdb does not look at all of its own:
    that may be the end of the process, and of nothing else."""
    became: Counter[str] = Counter()
    told: object = rng.randrange(1, step + 1)
    while isinstance(told, int):
        with Child(_fail_with, path, verb, told, step) as child:
            try:
                while (told_now := child.receive()) is not None:
                    if told_now == "done":
                        became["done"] += 1
                    else:
                        told = told_now
                        became["failed"] += 1
                became["failed"] -= 1  # the last one did not
                told = None
            except ChildDiedError as death:
                assert death.exit_code == -signal.SIGSEGV  # noqa: PT017
                became["died"] += 1
                assert isinstance(told, int)
                told += 1
        for copy in path.parent.glob("expected.qdb"):
            with quelmdb.open(copy) as store:
                _go_on(store)
            shutil.rmtree(copy)
    return became


@pytest.mark.parametrize("durability", DURABILITIES)
def test_memory_that_ends_at_any_allocation_of_a_verb_leaves_it_undone_or_done(
    durability: str, long: bool, path: Path, figure: Tell
) -> None:
    rng = seeded()
    became: Counter[str] = Counter()
    seed(path, **DURABILITIES[durability])
    for name, verb in _VERBS.items():
        try:
            became += _failures(path, verb, 1 if long else _STEP, rng)
        except BaseException as error:
            error.add_note(f"in {name}")
            raise
    figure(
        f"{durability}: {len(_VERBS)} verbs failed at {became['failed']:,} allocations: nothing "
        f"was done, or {became['done']} times all; {became['died']} times py-lmdb crashed"
    )


@pytest.mark.parametrize("durability", DURABILITIES)
def test_a_store_that_could_not_be_opened_for_want_of_memory_is_opened_later(
    durability: str, long: bool, path: Path, figure: Tell
) -> None:
    rng = seeded()

    def test() -> int:
        _quietly()
        opened: list[Store] = []
        failed = 0
        step = 3 if long else _STEP
        allocation = rng.randrange(1, step + 1)
        while _fails_at(allocation, lambda: opened.append(quelmdb.open(path))):
            failed += 1
            allocation += rng.randrange(1, 2 * step)
            gc.collect()  # tracebacks hold what was half open
            descriptors = len(os.listdir("/proc/self/fd"))
            with quelmdb.open(path) as store:
                assert store.counts()
            assert len(os.listdir("/proc/self/fd")) == descriptors
        with opened.pop() as store:
            _go_on(store)
        return failed

    seed(path, **DURABILITIES[durability])
    failed = in_child(test)
    figure(f"{durability}: opening failed at {failed:,} allocations")


def _write_within(memory: int, path: Path) -> bool:
    """Whether there is memory for a large write."""
    _quietly()
    limits = resource.getrlimit(resource.RLIMIT_DATA)
    with quelmdb.open(path) as store:
        before = _stored(store)
        resource.setrlimit(resource.RLIMIT_DATA, (_data() + memory, limits[1]))
        try:
            store.insert_many(Job(f"a {n % 100}", b"x" * 500) for n in range(20_000))
        except BaseException as error:
            resource.setrlimit(resource.RLIMIT_DATA, limits)
            _assert_of_memory(error)
            assert _stored(store) == before
            _go_on(store)
            return False
        resource.setrlimit(resource.RLIMIT_DATA, limits)
        _go_on(store)
    return True


@pytest.mark.parametrize("durability", DURABILITIES)
def test_a_limit_of_memory_in_the_middle_of_a_large_write_leaves_it_undone(
    durability: str, long: bool, path: Path, figure: Tell
) -> None:
    """RLIMIT_DATA, `ulimit -d`. cbor2, which is written in Rust, ends a process that has no
    memory for it."""
    options = full_and_ephemeral(68 * MIB)[durability]
    with quelmdb.open(path, **options) as store:
        store.insert_many(Job("before", n) for n in range(100))
        stored = len(store.all())
    refused = died = memory = 0
    while True:
        try:
            if in_child(_write_within, memory, path, method="spawn"):  # none to spare
                break
            refused += 1
            stored += 1  # it has gone on
        except ChildDiedError as death:
            assert death.exit_code == -signal.SIGABRT  # noqa: PT017
            died += 1
        with quelmdb.open(path) as store:
            assert len(store.all()) == stored
            assert store.check() == []
        memory += MIB // 8 if long else 8 * MIB
    with quelmdb.open(path) as store:
        assert len(store.all()) == stored + 20_001
    assert refused + died
    figure(f"{durability}: refused under {refused} limits; under {died} cbor2 ended the process")


def _data() -> int:
    """Bytes that count for RLIMIT_DATA."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmData:")[2].split()[0]) * 1024
