"""A medium that fails under several at once: threads that share a transaction, a file system that
becomes read-only, a page that cannot be read.

A write or a sync that fails is an error, as `test_io_errors` has it. A page of the map that cannot
be read is not: as with every store that maps its file the kernel ends the process that reads it,
by SIGBUS. Other processes go on, nothing is lost, and when the bytes are back all is.
"""

from __future__ import annotations

import errno
import faulthandler
import fcntl
import os
import resource
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

import pytest

import quelmdb
from quelmdb import DiskError, Job, ReadOnlyStoreError
from tests.children import Child, ChildDiedError, in_child
from tests.faults.calls import failed, needs_calls, replaced
from tests.faults.figures import Tell
from tests.faults.injection import Fault, Injector
from tests.mounts import enter_private_mounts, mount_tmpfs, needs_mounts, remount

pytest_plugins = ["tests.fixtures"]
pytestmark = needs_calls

_BIG: Final = b"x" * 9000
_PATIENCE: Final = 30.0  # seconds
_THREADS: Final = 8


# --- Threads that share a transaction ------------------------------------------------------


def _insert_together(path: Path, call: str, lasts: bool) -> tuple[list[str], int]:
    """Threads insert together while the call of their transaction fails. Returns what each of them
    was told ("" of success), and how many of their jobs are there in the end."""
    store = quelmdb.open(path)
    fails = threading.Event()
    told = [""] * _THREADS

    def insert(number: int) -> None:
        try:
            store.insert(Job("shared", number))
        except DiskError as error:
            told[number] = str(error)

    threads = [threading.Thread(target=insert, args=(number,)) for number in range(_THREADS)]

    def handler(original: Callable[..., int], *arguments: int) -> int:
        if call == "pwrite" and not fcntl.fcntl(arguments[0], fcntl.F_GETFL) & os.O_DSYNC:
            return original(*arguments)
        if not fails.is_set() and threads[0].ident is None:  # of the first insert
            for thread in threads:
                thread.start()
            end = time.monotonic() + _PATIENCE  # the test fails then: they share nothing
            while len(store._committer._unserved) < _THREADS and time.monotonic() < end:
                time.sleep(0.001)
            fails.set()
            return original(*arguments)
        if not fails.is_set():
            return original(*arguments)
        if not lasts:
            fails.clear()
        return failed(errno.EIO)

    with replaced({call: handler}):
        store.insert(Job("first"))
        for thread in threads:
            thread.join()
    store.close()
    with quelmdb.open(path) as store:
        assert len(store.all("first")) == 1
        return told, len(store.all("shared"))


def test_threads_that_share_a_transaction_all_get_its_error(path: Path, figure: Tell) -> None:
    told, there = in_child(_insert_together, path, "fdatasync", True)
    assert all("writing it failed" in each for each in told)
    assert there == 0
    figure(f"{len(told)} threads, {len(told)} errors, 0 of their jobs there")


def test_threads_that_share_a_transaction_whose_meta_page_fails_are_told_to_open_the_store_again(
    path: Path, figure: Tell
) -> None:
    told, there = in_child(_insert_together, path, "pwrite", False)
    assert all("open the store again" in each for each in told)
    assert there in (0, _THREADS)
    figure(f"{len(told)} threads, {len(told)} errors, {there} of their jobs there")


def test_a_transaction_whose_sync_fails_once_is_made_again_for_each_of_its_threads(
    path: Path, figure: Tell
) -> None:
    """With pages that are written, and synced, anew: nothing is taken for synced."""
    told, there = in_child(_insert_together, path, "fdatasync", False)
    assert told == [""] * _THREADS
    assert there == _THREADS
    figure(f"{len(told)} threads, no error, all of their jobs there")


# --- A medium that cannot be written to ------------------------------------------------------


def _work_on_read_only(path: Path) -> None:
    injector = Injector(path)
    with injector.injecting(), quelmdb.open(path) as store:
        job = store.insert(Job("a"))
        injector.arm(Fault("lmdb.writev", "EROFS", 1, True))
        for write in (lambda: store.insert(Job("b", _BIG)), store.claim, lambda: store.destroy(1)):
            with pytest.raises(ReadOnlyStoreError, match="read-only") as caught:
                write()
            assert str(path) in str(caught.value)
            assert list(store.all()) == [job]
        injector.disarm()
        (claimed,) = store.claim()
        store.complete(claimed)
        assert store.check() == []


def test_a_file_system_that_becomes_read_only_refuses_writes_and_can_be_read(path: Path) -> None:
    """As ext4 does after an error ("remount-ro"). A mount cannot be made read-only while files
    are open for writing: the calls are made to fail as on such a one."""
    in_child(_work_on_read_only, path)


def _remount(place: Path) -> None:
    enter_private_mounts()
    mount_tmpfs(place, 64)
    path = place / "jobs.qdb"
    with quelmdb.open(path) as store:
        job = store.insert(Job("a"))
    remount(place, read_only=True)
    with pytest.raises(ReadOnlyStoreError, match="readonly=True"):
        quelmdb.open(path)
    remount(place, read_only=False)
    with quelmdb.open(path) as store:
        assert list(store.all()) == [job]
        store.insert(Job("b"))
        assert store.check() == []


@needs_mounts
def test_a_store_on_a_read_only_mount_is_not_opened_for_writing_and_works_when_it_is_writable(
    tmp_path: Path,
) -> None:
    in_child(_remount, tmp_path)


# --- Pages that cannot be read ---------------------------------------------------------------


def _read_when_told(pipe: Connection, path: Path) -> None:
    faulthandler.disable()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with quelmdb.open(path) as store:
        pipe.send(len(store.all()))
        while True:
            pipe.recv()
            pipe.send((len([job.arguments for job in store.all()]), store.insert(Job("more")).id))


def test_a_page_that_cannot_be_read_ends_the_process_that_reads_it_and_no_other(
    path: Path, figure: Tell
) -> None:
    """A store that maps its file reads it without a call that could fail: where the disk has an
    error (here: the file is cut off for a while) the kernel ends the process with SIGBUS.
    Processes that do not read that page live on, and with the bytes everything is back."""
    with quelmdb.open(path) as store:
        store.insert_many(Job("a", _BIG) for _ in range(300))
    data = path / "000001" / "data.mdb"
    content = data.read_bytes()
    with Child(_read_when_told, path) as reader, Child(_read_when_told, path) as other:
        assert (reader.receive(), other.receive()) == (300, 300)
        os.truncate(data, 64 * 1024)
        reader.send()
        with pytest.raises(ChildDiedError) as caught:
            reader.receive()
        assert caught.value.exit_code == -signal.SIGBUS
        with data.open("r+b") as file:
            file.write(content)
        other.send()
        assert other.receive() == (300, 301)
    with quelmdb.open(path) as store:
        assert len(store.all()) == 301
        assert store.check() == []
    figure("the reader of the lost page dies of SIGBUS, the other one goes on, 0 jobs lost")
