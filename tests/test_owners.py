"""Owners: what a dead process held is back at once, what a living one holds never is."""

from __future__ import annotations

import os
import signal
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

import quelmdb
from quelmdb import Job, StaleClaim, Status, recordlayout
from quelmdb.writer import Writer
from tests.children import METHODS, Child, in_child

pytest_plugins = ["tests.fixtures"]


def _hold(pipe: Connection, path: Path, limit: int) -> str:
    """Claims, tells what it holds, and completes the first of it when it is told to."""
    with quelmdb.open(path) as store:
        held = store.claim(limit=limit)
        pipe.send(held)
        pipe.recv()
        return store.complete(held[0]).status


def _foreign_close(path: Path) -> None:
    """What other code in a process might do, a backup for example."""
    (path / "owners.lock").read_bytes()


def _rescue(path: Path) -> list[Job]:
    with quelmdb.open(path) as store:
        return store.rescue()


@pytest.mark.parametrize("method", METHODS[:2])  # of these the end can be waited for
def test_what_a_killed_process_held_is_claimable_again_at_once(
    method: str, store: quelmdb.Store
) -> None:
    jobs = store.insert_many(Job("a", n) for n in range(5))
    with Child(_hold, Path(store.path), 3, method=method) as child:
        held = child.receive()
        assert [job.id for job in held] == [1, 2, 3]
        assert [job.id for job in store.claim(limit=9)] == [4, 5]
        child.kill()
        again = store.claim(limit=9)
    assert [(job.id, job.attempt) for job in again] == [(1, 2), (2, 2), (3, 2)]
    assert [job.arguments for job in again] == [job.arguments for job in jobs[:3]]
    assert min(job.claim for job in again) > max(job.claim for job in held)


def test_what_a_living_process_holds_is_never_rescued(store: quelmdb.Store) -> None:
    store.insert_many([Job("a")] * 2)
    with Child(_hold, Path(store.path), 2) as child:
        child.receive()
        for _ in range(5):
            assert store.rescue() == store.claim(limit=2) == []
        child.send()
        assert child.receive() == "completed"


def test_what_a_stopped_process_holds_is_never_rescued(store: quelmdb.Store) -> None:
    """Slow is not dead, however slow."""
    store.insert_many([Job("a")] * 2)
    with Child(_hold, Path(store.path), 2) as child:
        held = child.receive()
        child.signal(signal.SIGSTOP)
        os.waitid(os.P_PID, child.pid, os.WSTOPPED)
        assert store.rescue() == store.claim(limit=2) == []
        assert list(store.jobs("started")) == held
        child.signal(signal.SIGCONT)
        child.send()
        assert child.receive() == "completed"


def test_closing_the_store_ends_ownership(path: Path) -> None:
    def claim_and_close(pipe: Connection) -> None:
        with quelmdb.open(path) as store:
            held = store.claim()
            pipe.send(None)
            pipe.recv()
        pipe.send(held)
        pipe.recv()

    with quelmdb.open(path) as store:
        store.insert(Job("a"))
        with Child(claim_and_close) as child:
            child.receive()
            assert store.claim() == []
            child.send()
            (held,) = child.receive()  # it lives on, and has closed the store
            (again,) = store.claim()
    assert (again.id, again.attempt) == (held.id, 2)


def test_a_process_that_opens_again_has_a_new_number(path: Path) -> None:
    with quelmdb.open(path) as store:
        store.insert_many([Job("a")] * 2)
        (first,) = store.claim()
    with quelmdb.open(path) as store:
        both = store.claim(limit=2)
        assert [(job.id, job.attempt) for job in both] == [(1, 2), (2, 1)]
        assert {job.owner for job in both} == {first.owner + 1}
        with pytest.raises(StaleClaim):
            store.complete(first)
        store.complete_many(both)


def test_rescue_returns_the_jobs_and_keeps_the_attempt(store: quelmdb.Store) -> None:
    store.insert_many(Job("a", n) for n in range(3))
    with Child(_hold, Path(store.path), 2) as child:
        held = child.receive()
        child.kill()
    rescued = store.rescue()
    assert [job.id for job in rescued] == [job.id for job in held]
    assert [job.attempt for job in rescued] == [1, 1]
    assert {(job.status, job.owner) for job in rescued} == {(Status.QUEUED, 0)}
    assert list(store.jobs("queued"))[:2] == rescued
    assert store.rescue() == []


def test_a_stale_claim_raises_and_changes_nothing(store: quelmdb.Store) -> None:
    store.insert(Job("a"))
    with Child(_hold, Path(store.path), 1) as child:
        (stale,) = child.receive()
        child.kill()

    def refuse(found: Job) -> None:
        for finish in (
            lambda: store.complete(stale, result=1),
            lambda: store.complete_many([stale]),
            lambda: store.fail(stale, "why"),
            lambda: store.release(stale),
        ):
            with pytest.raises(StaleClaim) as caught:
                finish()
            assert caught.value.job_id == stale.id
            assert (caught.value.expected, caught.value.found) == (stale.claim, found.claim)
            assert store.find(stale) == found

    (rescued,) = store.rescue()
    refuse(rescued)
    (again,) = store.claim()
    refuse(again)
    refuse(store.complete(again))


def test_a_process_that_was_taken_for_dead_cannot_finish_what_it_held(path: Path) -> None:
    def hold_without_a_lock(pipe: Connection) -> None:
        with quelmdb.open(path) as store:
            (held,) = store.claim()
            _foreign_close(path)
            pipe.send(held)
            pipe.recv()
            with pytest.raises(StaleClaim):
                store.complete(held)

    with quelmdb.open(path) as store:
        store.insert(Job("a"))
        with Child(hold_without_a_lock) as child:
            held = child.receive()
            (again,) = store.claim()
            assert again.id == held.id
            child.send()
            child.receive()
        assert store.find(again) == again


def test_a_lost_lock_is_mended_at_the_next_claim(path: Path) -> None:
    def lose_it_and_claim(pipe: Connection) -> None:
        with quelmdb.open(path) as store:
            held = store.claim()
            _foreign_close(path)
            held += store.claim()
            pipe.send(held)
            pipe.recv()
            store.complete_many(held)

    with quelmdb.open(path) as store:
        store.insert_many([Job("a")] * 2)
        with Child(lose_it_and_claim) as child:
            first, second = child.receive()
            assert first.owner == second.owner
            assert store.rescue() == store.claim(limit=2) == []
            child.send()
            child.receive()
        assert len(store.completed()) == 2


def test_a_lock_that_others_saw_lost_is_mended_under_a_new_number(path: Path) -> None:
    def lose_it_and_claim(pipe: Connection) -> None:
        with quelmdb.open(path) as store:
            (first,) = store.claim()
            _foreign_close(path)
            pipe.send(first)
            pipe.recv()
            (second,) = store.claim()
            pipe.send(second)
            pipe.recv()
            store.complete(second)

    with quelmdb.open(path) as store:
        store.insert(Job("a"))
        with Child(lose_it_and_claim) as child:
            first = child.receive()
            assert [job.id for job in store.rescue()] == [first.id]
            child.send()
            second = child.receive()
            assert (second.id, second.attempt) == (first.id, 2)
            assert second.owner > first.owner
            assert store.rescue() == store.claim() == []
            child.send()
            child.receive()
        assert len(store.completed()) == 1


def test_who_was_struck_out_registers_anew_also_behind_an_insert_of_its_own(path: Path) -> None:
    """What is remembered while nobody else writes begins with the insert, not before."""

    def lose_it_insert_and_claim(pipe: Connection) -> None:
        with quelmdb.open(path) as store:
            store.claim()
            _foreign_close(path)
            pipe.send(None)
            pipe.recv()
            store.insert(Job("a"))
            pipe.send(store.claim(limit=2))
            pipe.recv()

    with quelmdb.open(path) as store:
        store.insert(Job("a"))
        with Child(lose_it_insert_and_claim) as child:
            child.receive()
            (rescued,) = store.rescue()
            child.send()
            held = child.receive()
            assert [job.id for job in held] == [1, 2]
            assert held[0].owner > rescued.owner
            assert held[0].owner in [owner.number for owner in store.info().owners]
            child.kill()
            assert [job.id for job in store.rescue()] == [1, 2]


def test_a_lock_that_is_mended_in_the_middle_of_a_rescue_counts(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose_it_and_claim(pipe: Connection) -> None:
        with quelmdb.open(path) as store:
            held = store.claim()
            _foreign_close(path)
            pipe.send(None)
            pipe.recv()
            pipe.send(held + store.claim())
            pipe.recv()

    with quelmdb.open(path) as store:
        store.insert_many([Job("a")] * 2)
        with Child(lose_it_and_claim) as child:
            child.receive()
            list_owners = store._claims.owners

            def list_owners_before_it_claims() -> list[quelmdb.Owner]:
                listed = list_owners()
                assert [owner.alive for owner in listed] == [False]
                child.send()
                child.receive()
                return listed

            monkeypatch.setattr(store._claims, "owners", list_owners_before_it_claims)
            assert store.rescue() == []
            monkeypatch.undo()
            child.kill()
            assert [job.id for job in store.rescue()] == [1, 2]


def test_owner_numbers_are_never_reused(store: quelmdb.Store) -> None:
    store.insert(Job("a"))
    numbers = []
    for _ in range(8):
        with Child(_hold, Path(store.path), 1) as child:
            numbers.append(child.receive()[0].owner)
            child.kill()
        assert [owner.number for owner in store.info().owners if not owner.alive] == numbers[-1:]
    assert numbers == sorted(set(numbers))
    (last,) = store.claim()
    assert last.owner > numbers[-1]
    assert last.attempt == 9
    assert [owner.number for owner in store.info().owners] == [last.owner]


def test_many_owners_die_at_once(store: quelmdb.Store) -> None:
    store.insert_many(Job("a", n) for n in range(100))
    children = [Child(_hold, Path(store.path), 5) for _ in range(20)]
    held = [job for child in children for job in child.receive()]
    living = store.info().owners
    assert len(living) == 20
    assert all(owner.alive for owner in living)
    assert {owner.pid for owner in living} == {child.pid for child in children}
    survivor = children.pop()
    for child in children:
        child.signal(signal.SIGKILL)
    for child in children:
        child.kill()
    rescued = store.rescue()
    assert [job.id for job in rescued] == sorted(job.id or 0 for job in held[:95])
    assert [owner.pid for owner in store.info().owners] == [survivor.pid]
    assert len(store.jobs("started")) == 5
    assert [job.attempt for job in store.claim(limit=100)] == [2] * 95
    survivor.kill()
    assert len(store.claim(limit=100)) == 5


def test_two_rescuers_requeue_a_job_once(path: Path) -> None:
    with quelmdb.open(path) as store:
        store.insert_many([Job("a")] * 50)
        with Child(_hold, path, 50) as child:
            child.receive()
            child.kill()

    def rescue(pipe: Connection) -> list[Job]:
        with quelmdb.open(path) as store:
            pipe.send(None)
            pipe.recv()
            return store.rescue()

    with Child(rescue) as one, Child(rescue) as other:
        for child in (one, other):
            child.receive()
        for child in (one, other):
            child.send()
        rescued = one.receive() + other.receive()
    assert sorted(job.id for job in rescued) == list(range(1, 51))
    assert {job.attempt for job in rescued} == {1}


def test_jobs_that_were_made_started_have_no_owner_and_are_never_rescued(path: Path) -> None:
    """Que's way to run jobs stays possible."""

    def insert_started(pipe: Connection) -> None:
        with quelmdb.open(path) as store:
            store.insert(Job("a", status="started"))
            store.update(store.insert(Job("a")).replace(status="started"))
            pipe.send(None)
            pipe.recv()

    with Child(insert_started) as child:
        child.receive()
        child.kill()
    assert in_child(_rescue, path) == []
    with quelmdb.open(path) as store:
        assert store.claim() == []
        assert len(store.jobs("started")) == 2


def test_looking_read_only_tells_who_lives(store: quelmdb.Store) -> None:
    store.insert(Job("a"))

    def look() -> list[quelmdb.Owner]:
        with quelmdb.open(store.path, readonly=True) as other:
            return other.info().owners

    with Child(_hold, Path(store.path), 1) as child:
        owner = child.receive()[0].owner
        assert in_child(look) == [(owner, child.pid, True)]
        child.kill()
        assert in_child(look) == [(owner, child.pid, False)]
    assert len(store.claim()) == 1


def test_an_owner_whose_job_cannot_be_read_is_kept_until_it_can(tmp_path: Path) -> None:
    path = tmp_path / "jobs.qdb"
    with quelmdb.open(path) as store:
        store.insert(Job("a", b"x" * 5000))
        store.claim()  # and closing ends the ownership
    with quelmdb.open(path) as store:
        cursor_key = recordlayout.payload_key(1, recordlayout.ARGUMENTS)

        def swap(value: bytes) -> bytes:
            def work(writer: Writer) -> bytes:
                before = writer.transaction.get(cursor_key, db=writer.databases.payloads)
                writer.transaction.put(cursor_key, value, db=writer.databases.payloads)
                return before or b""

            return store._commit(work)

        intact = swap(b"damaged")
        assert store.rescue() == []
        swap(intact)
        assert [job.id for job in store.rescue()] == [1]
        assert store.check() == []
