"""A process that is killed while it makes a store leaves one, or what becomes one."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import pytest

import quelmdb
from quelmdb import Job, StoreNotFoundError
from tests.children import Child, ChildDiedError, in_children
from tests.durabilities import by_durability
from tests.faults.figures import Tell
from tests.faults.seeds import seeded

pytest_plugins = ["tests.fixtures"]


def _create(pipe: Connection, path: Path, options: dict[str, Any]) -> None:
    pipe.send(None)
    with quelmdb.open(path, **options) as store:
        pipe.send(store.insert(Job("a")))


@by_durability()
def test_a_kill_during_creation_leaves_what_can_be_opened(
    options: dict[str, Any], tmp_path: Path, long: bool, figure: Tell
) -> None:
    rng = seeded()
    stores = 250 if long else 10
    told = 0
    for number in range(stores):
        path = tmp_path / str(number)
        acknowledged: list[Job] = []
        for _ in range(2):
            with Child(_create, path, options) as child:
                child.receive()
                # Nothing tells how far it is: that is the point.
                time.sleep(rng.random() * rng.choice((0.02, 0.1)))
                child.kill()
                with suppress(ChildDiedError):
                    acknowledged.append(child.receive())
        with quelmdb.open(path, **options) as store:
            store.insert(Job("b"))
            assert [job for job in acknowledged if store.find(job) != job] == []
            assert store.check() == []
        told += len(acknowledged)
        shutil.rmtree(path)
    figure(
        f"{2 * stores:,} kills of a process that makes a store; {told:,} told of a write, 0 lost"
    )


# Calls of the system that make a store, in a thread of their own each (strace(1)).
_CREATING: Final = "mkdir,openat,ftruncate,pwrite64,fdatasync,fsync,rename,fcntl,fallocate"


def _can_trace() -> bool:
    return bool(shutil.which("strace")) and subprocess.run(["strace", "true"]).returncode == 0


@pytest.mark.skipif(not _can_trace(), reason="needs strace, and the right to use it")
@by_durability()
def test_a_kill_before_any_system_call_of_creation_leaves_what_can_be_opened(
    options: dict[str, Any], tmp_path: Path, long: bool, figure: Tell
) -> None:
    script = f"import sys, quelmdb; quelmdb.open(sys.argv[1], **{options}).insert(quelmdb.Job('a'))"
    every = _calls_on(tmp_path / "traced", script)
    calls = every if long else every[:: len(every) // 4]
    for number, (call, occurrence) in enumerate(calls):
        path = tmp_path / str(number)
        inject = f"inject={call}:signal=KILL:when={occurrence}"
        killed = _trace(["-e", f"trace={call}", "-e", inject], script, path)
        assert killed.returncode in (-9, 137)
        with quelmdb.open(path, **options) as store:
            assert len(store.all()) <= 1
            store.insert(Job("b"))
            assert store.check() == []
    figure(f"a kill before each of {len(calls)} of {len(every)} system calls; all could be opened")


def _calls_on(path: Path, script: str) -> list[tuple[str, int]]:
    """Each system call on a new store: its name, and the how manyth of its kind it is."""
    log = path.with_suffix(".log")
    _trace([], script, path.with_name("first"), check=True)  # Python keeps what it compiles
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
