"""What a dead process held comes back while others claim or wait, without anybody asking for
it; and who waits is woken by what other processes do."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

import pytest

import quelmdb
import quelmdb.aio
from quelmdb import Job, Status, StoreFullError, boot, layout
from quelmdb.filesystem import MIB
from quelmdb.options import DIED
from quelmdb.wakeup import Wakeup
from quelmdb.writer import Writer
from tests.children import Child
from tests.durabilities import full_and_ephemeral

_WAIT: Final = 30.0  # seconds that a wait lasts where nothing happens
_SOON: Final = 5.0  # in which a death is seen, on a machine that is busy: mostly it takes one
_AT_ONCE: Final = 0.5  # below the second after which a wait looks by itself

_DURABILITIES: Final = full_and_ephemeral(64 * MIB)


@pytest.fixture(params=_DURABILITIES)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """Where a store of each durability is, which is checked when the test is over."""
    path = tmp_path / "jobs.qdb"
    quelmdb.open(path, **_DURABILITIES[request.param]).close()
    yield path
    with quelmdb.open(path, create=False) as store:
        assert store.check() == []


@pytest.fixture
def store(path: Path) -> Iterator[quelmdb.Store]:
    with quelmdb.open(path) as store:
        yield store


def _hold(pipe: Connection, path: Path, limit: int = 1) -> None:
    """Claims, tells what it holds, and holds it until it is told to complete it."""
    with quelmdb.open(path) as store:
        held = store.claim(limit=limit)
        pipe.send(held)
        pipe.recv()
        store.complete_many(held)


def _wait_and_claim(pipe: Connection, path: Path) -> tuple[list[Job], float]:
    """What it gets by one wait and one claim, and when."""
    with quelmdb.open(path) as store:
        pipe.send("ready")
        assert store.wait(timeout=_WAIT)
        claimed = store.claim(limit=9)
        when = time.monotonic()
        store.complete_many(claimed)
        return claimed, when


def _await_and_claim(pipe: Connection, path: Path) -> tuple[list[Job], float]:
    """The same with an event loop."""

    async def work() -> tuple[list[Job], float]:
        async with await quelmdb.aio.open(path) as store:
            pipe.send("ready")
            assert await store.wait(timeout=_WAIT)
            claimed = await store.claim(limit=9)
            when = time.monotonic()
            await store.complete_many(claimed)
            return claimed, when

    return asyncio.run(work())


_WAITERS: Final = {"sync": _wait_and_claim, "aio": _await_and_claim}


# --- Deaths ---------------------------------------------------------------------


@pytest.mark.parametrize("waiter", _WAITERS)
def test_who_waits_gets_what_a_killed_process_held(waiter: str, path: Path) -> None:
    with quelmdb.open(path) as store:
        store.insert_many(Job("a", n) for n in range(3))
    with Child(_hold, path, 3) as holder:
        assert len(holder.receive()) == 3
        with Child(_WAITERS[waiter], path) as other:
            assert other.receive() == "ready"
            assert not other.pipe.poll(0.2)  # while the holder lives there is nothing
            killed = time.monotonic()
            holder.kill()
            claimed, when = other.receive()
    print(f"seen after {when - killed:.2f} s")
    assert when - killed < _SOON
    assert [(job.id, job.attempt) for job in claimed] == [(1, 2), (2, 2), (3, 2)]
    assert [[failure.died for failure in job.failures] for job in claimed] == [[True]] * 3


def test_who_claims_gets_it_although_there_is_always_something_else(path: Path) -> None:
    with quelmdb.open(path) as store:
        store.insert(Job("a", "held", priority=1))
        with Child(_hold, path) as holder:
            (held,) = holder.receive()
            store.insert_many(Job("a", n) for n in range(20))
            store.release(store.claim()[0])  # which has looked who lives
            holder.kill()
            killed = time.monotonic()
            while (claimed := store.claim())[0].id != held.id:
                store.release(claimed[0])  # so that there is
                assert time.monotonic() - killed < _SOON
        assert (claimed[0].arguments, claimed[0].attempt) == ("held", 2)
        assert len(store.jobs("queued")) == 20


def test_a_job_that_kills_its_processes_is_failed_after_its_attempts_with_the_reason(
    store: quelmdb.Store,
) -> None:
    store.insert(Job("a", "poison", max_attempts=3))
    for attempt in (1, 2, 3):
        with Child(_hold, Path(store.path)) as holder:
            (held,) = holder.receive()
            assert held.attempt == attempt
            holder.kill()
    assert store.claim() == []
    (failed,) = store.failed()
    assert failed.attempt == 3
    assert failed.error == f"{DIED}: attempt 3 of 3 was the last"
    assert [(failure.attempt, failure.error, failure.died) for failure in failed.failures] == [
        (1, DIED, True),
        (2, DIED, True),
        (3, DIED, True),
    ]
    assert all(failure.started_at <= failure.ended_at for failure in failed.failures)


def test_what_was_to_be_cancelled_is_not_run_again(store: quelmdb.Store) -> None:
    asked, other = store.insert_many([Job("a"), Job("a")])
    with Child(_hold, Path(store.path), 2) as holder:
        holder.receive()
        assert store.cancel(asked).status is Status.STARTED
        holder.kill()
    assert [job.id for job in store.claim(limit=9)] == [other.id]
    (cancelled,) = store.jobs("cancelled")
    assert cancelled.id == asked.id
    assert [failure.died for failure in cancelled.failures] == [True]


def test_who_is_stopped_is_never_robbed_however_long_others_wait(store: quelmdb.Store) -> None:
    store.insert(Job("a"))
    with Child(_hold, Path(store.path)) as holder:
        (held,) = holder.receive()
        holder.signal(signal.SIGSTOP)
        os.waitid(os.P_PID, holder.pid, os.WSTOPPED)
        assert not store.wait(timeout=2.5)  # it has looked three times
        assert store.claim() == store.rescue() == []
        assert store.find(held) == held
        holder.signal(signal.SIGCONT)
        holder.send()
        holder.receive()
    assert len(store.completed()) == 1


def _pretend(store: quelmdb.Store, owner: int, pid: int) -> None:
    """Has an owner be the process `pid`, as far as the list of owners tells."""

    def work(writer: Writer) -> None:
        value = layout.pack_owner(pid, 0, boot.boot_id())
        key = layout.pack_number(owner)
        assert writer.transaction.put(key, value, db=writer.databases.owners)

    store._commit(work)


def test_a_dead_process_whose_pid_another_one_has_is_dead(store: quelmdb.Store) -> None:
    store.insert(Job("a"))
    with Child(_hold, Path(store.path)) as holder:
        (held,) = holder.receive()
        holder.kill()
    _pretend(store, held.owner, os.getpid())
    (again,) = store.claim()
    assert again.attempt == 2
    assert again.owner != held.owner


def test_a_living_process_whose_pid_nobody_has_lives(store: quelmdb.Store) -> None:
    store.insert(Job("a"))
    with Child(_hold, Path(store.path)) as holder:
        (held,) = holder.receive()
        _pretend(store, held.owner, 2**22 + 1)  # above what Linux gives
        assert store.claim() == store.rescue() == []
        holder.send()
        holder.receive()
    assert len(store.completed()) == 1


def test_after_a_restart_of_the_machine_everyone_is_dead(path: Path, tmp_path: Path) -> None:
    """The processes live here, and not for a copy, on whose files nobody has a lock."""
    copy = tmp_path / "copy.qdb"
    with quelmdb.open(path) as store:
        store.insert_many(Job("a", n) for n in range(4))
        with Child(_hold, path, 2) as one, Child(_hold, path, 1) as other:
            for holder in (one, other):
                holder.receive()
            assert store.rescue() == []
            shutil.copytree(path, copy)
            if (copy / layout.BOOT_FILE).exists():
                (copy / layout.BOOT_FILE).write_bytes(b"of the last run")
    with quelmdb.open(copy, create=False) as restarted:
        assert [job.attempt for job in restarted.claim(limit=9)] == [2, 2, 2, 1]
        assert restarted.check() == []


# --- Waits ----------------------------------------------------------------------


def _produce(pipe: Connection, path: Path) -> None:
    """Inserts a job whenever it is told to, and tells when it had."""
    with quelmdb.open(path) as store:
        while True:
            store.insert(Job("a", priority=pipe.recv()))
            pipe.send(time.monotonic())


def test_who_waits_is_woken_by_an_insert_of_another_process(store: quelmdb.Store) -> None:
    took = []
    with Child(_produce, Path(store.path)) as producer:
        for number in range(20):
            producer.send(number % 2)
            assert store.wait("a", timeout=_WAIT)
            woken = time.monotonic()
            took.append(woken - producer.receive())
            assert not store.wait("b", timeout=0)
            (job,) = store.claim("a")
            store.complete(job)
            assert not store.wait("a", timeout=0)
    print(f"woken after {sorted(took)[10] * 1e3:.2f} ms, at most {max(took) * 1e3:.2f}")
    assert sorted(took)[15] < _AT_ONCE


def test_an_event_loop_that_waits_is_woken_by_an_insert_of_another_process(path: Path) -> None:
    async def work(producer: Child) -> list[float]:
        took = []
        async with await quelmdb.aio.open(path) as store:
            for number in range(20):
                waiting = asyncio.create_task(store.wait("a", timeout=_WAIT))
                await asyncio.sleep(0)  # so that it has begun
                producer.send(number % 2)
                assert await waiting
                took.append(time.monotonic() - producer.receive())
                await store.complete_many(await store.claim("a", limit=9))
                assert not await store.wait("a", timeout=0)
        return took

    with Child(_produce, path) as producer:
        took = sorted(asyncio.run(work(producer)))
    print(f"woken after {took[10] * 1e3:.2f} ms, at most {took[-1] * 1e3:.2f}")
    assert took[15] < _AT_ONCE


def _resume(pipe: Connection, path: Path) -> None:
    with quelmdb.open(path) as store:
        pipe.recv()
        store.resume("a")
        pipe.send(time.monotonic())
        pipe.recv()  # since to close it wakes others, too


def test_who_waits_is_woken_by_a_resume_of_another_process(store: quelmdb.Store) -> None:
    store.insert(Job("a"))
    store.pause("a")
    assert not store.wait(timeout=0)
    assert not store.wait("a", timeout=0)
    with Child(_resume, Path(store.path)) as other:
        other.send()
        assert store.wait("a", timeout=_WAIT)
        woken = time.monotonic()
        assert woken - other.receive() < _AT_ONCE
    assert len(store.claim()) == 1


def test_who_waits_is_woken_when_a_job_is_due(store: quelmdb.Store) -> None:
    due = datetime.now(UTC) + timedelta(seconds=0.3)
    store.insert(Job("a", run_at=due))
    assert not store.wait("a", timeout=0)
    assert store.wait("a", timeout=_WAIT)
    late = (datetime.now(UTC) - due).total_seconds()
    assert 0 <= late < _AT_ONCE
    assert len(store.claim("a")) == 1


def test_a_wait_without_anything_ends_after_its_time(store: quelmdb.Store) -> None:
    begun = time.monotonic()
    assert not store.wait(timeout=0.2)
    assert 0.2 <= time.monotonic() - begun < _SOON


def test_a_cancelled_wait_ends_at_once_and_leaves_no_thread_that_waits(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, left = threading.Event(), threading.Event()
    wait = Wakeup.wait

    def observed(self: Wakeup, seen: int, seconds: float) -> None:
        entered.set()
        wait(self, seen, 60.0)  # not the second after which it looks by itself
        left.set()

    async def work() -> float:
        async with await quelmdb.aio.open(path) as store:
            waiting = asyncio.create_task(store.wait("a", timeout=_WAIT))
            while not entered.is_set():
                await asyncio.sleep(0)
            begun = time.monotonic()
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            took = time.monotonic() - begun
            assert await asyncio.to_thread(left.wait, _SOON)
            assert (await store.insert(Job("a"))).id == 1  # it goes on
            assert await store.wait("a", timeout=0)
            return took

    monkeypatch.setattr(Wakeup, "wait", observed)
    assert asyncio.run(work()) < _AT_ONCE


# --- Pruning --------------------------------------------------------------------


def _insert_and_time(pipe: Connection, path: Path) -> list[float]:
    """What each insert took, until it is told to end, or there is no room for more."""
    took: list[float] = []
    with quelmdb.open(path) as store:
        store.insert(Job("new"))
        pipe.send("ready")
        with suppress(StoreFullError):  # a reader that stands still keeps what is written anew
            while not pipe.poll() and len(took) < 20_000:
                begun = time.perf_counter()
                store.insert(Job("new"))
                took.append(time.perf_counter() - begun)
        pipe.recv()
    return took


def test_a_prune_of_many_jobs_lets_others_write_in_between(store: quelmdb.Store) -> None:
    jobs = 20_000
    for worker in ("old", "kept"):
        store.insert_many(Job(worker, n, status="completed") for n in range(jobs // 2))
    store.insert_many(Job("old", n, status="failed") for n in range(jobs // 2))
    with Child(_insert_and_time, Path(store.path)) as other:
        other.receive()
        inserted = store.counts("new")[Status.QUEUED]
        begun = time.perf_counter()
        assert store.prune("completed", "failed", worker="old", keep=100) == jobs - 100
        pruning = time.perf_counter() - begun
        meanwhile = store.counts("new")[Status.QUEUED] - inserted
        other.send()
        took = sorted(other.receive())
    print(
        f"pruned in {pruning:.2f} s, {meanwhile} inserts meanwhile: "
        f"p50 {took[len(took) // 2] * 1e3:.1f} ms, p99 {took[len(took) * 99 // 100] * 1e3:.1f} ms, "
        f"max {took[-1] * 1e3:.1f} ms"
    )
    assert meanwhile >= 5
    assert took[len(took) // 2] < pruning / 10
    assert len(store.all("kept")) == jobs // 2
    assert list(store.all("old").ids()) == list(range(3 * jobs // 2 - 99, 3 * jobs // 2 + 1))
