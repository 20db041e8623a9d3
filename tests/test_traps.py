"""The traps of LMDB, py-lmdb and cbor2 that are known to this project, and where each is held.

| trap                                             | held by                                      |
|--------------------------------------------------|----------------------------------------------|
| no sync and power loss                           | here: every commit is synced                 |
| a data file renamed under a live lock file       | nothing renames one; a generation is a new   |
|                                                  | directory (test_format has the names)        |
| lock files opened or closed by hand              | here: lock files are opened once             |
| an environment used after a fork                 | test_fork                                    |
| `open_db` hangs beside a writer                  | here: opening beside a writer                |
| no checksums                                     | bit_flips, test_corrupt_records            |
| the map size is chosen once                      | here: the map is never resized; limits       |
| map or disk full poisons the transaction         | full_disk; test_errors: an error of a   |
|                                                  | transaction leaves the store usable          |
| disk full comes as an I/O error                  | test_errors: a short write to a full disk    |
| disk full and a memory map: SIGBUS               | no writemap; the lock file: full_disk        |
| `set_mapsize`                                    | here: the map is never resized               |
| another process grew the map                     | limits: a file that outgrows a small map   |
| two opens of a file in one process               | test_processes: opened twice in one process  |
| fork: the child aborts or closes                 | test_fork: the parent goes on unharmed       |
| fork: the parent dies, the child goes on         | test_fork: a child that outlives its parent  |
| SIGKILL while holding the write lock             | here: a writer that is killed                |
| SIGSTOP of a writer, Ctrl-C of a waiter          | here: a thread that waits can be interrupted;|
|                                                  | behind another process it cannot (docs)      |
| Ctrl-C around a commit                           | test_signals; here: the store can be used    |
|                                                  | while an interrupt is handled                |
| a thread ends within a write transaction;        | none is possible: transactions are given to  |
| commit from another thread                       | functions, never out (environment)           |
| a read transaction aborted under another thread  | test_misuse: a snapshot in another thread,   |
|                                                  | closing beside threads that read and write   |
| a memoryview after its transaction               | here: what was read outlives its store       |
| a long reader, a suspended generator             | here: a suspended iteration keeps no pages   |
| killed readers                                   | test_misuse: the slots of killed processes,  |
|                                                  | the pages of killed readers                  |
| two PID namespaces, two processes 1              | test_filesystem                              |
| overlayfs, a store in the lower layer            | test_filesystem                              |
| network file systems                             | test_filesystem                              |
| an emptied directory becomes a store             | bit_flips: never made anew                 |
| another map size shrinks a writemap file         | test_ephemeral_file: nobody resizes it       |
| a disk is full under a writemap: SIGBUS          | test_capacity_disk: all of it was allocated  |
| `cp` of a live store, `env.copy`                 | no copies are made yet (backup, to come)     |
| `env.sync` does nothing on a sync=False one      | nothing calls it: what was not synced is     |
|                                                  | verified after a restart                     |
|                                                  | (test_ephemeral_restart)                     |
| a truncated file: SIGBUS                         | bit_flips: truncated at every size         |
| a 0-byte data file is an empty database          | bit_flips: a file that is no data file     |
| corrupt pages: SIGABRT                           | bit_flips: a flipped bit; `check` verifies |
|                                                  | pages before it follows them                 |
| a crash during creation                          | faults: kills                                |
| big values fragment the free list                | here: big values stand in small chunks       |
| limits of keys and values                        | here: the longest name; the kit: refusals    |
| integer keys of another width                    | one function packs them (test_layers: only   |
|                                                  | layout packs bytes)                          |
| deleting while iterating skips half              | here: chunks go with their job               |
| the GIL                                          | a matter of speed: bench                     |
| default modes                                    | test_bad_input: what is created is private   |
| `create=False` creates files                     | test_bad_input: not created unasked          |
| flags are per process                            | test_bad_input: another format (durability)  |
| wheels for free-threaded Python                  | a matter of packaging: docs                  |
| cbor2: what a hostile byte can do                | test_corrupt_records: hostile values         |
| cbor2: what can be written and not read          | the kit: values; test_errors: no CBOR        |
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import lmdb
import pytest

import quelmdb
from quelmdb import Job, layout
from quelmdb.counters import Counters
from tests.children import Child, ChildDiedError, in_child
from tests.damage import data_file, raw

pytest_plugins = ["tests.fixtures"]

MIB = 2**20


# --- How LMDB is used ---------------------------------------------------------


def test_every_commit_is_synced_and_nothing_is_written_through_the_map(
    store: quelmdb.Store,
) -> None:
    flags = store._opened.environment._lmdb.flags()
    assert all(flags[name] for name in ("sync", "metasync", "lock"))
    assert not any(flags[name] for name in ("writemap", "map_async"))


def test_the_format_is_the_one_of_lmdb_0_9(path: Path) -> None:
    quelmdb.open(path).close()
    magic_and_version = data_file(path).read_bytes()[16:24]
    assert magic_and_version == layout.pack_number(0xBEEFC0DE | 1 << 32)


def test_lock_files_are_opened_once_a_process(path: Path) -> None:
    """Any close of one would drop every lock that the process has on it."""

    def use() -> list[str]:
        opened: list[str] = []
        with quelmdb.open(path) as store:
            sys.addaudithook(
                lambda event, arguments: (
                    opened.append(str(arguments[0])) if event == "open" else None
                )
            )
            store.insert(Job("a"))
            store.complete_many(store.claim())
            store.rescue()
            store.info()
            store.check()
            quelmdb.open(path).close()
            with pytest.raises(quelmdb.StoreBusyError):
                quelmdb.open(path, readonly=True)
            return list(opened)

    opened = in_child(use)
    assert any(name.endswith("data.mdb") for name in opened)  # the hook works
    assert [name for name in opened if "lock" in Path(name).name] == []


def test_opening_beside_a_writer_lets_other_threads_run(path: Path) -> None:
    quelmdb.open(path).close()

    def write_until_told(pipe: Connection) -> None:
        with raw(path):
            pipe.send(None)
            pipe.recv()

    with Child(write_until_told) as child:
        child.receive()
        opened: list[quelmdb.Store] = []
        thread = threading.Thread(target=lambda: opened.append(quelmdb.open(path)))
        thread.start()
        assert sum(range(10**6)) > 0  # this one does
        assert opened == []
        child.send()
        thread.join()
    with opened[0] as store:
        store.insert(Job("a"))


def test_the_map_is_never_resized(store: quelmdb.Store) -> None:
    before = store._opened.environment._lmdb.info()["map_size"]
    store.insert_many([Job("a", b"x" * MIB)] * 8)
    store.check()
    assert store._opened.environment._lmdb.info()["map_size"] == before == 2**40


# --- Signals ------------------------------------------------------------------


def _block_within_transactions(block: Callable[[], object]) -> None:
    """For the rest of this process: each write calls `block` before its commit."""
    finish = Counters.finish

    def block_and_finish(counters: Counters) -> None:
        block()
        finish(counters)

    patched: Any = Counters
    patched.finish = block_and_finish


def _write_slowly(pipe: Connection, path: Path) -> None:
    """Stands within a write transaction until it is told to go on."""

    def block() -> None:
        pipe.send("within")
        pipe.recv()

    _block_within_transactions(block)
    with quelmdb.open(path) as store:
        store.insert(Job("slow"))


def test_a_writer_that_is_killed_within_a_transaction_changes_nothing_and_stops_nobody(
    store: quelmdb.Store,
) -> None:
    with Child(_write_slowly, Path(store.path)) as child:
        assert child.receive() == "within"
        child.kill()
        store.insert(Job("a"))
    assert [job.worker for job in store.all()] == ["a"]


def test_a_writer_that_is_stopped_holds_up_writers_and_no_readers(store: quelmdb.Store) -> None:
    job = store.insert(Job("a"))
    with Child(_write_slowly, Path(store.path)) as child:
        assert child.receive() == "within"
        child.signal(signal.SIGSTOP)
        os.waitid(os.P_PID, child.pid, os.WSTOPPED)
        assert list(store.all()) == [job]
        with store.snapshot() as snapshot:
            assert snapshot.find(job) == job
        assert store.check() == []
        child.signal(signal.SIGCONT)
        child.send()
        child.join()
    assert [job.worker for job in store.all()] == ["a", "slow"]


def test_a_thread_that_waits_for_another_to_write_can_be_interrupted(path: Path) -> None:
    def work() -> list[str | None]:
        within, go_on = threading.Event(), threading.Event()

        def block() -> None:
            within.set()
            go_on.wait()

        _block_within_transactions(block)
        with quelmdb.open(path) as store:
            writer = threading.Thread(target=lambda: store.insert(Job("slow")))
            writer.start()
            within.wait()
            timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
            timer.start()  # so late that the wait below has begun
            with pytest.raises(KeyboardInterrupt):
                store.insert(Job("waiting"))
            go_on.set()
            writer.join()
            return [job.worker for job in store.all()]

    assert in_child(work) == ["slow"]


def test_a_signal_handler_may_close_the_store(path: Path) -> None:
    def work() -> str:
        store = quelmdb.open(path)
        store.insert_many([Job("a")] * 1000)
        signal.signal(signal.SIGALRM, lambda *arguments: store.close())
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        try:
            while True:
                list(store.all())
                store.update(Job("a", id=5))
        except quelmdb.StoreClosedError as error:
            return str(error)

    for _ in range(10):
        assert "was closed" in in_child(work)


def test_a_signal_handler_may_close_the_store_at_the_gate(path: Path) -> None:
    """Where it comes between the look whether there is a gate and the entering of it."""
    store = quelmdb.open(path)
    gate = store._opened.committer._gate
    assert gate is not None
    try_enter = gate.try_enter

    def close_first() -> bool:
        store.close()
        return try_enter()

    gate.try_enter = close_first  # type: ignore[method-assign]
    with pytest.raises(quelmdb.StoreClosedError, match="was closed"):
        store.insert(Job("a"))


def test_the_store_can_be_used_while_an_interrupt_is_handled(path: Path, long: bool) -> None:
    """The interrupted write is whole or not at all, and holds no lock: not even where the
    frames of the exception keep its transaction."""

    def write(pipe: Connection, seed: int) -> None:
        with quelmdb.open(path) as store:
            rounds = random.Random(seed)
            try:
                pipe.send("ready")
                while True:
                    name = str(rounds.getrandbits(60))
                    store.insert_many([Job("a", name)] * 5)
                    pipe.send(name)
            except KeyboardInterrupt:
                store.insert(Job("last"))

    acknowledged = set()
    rounds = 300 if long else 15
    for seed in range(rounds):
        with Child(write, seed) as child:
            assert child.receive() == "ready"
            for _ in range(seed % 7):
                acknowledged.add(child.receive())
            child.signal(signal.SIGINT)
            try:
                while name := child.receive():
                    acknowledged.add(name)
            except (ChildDiedError, KeyboardInterrupt):
                pass
    with quelmdb.open(path) as store:
        names = [job.arguments for job in store.all("a")]
        assert acknowledged <= set(names)
        assert len(names) == 5 * len(set(names))
        assert len(store.all("last")) == rounds


# --- Pages --------------------------------------------------------------------


def test_what_was_read_outlives_its_store(path: Path) -> None:
    big = [bytes([n]) * 5000 for n in range(50)]
    with quelmdb.open(path) as store:
        store.insert_many(Job("a", [content, {"n": n}]) for n, content in enumerate(big))
        with store.snapshot() as snapshot:
            jobs = list(snapshot.all())
            ids = list(snapshot.all().ids())
        store.update_many(Job("b", None, id=id) for id in ids)
        for _ in range(20):  # their pages are used for others
            store.insert_many([Job("b", b"z" * 5000)] * 50)
    assert [job.arguments for job in jobs] == [[content, {"n": n}] for n, content in enumerate(big)]
    assert {type(job.arguments[0]) for job in jobs} == {bytes}
    assert ids == list(range(1, 51))


def test_a_suspended_iteration_keeps_no_pages(store: quelmdb.Store) -> None:
    store.insert_many(Job("a", n) for n in range(3000))
    suspended = [iter(store.all()), iter(store.all().ids()), iter(store.jobs("queued"))]
    for iteration in suspended:
        next(iteration)
    used = store.info().used_bytes
    for _ in range(50):
        store.update_many(list(store.all(limit=200)))
    assert store.info().used_bytes < 2 * used
    assert [len(list(iteration)) for iteration in suspended] == [2999] * 3


def test_big_values_stand_in_small_chunks_and_go_with_their_job(path: Path) -> None:
    with quelmdb.open(path) as store:
        store.insert_many(Job("a", b"x" * MIB) for _ in range(4))
        held = store.claim(limit=2)
        store.complete(held[0], result=b"r" * MIB)
        store.fail(held[1], "e" * MIB)
        store.update(Job("a", b"y" * (MIB // 2), id=3))
    with raw(path) as content:
        for database in (content.databases.payloads, content.databases.jobs):
            assert content.transaction.stat(database)["overflow_pages"] == 0
        chunks = content.transaction.cursor(content.databases.payloads)
        assert max(len(chunk) for _, chunk in chunks) <= 2000
    with quelmdb.open(path) as store:
        assert [len(job.arguments) for job in store.all()] == [MIB, MIB, MIB // 2, MIB]
        store.destroy_many(range(1, 5))
    with raw(path) as content:
        assert content.transaction.stat(content.databases.payloads)["entries"] == 0


def test_the_longest_names_of_workers_work(store: quelmdb.Store) -> None:
    names = ["x" * 500, "é" * 250, "\N{OLD PERSIAN SIGN A}" * 125, "a\0b", " "]
    store.insert_many(Job(name, name) for name in names)
    for name in names:
        assert [job.arguments for job in store.all(name)] == [name]
    assert store.workers() == sorted(names)
    assert [job.worker for job in store.claim(*names, limit=9)] == names


def test_an_environment_that_others_opened_in_this_process_is_refused(path: Path) -> None:
    quelmdb.open(path).close()
    with (
        lmdb.open(str(path / "000001"), lib_version=0),
        pytest.raises(quelmdb.StoreBusyError, match="other means"),
    ):
        quelmdb.open(path)
