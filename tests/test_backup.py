"""Backups: a copy of a store in use is a store, of one point in time."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
import tarfile
import threading
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import quelmdb
from quelmdb import Job, NotAStoreError, Status, backup
from quelmdb.filesystem import MIB
from tests.children import Child, ChildDiedError, in_child
from tests.durabilities import by_durability, ephemeral
from tools.app import commands

pytest_plugins = ["tests.fixtures"]


def _fill(store: quelmdb.Store) -> None:
    store.insert_many(Job("a", {"n": n}) for n in range(1_000))
    store.insert(Job("b", b"x" * 20_000, priority=1, unique_key="k"))
    (claimed,) = store.claim("a")
    store.complete(claimed, b"y" * 2_000)
    store.destroy_many(range(100, 900))


@by_durability(8 * MIB)
def test_a_backup_is_a_store_with_the_same_jobs(options: dict[str, Any], path: Path) -> None:
    target = path.with_name("copy.qdb")
    with quelmdb.open(path, **options) as store:
        _fill(store)
        size = store.backup(target)
        jobs = list(store.all())
    with quelmdb.open(target, create=False) as copy:
        assert list(copy.all()) == jobs
        assert copy.check() == []
        assert copy.info().file_bytes >= size
        assert copy.info().durability == options["durability"]
        assert copy.insert(Job("a")).id == 1_002


@by_durability(8 * MIB)
def test_a_backup_is_looked_into_before_anybody_has_written_to_it(
    options: dict[str, Any], path: Path
) -> None:
    target = path.with_name("copy.qdb")
    with quelmdb.open(path, **options) as store:
        _fill(store)
        store.backup(target)
    with quelmdb.open(target, readonly=True) as copy:
        assert len(copy.all()) == 201
        assert copy.check() == []


@by_durability(8 * MIB)
def test_a_stream_is_a_tar_archive_of_a_store(options: dict[str, Any], path: Path) -> None:
    stream = io.BytesIO()
    with quelmdb.open(path, **options) as store:
        _fill(store)
        store.backup(stream)
        jobs = list(store.all())
    stream.seek(0)
    target = path.with_name("copy.qdb")
    with tarfile.open(fileobj=stream) as archive:
        archive.extractall(target, filter="data")
    with quelmdb.open(target, create=False) as copy:
        assert list(copy.all()) == jobs
        assert copy.check() == []


def test_what_cannot_be_deleted_afterwards_hides_neither_success_nor_error(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rmdir = os.rmdir

    def busy(name: Any, *args: Any, **options: Any) -> None:
        if "quelmdb-backup-" in os.fspath(name):
            raise OSError(errno.EBUSY, "a scanner has it open", name)
        rmdir(name, *args, **options)

    class Broken:
        def write(self, data: bytes) -> None:
            raise BrokenPipeError

    with quelmdb.open(path) as store:
        store.insert(Job("a"))
        monkeypatch.setattr(os, "rmdir", busy)
        stream = io.BytesIO()
        assert store.backup(stream, directory=str(tmp_path)) > 0
        assert stream.getvalue()
        with pytest.raises(BrokenPipeError):
            store.backup(Broken(), directory=str(tmp_path))


def test_what_was_started_in_a_backup_can_be_claimed_there(path: Path) -> None:
    target = path.with_name("copy.qdb")
    with quelmdb.open(path) as store:
        store.insert(Job("a"))
        (held,) = store.claim()
        store.backup(target)
        with quelmdb.open(target) as copy:
            (again,) = copy.claim()
            assert again.claim > held.claim
            assert again.failures[0].died
        assert store.complete(held).status is Status.COMPLETED


def test_a_backup_beside_writers_is_of_one_moment(path: Path) -> None:
    """Jobs are inserted in pairs, so an odd number would be of two moments."""
    stop = threading.Event()
    with quelmdb.open(path) as store:

        def write() -> None:
            while not stop.is_set():
                store.insert_many([Job("a"), Job("b")])

        writer = threading.Thread(target=write)
        writer.start()
        try:
            for number in range(5):
                target = path.with_name(f"copy-{number}.qdb")
                store.backup(target)
                with quelmdb.open(target, create=False) as copy:
                    assert copy.counts("a") == copy.counts("b")
                    assert copy.check() == []
        finally:
            stop.set()
            writer.join()


def test_a_directory_with_something_in_it_is_left_alone(path: Path) -> None:
    target = path.with_name("copy.qdb")
    target.mkdir()
    (target / "mine").write_text("mine")
    with quelmdb.open(path) as store, pytest.raises(quelmdb.NotAStoreError, match="not empty"):
        store.backup(target)
    assert [entry.name for entry in target.iterdir()] == ["mine"]


@pytest.mark.parametrize("name", ["000002", "copy.qdb", "below/copy.qdb"])
def test_a_store_has_no_backup_inside_of_it(name: str, path: Path) -> None:
    """As a directory named like a generation it would be the end of the store."""
    with quelmdb.open(path) as store, pytest.raises(quelmdb.NotAStoreError, match="inside"):
        store.backup(path / name)
    assert sorted(entry.name for entry in path.iterdir()) == ["000001", "owners.lock", "wakeup"]


def _back_up(pipe: Connection, path: Path, target: Path, how: str) -> None:
    """Is killed, or stops to wait, when the copy has been made and has no name."""

    def step(event: str, arguments: tuple[object, ...]) -> None:
        if event == "os.rename" and Path(str(arguments[1])) == target / "000001":
            if how == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            pipe.send("copied")
            pipe.recv()
            if how == "interrupted":
                raise KeyboardInterrupt

    with quelmdb.open(path) as store:
        sys.addaudithook(step)
        store.backup(target)


@by_durability(8 * MIB)
def test_a_backup_that_was_killed_is_made_again(options: dict[str, Any], path: Path) -> None:
    target = path.with_name("copy.qdb")
    with quelmdb.open(path, **options) as store:
        _fill(store)
        with (
            Child(_back_up, path, target, "killed", method="spawn") as child,
            pytest.raises(ChildDiedError),
        ):
            child.receive()
        assert any(entry.suffix == ".new" for entry in target.iterdir())
        store.backup(target)
        jobs = list(store.all())
    assert not any(entry.suffix == ".new" for entry in target.iterdir())
    with quelmdb.open(target, create=False) as copy:
        assert list(copy.all()) == jobs


def test_a_backup_that_is_interrupted_leaves_nothing(path: Path) -> None:
    target = path.with_name("copy.qdb")
    quelmdb.open(path, **ephemeral()).close()
    with Child(_back_up, path, target, "interrupted", method="spawn") as child:
        assert child.receive() == "copied"
        child.send()
        with pytest.raises(KeyboardInterrupt):
            child.receive()
    assert not target.exists()


def test_two_backups_are_not_made_in_one_directory_at_the_same_time(path: Path) -> None:
    target = path.with_name("copy.qdb")
    with quelmdb.open(path) as store:
        store.insert(Job("a"))
        with Child(_back_up, path, target, "waits", method="spawn") as child:
            assert child.receive() == "copied"
            with pytest.raises(quelmdb.StoreBusyError, match="just now"):
                store.backup(target)
            child.send()
            assert child.receive() is None
    with quelmdb.open(target, create=False) as copy:
        assert len(copy.all()) == 1


def test_the_command_makes_a_directory_or_a_stream(path: Path) -> None:
    with quelmdb.open(path) as store:
        store.insert(Job("a"))
    target = path.with_name("copy.qdb")
    assert CliRunner().invoke(commands, ["backup", str(path), str(target)]).exit_code == 0
    with quelmdb.open(target, create=False) as copy:
        assert len(copy.all()) == 1
    streamed = CliRunner().invoke(commands, ["backup", str(path), "-"])
    with tarfile.open(fileobj=io.BytesIO(streamed.stdout_bytes)) as archive:
        assert "000001/data.mdb" in archive.getnames()


def test_a_store_that_is_made_in_the_target_meanwhile_is_left_alone(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = path.with_name("copy.qdb")
    refuse = backup._refuse_used
    calls: list[None] = []

    def refuse_and_make(place: Path) -> None:
        refuse(place)
        if not calls:
            calls.append(None)
            in_child(_make, target)

    monkeypatch.setattr(backup, "_refuse_used", refuse_and_make)
    with (
        quelmdb.open(path, **ephemeral(8 * MIB)) as store,
        pytest.raises(NotAStoreError),
    ):
        store.backup(target)
    with quelmdb.open(target) as made:
        assert len(made.all()) == 1
    assert sorted(entry.name for entry in target.iterdir()) == ["000001", "owners.lock", "wakeup"]


def _make(path: Path) -> None:
    with quelmdb.open(path) as store:
        store.insert(Job("theirs"))
