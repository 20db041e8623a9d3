"""A process that is killed at any moment leaves a store with every acknowledged effect in it."""

from __future__ import annotations

import itertools
import random
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import pytest

import quelmdb
from quelmdb import Job, Status, StoreNotFoundError
from tests.children import Child, ChildDiedError, in_children

pytest_plugins = ["tests.fixtures"]

State = dict[int, Job]
"""Every job that is to be there, by its id."""

Message = tuple[set[int], dict[int, Job | None]]
"""Before a verb: the ids that it may touch. After it: what became of them (None: gone)."""

_BIG: Final = 6000  # bytes of arguments or a result that stand outside of the record


# --- Kills while working ------------------------------------------------------


def _work(pipe: Connection, path: Path, seed: int) -> None:
    """Random verbs, for ever, each between two messages."""
    rng = random.Random(seed)
    with quelmdb.open(path) as store:
        held: list[Job] = []
        while True:
            for message in _step(store, rng, held):
                pipe.send(message)


def _step(store: quelmdb.Store, rng: random.Random, held: list[Job]) -> Iterator[Message]:
    size = rng.choice((3, 200, _BIG))
    match rng.randrange(7):
        case 0 | 1:
            yield set(), {}
            yield _told(store.insert_many(_new(rng, size) for _ in range(rng.randrange(1, 9))))
        case 2 | 3:
            yield set(store.jobs("queued", limit=9).ids()), {}
            claimed = store.claim(limit=rng.randrange(1, 5))
            held += claimed
            yield _told(claimed)
        case 4 if held:
            some = [held.pop(rng.randrange(len(held))) for _ in range(rng.randint(1, len(held)))]
            yield _ids(some), {}
            yield _told(store.complete_many(some))
        case 5 if held:
            job = held.pop()
            yield _ids([job]), {}
            yield _told([_end(store, rng, job, size)])
        case 6:
            finished = list(store.jobs("completed", "failed", limit=4))
            yield _ids(finished), {}
            with store.batch() as batch:
                batch.destroy_many(finished[:2])
                batch.update_many(job.replace(status="queued") for job in finished[2:])
                batch.insert(_new(rng, size))
            updated, new = batch.results[1:]
            yield set(), {**dict.fromkeys(_ids(finished[:2])), **_told([*updated, new])[1]}


def _new(rng: random.Random, size: int) -> Job:
    return Job(rng.choice("ab"), rng.randbytes(rng.randrange(size)))


def _end(store: quelmdb.Store, rng: random.Random, job: Job, size: int) -> Job:
    match rng.randrange(3):
        case 0:
            return store.complete(job, result=rng.randbytes(size))
        case 1:
            return store.fail(job, "x" * size)
        case _:
            return store.release(job)


def _ids(jobs: list[Job]) -> set[int]:
    return {job.id for job in jobs if job.id}


def _told(jobs: list[Job]) -> Message:
    return set(), {job.id: job for job in jobs if job.id}


def _all_that_is_told(child: Child, messages: int) -> Iterator[Any]:
    """What it says until its death, which comes when it has said so much."""
    for count in itertools.count():
        if count == messages:
            child.kill()  # what it had told before is received still
        try:
            yield child.receive()
        except ChildDiedError:
            return


def test_every_acknowledged_effect_survives_a_kill_at_a_random_moment(
    path: Path, long: bool
) -> None:
    rng = random.Random()
    state: State = {}
    for _ in range(400 if long else 12):
        may_touch: set[int] = set()
        with Child(_work, path, rng.getrandbits(32)) as child:
            for touched, changes in _all_that_is_told(child, rng.randrange(120)):
                may_touch = touched
                for job_id, job in changes.items():
                    if job is None:
                        del state[job_id]
                    else:
                        state[job_id] = job
        with quelmdb.open(path) as store:
            assert store.check() == []
            there = {job.id: job for job in store.all() if job.id}
            for job_id, job in state.items():
                assert there.get(job_id) == job or job_id in may_touch
            assert all(job.status is Status.QUEUED for id, job in there.items() if id not in state)
            held = list(store.jobs("started").ids())
            assert [job.id for job in store.rescue()] == held  # those of the killed, at once
            state = {job.id: job for job in store.all() if job.id}
    assert state


def _insert_in_batches(pipe: Connection, path: Path, seed: int) -> None:
    rng = random.Random(seed)
    with quelmdb.open(path) as store:
        while True:
            name = rng.randbytes(8).hex()
            with store.batch() as batch:
                batch.insert_many([Job("a", name)] * 10)
                batch.insert(Job("b", [name, "x" * _BIG]))
            pipe.send(name)


def test_a_batch_is_there_whole_or_not_at_all(path: Path, long: bool) -> None:
    rng = random.Random()
    acknowledged: set[str] = set()
    for _ in range(200 if long else 8):
        with Child(_insert_in_batches, path, rng.getrandbits(32)) as child:
            acknowledged.update(_all_that_is_told(child, rng.randrange(30)))
    with quelmdb.open(path) as store:
        counts = Counter(job.arguments for job in store.all("a"))
        assert counts == dict.fromkeys((job.arguments[0] for job in store.all("b")), 10)
        assert acknowledged <= counts.keys()


# --- Kills during creation ----------------------------------------------------


def _create(pipe: Connection, path: Path) -> None:
    pipe.send(None)
    with quelmdb.open(path) as store:
        pipe.send(store.insert(Job("a")))


def test_a_kill_during_creation_leaves_what_can_be_opened(tmp_path: Path, long: bool) -> None:
    rng = random.Random()
    for number in range(500 if long else 25):
        path = tmp_path / str(number)
        acknowledged: list[Job] = []
        for _ in range(2):
            with Child(_create, path) as child:
                child.receive()
                time.sleep(rng.random() * 0.02)  # nothing tells how far it is: that is the point
                acknowledged += _all_that_is_told(child, 0)
        with quelmdb.open(path) as store:
            store.insert(Job("b"))
            assert [job for job in acknowledged if store.find(job) != job] == []
            assert store.check() == []
        shutil.rmtree(path)


# Calls of the system that make a store, in a thread of their own each (strace(1)).
_CREATING: Final = "mkdir,openat,ftruncate,pwrite64,fdatasync,fsync,rename,fcntl,fallocate"


def _can_trace() -> bool:
    return bool(shutil.which("strace")) and subprocess.run(["strace", "true"]).returncode == 0


@pytest.mark.skipif(not _can_trace(), reason="needs strace, and the right to use it")
def test_a_kill_before_any_system_call_of_creation_leaves_what_can_be_opened(
    tmp_path: Path, long: bool
) -> None:
    script = "import sys, quelmdb; quelmdb.open(sys.argv[1]).insert(quelmdb.Job('a'))"
    calls = _calls_on(tmp_path / "traced", script)
    for number, (call, occurrence) in enumerate(calls if long else calls[:: len(calls) // 8]):
        path = tmp_path / str(number)
        inject = f"inject={call}:signal=KILL:when={occurrence}"
        killed = _trace(["-e", f"trace={call}", "-e", inject], script, path)
        assert killed.returncode in (-9, 137)
        with quelmdb.open(path) as store:
            assert len(store.all()) <= 1
            store.insert(Job("b"))
            assert store.check() == []


def _calls_on(path: Path, script: str) -> list[tuple[str, int]]:
    """Each system call on a new store: its name, and the how manyth of its kind it is."""
    log = path.with_suffix(".log")
    _trace(["-y", "-o", str(log), "-e", f"trace={_CREATING}"], script, path, check=True)
    seen: dict[str, int] = {}
    calls = []
    for line in log.read_text().splitlines():
        name = re.sub(r"\(.*", "", line)
        seen[name] = seen.get(name, 0) + 1
        if str(path) in line:
            calls.append((name, seen[name]))
    return calls


def _trace(
    options: list[str], script: str, path: Path, check: bool = False
) -> subprocess.CompletedProcess[bytes]:
    command = ["strace", *options, sys.executable, "-c", script, str(path)]
    return subprocess.run(command, check=check, capture_output=True, timeout=60)


def _litter(path: Path, *names: str) -> None:
    path.mkdir()
    for name in names:
        if name == "owners.lock":
            (path / name).touch()
        else:
            (path / name).mkdir()
            (path / name / "data.mdb").write_bytes(b"garbage" * 1000)
            (path / name / "lock.mdb").write_bytes(b"garbage")
            (path / name / "more").mkdir()


@pytest.mark.parametrize(
    "names", [(), ("owners.lock",), ("000001.new",), ("owners.lock", "000001.new")]
)
def test_the_litter_of_a_broken_creation_becomes_a_store(
    names: tuple[str, ...], path: Path
) -> None:
    _litter(path, *names)
    for options in ({"create": False}, {"readonly": True}):
        with pytest.raises(StoreNotFoundError):
            quelmdb.open(path, **options)  # type: ignore[arg-type]
    with quelmdb.open(path) as store:
        assert store.insert(Job("a")).id == 1
    assert sorted(entry.name for entry in path.iterdir()) == [
        "000001",
        "owners.lock",
        "wakeup",
    ]


def _open_and_insert(number: int, path: Path) -> tuple[str, int | None]:
    with quelmdb.open(path) as store:
        return store.info().uuid, store.insert(Job("a", number)).id


def test_processes_that_create_a_store_at_the_same_time_make_one(tmp_path: Path) -> None:
    for attempt in range(8):
        path = tmp_path / str(attempt)
        told = in_children(4, _open_and_insert, path, method="fork")
        assert len({uuid for uuid, _ in told}) == 1
        assert sorted(id or 0 for _, id in told) == [1, 2, 3, 4]
        with quelmdb.open(path) as store:
            assert sorted(job.arguments for job in store.all()) == [0, 1, 2, 3]
            assert store.check() == []
