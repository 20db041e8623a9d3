"""Repairing a store in its place."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import quelmdb
from quelmdb import Job, StoreBusyError, layout, registry
from quelmdb.maintenance.offline import repair_store
from tests.children import Child, ChildDiedError
from tests.damage import data_file, put_meta, raw
from tests.steps import die_at_step
from tools.app import commands

pytest_plugins = ["tests.fixtures"]

OPTIONS: list[dict[str, Any]] = [
    {"durability": "full"},
    {"durability": "ephemeral", "capacity": 8 * 2**20},
]


def _damaged(path: Path, **options: Any) -> list[Job]:
    """A store of ten jobs of which the fourth is damaged; all the others."""
    with quelmdb.open(path, **options) as store:
        store.insert_many(Job("a", {"n": n}) for n in range(10))
        jobs = [job for job in store.all() if job.id != 4]
    with raw(path) as content:
        record = content.record(4)
        content.put_record(4, record[:-1] + bytes([record[-1] ^ 1]))
    return jobs


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: options["durability"])
def test_a_repaired_store_has_every_whole_job_and_is_sound(
    options: dict[str, Any], path: Path
) -> None:
    jobs = _damaged(path, **options)
    repaired = repair_store(path)
    assert (repaired.kept, repaired.set_aside) == (9, 1)
    with quelmdb.open(path) as store:
        assert list(store.all()) == jobs
        assert store.check() == []
        assert store.info().generation == 2
        assert store.insert(Job("a")).id == 11
    assert (path / "000001.damaged" / "data.mdb").exists()
    assert repaired.aside is not None
    assert repaired.aside.parent == path


def _hold(pipe: Any, path: Path) -> None:
    with quelmdb.open(path, readonly=True):
        pipe.send("open")
        pipe.recv()


def test_a_store_that_is_in_use_is_not_repaired(path: Path) -> None:
    quelmdb.open(path).close()
    with Child(_hold, path, method="spawn") as child:
        assert child.receive() == "open"
        with pytest.raises(quelmdb.StoreBusyError, match="in use"):
            repair_store(path)
    with quelmdb.open(path), pytest.raises(quelmdb.StoreBusyError, match="in use"):
        repair_store(path)


def test_a_store_that_is_repaired_is_neither_opened_nor_repaired_by_another_thread(
    path: Path,
) -> None:
    with quelmdb.open(path) as store:
        store.insert(Job("a"))
    refused: list[str] = []

    def meanwhile(done: int, of: int) -> None:
        for use in (quelmdb.open, repair_store):
            with pytest.raises(StoreBusyError) as found:
                use(path)
            refused.append(str(found.value))

    repair_store(path, progress=meanwhile)
    assert refused
    with quelmdb.open(path) as store:
        assert len(store.all()) == 1
        assert store.check() == []


class _Interrupted(set[tuple[int, int]]):
    def add(self, key: tuple[int, int]) -> None:
        super().add(key)
        raise KeyboardInterrupt


def test_a_repair_that_is_interrupted_at_its_beginning_keeps_the_store_closed_no_longer(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quelmdb.open(path).close()
    monkeypatch.setattr(registry, "_kept_closed", _Interrupted())
    with pytest.raises(KeyboardInterrupt):
        repair_store(path)
    quelmdb.open(path).close()


def test_what_keeps_a_repair_from_its_files_is_said_in_the_librarys_errors(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = path.with_name("file")
    file.touch()
    with pytest.raises(quelmdb.NotAStoreError, match="is a file"):
        repair_store(file)
    quelmdb.open(path).close()

    def refuse(*ignored: object, **options: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("quelmdb.maintenance.offline.LockFile", refuse)
    with pytest.raises(quelmdb.StorePermissionError):
        repair_store(path)


def test_where_there_is_no_store_there_is_nothing_to_repair(tmp_path: Path) -> None:
    with pytest.raises(quelmdb.StoreNotFoundError):
        repair_store(tmp_path / "none")
    with pytest.raises(quelmdb.StoreNotFoundError):
        repair_store(tmp_path)
    assert list(tmp_path.iterdir()) == []


def _hold_the_old_one(pipe: Any, path: Path) -> None:
    with quelmdb.open(path, readonly=True) as store, store.snapshot():
        pipe.send("open")
        pipe.recv()


def test_an_old_generation_that_was_left_is_never_taken_for_the_store(path: Path) -> None:
    """Whoever read it has died: nobody has deleted it yet."""
    with quelmdb.open(path) as store:
        store.insert(Job("a", "old"))
    with Child(_hold_the_old_one, path, method="spawn") as child:
        assert child.receive() == "open"
        with quelmdb.open(path) as store:
            store.compact()
            store.insert(Job("a", "new"))
            jobs = list(store.all())
    assert (path / "000001").exists()
    for generation in (3, 4):
        assert repair_store(path).kept == 2
        assert (path / "000001").exists()
        with quelmdb.open(path, readonly=True) as store:
            assert list(store.all()) == jobs
            assert store.info().generation == generation


def test_where_the_seal_was_lost_both_generations_are_kept(path: Path) -> None:
    """Which is the store, and which the rest of a compaction, cannot be told then."""
    with quelmdb.open(path) as store:
        store.insert(Job("a", "old"))
    shutil.copytree(path / "000001", path / "000002")
    put_meta(path, layout.NEXT_ID, None)
    repaired = repair_store(path)
    assert (repaired.kept, repaired.set_aside) == (1, 1)
    (kept,) = path.glob("000002-*.unused")
    assert kept.name in str(repaired.problems[-1])
    assert (kept / "data.mdb").exists()


@pytest.mark.parametrize("left", [0, 4096, 8192])
def test_where_nothing_is_left_no_empty_store_is_made(left: int, tmp_path: Path) -> None:
    path = tmp_path / "jobs.qdb"
    with quelmdb.open(path) as store:
        store.insert_many(Job("a", {"n": n}) for n in range(100))
    os.truncate(path / "000001" / "data.mdb", left)
    before = sorted(path.rglob("*"))
    with pytest.raises(quelmdb.CorruptStoreError, match="nothing of a store"):
        repair_store(path)
    assert sorted(path.rglob("*")) == before


def _repair_and_die(pipe: Any, path: Path, calls: int) -> None:
    """Dies at the `calls`-th step of a repair that goes to the file system."""
    die_at_step(calls)
    repair_store(path)
    pipe.send("survived")


def test_a_repair_killed_at_any_step_loses_nothing_and_is_made_again(path: Path) -> None:
    jobs = _damaged(path)
    damaged = path.with_name("damaged.qdb")
    path.rename(damaged)
    for calls in range(1, 1_000):
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(damaged, path)
        with Child(_repair_and_die, path, calls, method="fork") as child:
            try:
                child.receive()
            except ChildDiedError:
                survived = False
            else:
                survived = True
        repair_store(path)
        assert list(path.glob("*.new")) == []
        assert list(path.glob("aside-*.cbor"))
        with quelmdb.open(path) as store:
            assert list(store.all()) == jobs
            assert store.check() == []
        if survived:
            break
    assert survived
    assert calls > 5


def test_the_command_checks_what_cannot_be_opened(tmp_path: Path) -> None:
    """LMDB would follow a damaged pointer out of the file, and end the process."""
    path = tmp_path / "jobs.qdb"
    with quelmdb.open(path) as store:
        store.insert_many(Job("a", {"n": n}) for n in range(10))
    data = data_file(path)
    with data.open("r+b") as file:
        for meta in (0, 4096):
            file.seek(meta + 128)  # the root of the main database
            file.write((2**40).to_bytes(8, sys.byteorder))
    found = subprocess.run(
        [sys.executable, "-m", "tools", "check", str(path), "--json"],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert (found.returncode, found.stderr) == (1, b"")
    assert "no such page" in json.loads(found.stdout)[0]["message"]
    os.truncate(data, 5000)
    short = CliRunner().invoke(commands, ["check", str(path), "--json"])
    assert short.exit_code == 1
    assert json.loads(short.stdout)[0]["rule"] == "structure"


def test_the_command_repairs_and_tells(path: Path) -> None:
    _damaged(path)
    assert CliRunner().invoke(commands, ["check", str(path)]).exit_code == 1
    found = CliRunner().invoke(commands, ["check", str(path), "--repair", "--json"])
    assert found.exit_code == 1  # something was set aside
    assert json.loads(found.stdout)["kept"] == 9
    assert CliRunner().invoke(commands, ["check", str(path)]).exit_code == 0


def test_a_store_whose_seal_is_lost_is_busy_while_somebody_has_its_successor_open(
    path: Path,
) -> None:
    old = path.with_name("old")
    with quelmdb.open(path) as store:
        store.insert(Job("old"))
    shutil.copytree(path / "000001", old)
    with quelmdb.open(path) as store:
        store.compact()
    with Child(_hold, path) as child:
        child.receive()
        shutil.copytree(old, path / "000001")  # as one that was never sealed
        with pytest.raises(StoreBusyError):
            repair_store(path)
        assert sorted(entry.name for entry in path.iterdir() if entry.is_dir()) == [
            "000001",
            "000002",
        ]
        shutil.rmtree(path / "000001")
