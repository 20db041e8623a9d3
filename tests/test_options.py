"""What few jobs ask for, on disk: it costs others nothing, has its entries in the index in
every state, and damage to it is found and harms no other job."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import lmdb
import pytest

import quelmdb
from quelmdb import (
    CorruptRecordError,
    DecodeError,
    DuplicateJobError,
    Job,
    Status,
    layout,
)
from quelmdb.codec import Codec
from quelmdb.engine import Transaction
from quelmdb.environment import Environment
from quelmdb.layout import due_key, pack_number, paused_key, priority_key, unique_key_of
from quelmdb.options import (
    MAX_FAILURES,
    MAX_NOTE,
    MAX_PRIORITY,
    MAX_UNIQUE_KEY_BYTES,
    Failure,
    Progress,
)
from quelmdb.testing import ManualClock
from quelmdb.values import MAX_ATTEMPT, microseconds
from tests.children import Child, ChildDiedError, in_children
from tests.damage import raw

pytest_plugins = ["tests.fixtures"]

_HALF_A_PAGE: Final = 2022  # bytes of a record, above which LMDB gives it pages of its own
_LATER: Final = timedelta(days=1)
_LAST: Final = datetime.max.replace(tzinfo=UTC)


def _entries(path: Path) -> dict[bytes, bytes]:
    """What stands in `by_option`, as LMDB has it."""
    with lmdb.open(str(path / "000001"), max_dbs=16, readonly=True, lock=False) as environment:
        database = environment.open_db(layout.BY_OPTION, create=False)
        with environment.begin() as transaction:
            return dict(transaction.cursor(database))


def _of(store: quelmdb.Store) -> dict[bytes, bytes]:
    def work(environment: Environment, transaction: Transaction) -> dict[bytes, bytes]:
        assert environment.databases.by_option is not None
        return dict(transaction.cursor(environment.databases.by_option))

    return store._read(work)


def _records(store: quelmdb.Store) -> dict[int, bytes]:
    def work(environment: Environment, transaction: Transaction) -> dict[int, bytes]:
        found = transaction.cursor(environment.databases.jobs)
        return {layout.unpack_number(key): record for key, record in found}

    return store._read(work)


# --- What it costs --------------------------------------------------------------


def test_a_job_without_options_has_no_flag_and_no_entry_in_any_state(store: quelmdb.Store) -> None:
    store.insert_many(Job("a", n) for n in range(8))
    one, two, three, *rest = store.claim(limit=6)
    store.complete(one, "result")
    store.release(two)
    store.complete_many(rest)
    store.update(three.replace(status="cancelled"))
    store.cancel(store.insert(Job("a")))
    assert {layout.flags_of(record) for record in _records(store).values()} == {0}
    assert _of(store) == {}


def test_max_attempts_alone_costs_no_entry(store: quelmdb.Store) -> None:
    store.insert_many(Job("a", n, max_attempts=2) for n in range(3))
    one, two = store.claim(limit=2)
    store.complete(one)
    store.fail(two, "oh")
    assert _of(store) == {}


def _largest(**fields: Any) -> Job:
    """A job of which every part is as large as it may be."""
    failures = [Failure(MAX_ATTEMPT, _LAST, _LAST, "f" * 1000, died=True)] * MAX_FAILURES
    whole: dict[str, Any] = {
        "arguments": b"a" * (layout.INLINE_ARGUMENTS - 3),
        "result": b"r" * (layout.INLINE_BESIDE_OPTIONS - 2),
        "error": "e" * (layout.INLINE_BESIDE_OPTIONS - 2),
        "run_at": _LAST,
        "priority": MAX_PRIORITY,
        "unique_key": "k" * MAX_UNIQUE_KEY_BYTES,
        "max_attempts": MAX_ATTEMPT,
        "progress": Progress(2**63 - 1, 2**63 - 1, "\U0001f600" * MAX_NOTE),
        "failures": failures,
    }
    return Job("w", **{**whole, **fields})


def test_no_record_with_options_gets_a_page_of_its_own(path: Path) -> None:
    """With every part inline that may be, just below its limit, and in every state."""
    clock = ManualClock()
    sizes = (layout.INLINE_BESIDE_OPTIONS, layout.INLINE_BESIDE_OPTIONS + 1, layout.INLINE_EXTRA)
    with quelmdb.open(path, clock=clock) as store:
        number = 0
        for size in sizes:
            for text in (None, "e" * (size - 3)):
                for count in (0, 1, MAX_FAILURES):
                    number += 1
                    short = Failure(1, _LAST, _LAST, "f" * 24)
                    store.insert(
                        _largest(
                            result=b"r" * (size - 3),
                            error=text,
                            failures=[short] * count,
                            run_at=None,
                            unique_key=f"{number:0200}",
                        )
                    )
        store.insert(_largest())
        held = store.claim(limit=100)
        assert len(held) == number
        largest = max(map(len, _records(store).values()))
        for job in held:
            store.progress(job, 2**63 - 1, 2**63 - 1, "\U0001f600" * MAX_NOTE)
        for job in held[::2]:
            store.cancel(job)
        largest = max(largest, *map(len, _records(store).values()))
        for job in store.jobs("started"):
            store.update(job.replace(error="e" * 62, result=b"r" * 62))
        largest = max(largest, *map(len, _records(store).values()))
        for place, job in enumerate(held):
            match place % 3:
                case 0:
                    store.fail(job, "e" * 62, retry_at=_LAST)
                case 1:
                    store.complete(job, b"r" * 62)
                case _:
                    store.release(job)
            largest = max(largest, *map(len, _records(store).values()))
        print(f"the largest record has {largest} bytes")
        assert largest <= _HALF_A_PAGE
        assert store.check() == []
    with lmdb.open(str(path / "000001"), max_dbs=16, readonly=True) as environment:
        for name in (layout.JOBS, layout.PAYLOADS, layout.BY_OPTION):
            database = environment.open_db(name, create=False)
            with environment.begin() as transaction:
                assert transaction.stat(database)["overflow_pages"] == 0, name


# --- Entries follow the job -------------------------------------------------------


def _own(store: quelmdb.Store, job: Job, *kinds: str) -> dict[bytes, bytes]:
    """The entries of these kinds that a job has."""
    assert job.id is not None
    worker = 1  # the number of the only worker there is
    found = {}
    for kind in kinds:
        if kind == "due":
            assert job.run_at is not None
            found[due_key(microseconds(job.run_at), job.id)] = b""
        elif kind == "priority":
            found[priority_key(None, job.priority, job.id)] = b""
            found[priority_key(worker, job.priority, job.id)] = b""
        else:
            assert job.unique_key is not None
            found[unique_key_of(job.unique_key)] = pack_number(job.id)
    return found


def test_the_entries_of_a_job_follow_each_transition(path: Path) -> None:
    clock = ManualClock()
    with quelmdb.open(path, clock=clock) as store:

        def has(job: Job, status: str, *kinds: str) -> None:
            assert job.status == status
            assert store.find(job) == job
            assert _of(store) == _own(store, job, *kinds)
            assert store.check() == []

        job = Job("a", priority=7, unique_key="k", run_at=clock.time + _LATER, max_attempts=9)
        job = store.insert(job)
        has(job, "scheduled", "due", "unique")
        assert store.next_due() == job.run_at
        assert store.claim() == []
        clock.advance(86_400_000_000)
        (job,) = store.claim()
        has(job, "started", "unique")
        has(store.progress(job, 1), "started", "unique")
        job = store.release(job)
        has(job, "queued", "priority", "unique")
        (job,) = store.claim()
        job = store.fail(job, "oh", retry_at=clock.time + _LATER)
        has(job, "scheduled", "due", "unique")
        job = store.retry(job)
        has(job, "queued", "priority", "unique")
        job = store.cancel(job)
        has(job, "cancelled")
        job = store.retry(job)
        has(job, "queued", "priority", "unique")
        job = store.update(job.replace(priority=3, unique_key="l"))
        has(job, "queued", "priority", "unique")
        job = store.update(job.replace(status="scheduled", run_at=clock.time))
        has(job, "scheduled", "due", "unique")
        clock.advance(1)
        (job,) = store.claim()
        store.cancel(job)
        (job,) = store.jobs("started")
        has(job, "started", "unique")
        job = store.release(job)
        has(job, "cancelled")
        job = store.update(job.replace(status="started", priority=0))
        has(job, "started", "unique")
        other = store.insert(Job("a", priority=1, unique_key="l"), on_duplicate="replace")
        assert _of(store) == _own(store, other, "priority", "unique")
        store.destroy(job)
        (other,) = store.restore([other.replace(priority=4)], on_conflict="replace")
        has(other, "queued", "priority", "unique")
        (other,) = store.claim()
        has(store.complete(other), "completed")
        assert store.prune() == 1
        assert _of(store) == {}


def test_what_a_dead_process_held_has_its_entries_again(path: Path) -> None:
    clock = ManualClock()
    for most, cancelled, kinds in (
        (None, False, ["priority", "unique"]),
        (1, False, []),
        (None, True, []),
    ):
        with quelmdb.open(path, clock=clock) as store:
            store.insert(Job("a", priority=2, unique_key="k", max_attempts=most))
            (held,) = store.claim()
            if cancelled:
                store.cancel(held)
        with quelmdb.open(path, clock=clock) as store:
            (job,) = store.rescue()
            assert _of(store) == _own(store, job, *kinds)
            assert store.check() == []
            store.destroy(job)


# --- Damage -------------------------------------------------------------------------


@pytest.fixture
def closed(tmp_path: Path) -> Path:
    """A store of five jobs: one scheduled, one with a priority, one with a key, one with
    failures, one without any of it."""
    path = tmp_path / "damaged.qdb"
    clock = ManualClock()
    with quelmdb.open(path, clock=clock) as store:
        store.insert(Job("a", 1, run_at=clock.time + _LATER))
        store.insert(Job("a", 2, priority=5))
        store.insert(Job("a", 3, unique_key="k"))
        failure = Failure(1, clock.time, clock.time, "oh")
        store.insert(Job("a", 4, failures=[failure], max_attempts=9))
        store.insert(Job("a", 5))
        assert store.check() == []
    return path


_AT: Final = microseconds(ManualClock().time + _LATER)
_OWN: Final = {
    "due": (1, due_key(_AT, 1), b""),
    "priority": (2, priority_key(None, 5, 2), b""),
    "priority of its worker": (2, priority_key(1, 5, 2), b""),
    "unique": (3, unique_key_of("k"), pack_number(3)),
}


@pytest.mark.parametrize("kind", _OWN)
def test_a_missing_entry_is_found_and_the_job_can_still_be_had(kind: str, closed: Path) -> None:
    job_id, key, _ = _OWN[kind]
    with raw(closed) as content:
        assert content.transaction.delete(key, db=content.databases.by_option)
    with quelmdb.open(closed) as store:
        assert {(p.rule, p.job_id) for p in store.check()} == {("by_option", job_id)}
        store.retry_many([1])
        assert sorted(job.id or 0 for job in store.claim(limit=9)) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (kind, value)
        for kind, (_, _, right) in _OWN.items()
        for value in (b"", b"x", pack_number(1), pack_number(99))
        if value != right
    ],
)
def test_an_entry_with_another_value_is_found(kind: str, value: bytes, closed: Path) -> None:
    _, key, _ = _OWN[kind]
    with raw(closed) as content:
        content.transaction.put(key, value, db=content.databases.by_option)
    with quelmdb.open(closed) as store:
        assert "by_option" in {problem.rule for problem in store.check()}
        assert len(store.all()) == 5


_FOREIGN: Final = {
    "of a time that is not its own": due_key(_AT + 1, 1),
    "of a job that is not scheduled": due_key(_AT, 5),
    "of a job without a priority": priority_key(None, 5, 5),
    "of another priority": priority_key(1, 6, 2),
    "of another worker": priority_key(2, 5, 2),
    "of a key that is not its own": unique_key_of("l"),
}


@pytest.mark.parametrize("job_id", [None, 99])
@pytest.mark.parametrize("key", _FOREIGN.values(), ids=_FOREIGN)
def test_a_foreign_entry_is_found_and_claims_pass_over_it(
    key: bytes, job_id: int | None, closed: Path
) -> None:
    """Also one whose job is not there at all."""
    if job_id is not None and key[:1] != b"U":
        key = key[:-8] + job_id.to_bytes(8)
    value = pack_number(job_id or 3) if key[:1] == b"U" else b""
    with raw(closed) as content:
        content.transaction.put(key, value, db=content.databases.by_option)
    clock = ManualClock()
    clock.advance(2 * 86_400_000_000)
    with quelmdb.open(closed, clock=clock) as store:
        assert {problem.rule for problem in store.check()} == {"by_option"}
        assert sorted(job.id or 0 for job in store.claim(limit=9)) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("key", [b"?", b"D", b"Dshort", b"P", b"W1234", b"Z", b"Zshort"])
def test_a_key_that_is_none_is_found(key: bytes, closed: Path) -> None:
    with raw(closed) as content:
        content.transaction.put(key, b"", db=content.databases.by_option)
    with quelmdb.open(closed) as store:
        assert {problem.rule for problem in store.check()} == {"by_option"}
        assert len(list(store.all())) == 5


def test_a_paused_worker_without_a_name_is_found(closed: Path) -> None:
    with raw(closed) as content:
        content.transaction.put(paused_key(77), b"", db=content.databases.by_option)
    with quelmdb.open(closed) as store:
        assert store.check() != []
        assert len(list(store.all())) == 5


_BAD: Final = {
    "noise": b"\xff\x00\xff",
    "nothing": b"",
    "a number": b"\x05",
    "text": b"\x61a",
    "an empty list": b"\x80",
    "a list of too few": b"\x82\x00\x00",
    "a list of too many": b"\x86\xf6\x00\xf6\xf6\xf6\xf6",
    "a time that is none": b"\x85\x1b" + b"\xff" * 8 + b"\x00\xf6\xf6\xf6",
    "a time that is text": b"\x85\x61a\x00\xf6\xf6\xf6",
    "a priority that is text": b"\x85\xf6\x61a\xf6\xf6\xf6",
    "a negative priority": b"\x85\xf6\x20\xf6\xf6\xf6",
    "a key that is a number": b"\x85\xf6\x00\x05\xf6\xf6",
    "no attempts": b"\x85\xf6\x00\xf6\x00\xf6",
    "progress that is a number": b"\x85\xf6\x00\xf6\xf6\x05",
    "progress of texts": b"\x85\xf6\x00\xf6\xf6\x82\x61a\x61b",
    "a map": b"\xa0",
    "a list of lists": b"\x81\x80",
    "a list of numbers": b"\x81\x05",
    "a failure of texts": b"\x81\x85\x61a\x61b\x61c\x61d\x61e",
    "a failure at no time": b"\x81\x85\x01\x1b" + b"\xff" * 8 + b"\x00\x61d\xf4",
    "a deep list": b"\x81" * 5000 + b"\x00",
    "a huge list": b"\x9b" + b"\xff" * 8,
}
_MAPS: Final = {
    f"{name}, {part}": Codec().encode({key: value})
    for name, value in _BAD.items()
    for part, key in (("options", "o"), ("failures", "f"), ("claimed", "c"))
}
_MAPS["no map"] = b"\x81\x05"
_MAPS["no bytes"] = b"\xa1\x61o\x05"
_MAPS["other names"] = b"\xa1\x61x\x41\x05"


@pytest.mark.timeout(60)
@pytest.mark.parametrize("extras", _MAPS.values(), ids=_MAPS)
def test_damaged_options_and_failures_raise_ours_alone_and_harm_no_other_job(
    extras: bytes, closed: Path
) -> None:
    """In each state that is looked at by another verb, of a job that nobody holds."""
    with quelmdb.open(closed) as store:
        store.claim("a", limit=9)  # and who held them has closed it
    with raw(closed) as content:
        content.change_arguments(4, b"\x04", extras)
        content.change_header(4, flags=layout.RARE)
    with quelmdb.open(closed) as store:
        assert {problem.job_id for problem in store.check()} <= {4}
        rescued = [job.id for job in store.rescue()]
        assert {2, 3, 5} <= set(rescued)
        _use(store)
        claimed = {job.id for job in store.claim(limit=9)}
        assert {2, 3, 5} <= claimed
        _use(store)
        store.complete_many(job for job in store.jobs("started") if job.id != 4)
        assert {2, 3, 5} <= set(store.completed().ids())
        assert {problem.job_id for problem in store.check()} <= {4}


def _use(store: quelmdb.Store) -> None:
    """What can be asked of a damaged job, or be done to it."""
    uses: list[Callable[[], object]] = [
        lambda: store.find(4),
        lambda: _look(store.find(4)),
        lambda: store.cancel_requested(Job(id=4, claim=4)),
        lambda: store.progress(Job(id=4, claim=4), 1),
        lambda: store.cancel(4),
        lambda: store.retry(4),
        lambda: store.update(Job("a", 4, id=4, status="started", priority=1)),
    ]
    for use in uses[: random.Random().randrange(3, len(uses) + 1)]:
        with suppress(CorruptRecordError, DecodeError, quelmdb.JobError):
            use()
    assert {job.id for job in store.all()} >= {2, 3, 5}


def _look(job: Job | None) -> None:
    assert job is not None
    job.as_dict()
    repr(job)


def test_failures_outside_of_the_record_that_are_damaged_are_found(closed: Path) -> None:
    now = ManualClock().time
    with quelmdb.open(closed) as store:
        store.insert(Job("a", 6, priority=1, failures=[Failure(1, now, now, "x" * 900)] * 3))
    with raw(closed) as content:
        key = layout.payload_key(6, layout.FAILURES)
        content.transaction.put(key, b"damaged", db=content.databases.payloads)
    with quelmdb.open(closed, clock=ManualClock()) as store:
        with pytest.raises(CorruptRecordError, match="failures"):
            store.find(6)
        assert 6 in {problem.job_id for problem in store.check()}
        assert sorted(job.id or 0 for job in store.claim(limit=9)) == [2, 3, 4, 5]
        store.destroy(6)
        assert store.check() == []


# --- Schedules ------------------------------------------------------------------------


def _claim_seconds(store: quelmdb.Store) -> float:
    """What a claim and its release take, the best of many."""
    best = 1.0
    for _ in range(60):
        begun = time.perf_counter()
        (job,) = store.claim("a")
        best = min(best, time.perf_counter() - begun)
        store.release(job)
    return best


def test_scheduled_jobs_beside_cost_a_claim_nothing(path: Path, long: bool) -> None:
    many = 1_000_000 if long else 100_000
    later = datetime.now(UTC) + _LATER
    with quelmdb.open(path) as store:
        store.insert(Job("a"))
        store.insert(Job("b", run_at=later))  # from here on claims look at the index
        before = _claim_seconds(store)
        for _ in range(0, many, 50_000):
            store.insert_many(Job("b", run_at=later) for _ in range(50_000))
        assert store.counts()[Status.SCHEDULED] > many
        beside = _claim_seconds(store)
        begun = time.perf_counter()
        for _ in range(100):
            assert store.next_due() == later
        asked = (time.perf_counter() - begun) / 100
        print(f"a claim took {before * 1e6:.0f} us, beside {many:,} {beside * 1e6:.0f} us")
        print(f"next_due {asked * 1e6:.0f} us")
        assert beside < 3 * before + 0.0005
        assert asked < 0.001


def test_due_jobs_become_queued_some_hundreds_a_claim_and_all_of_them_in_the_end(
    path: Path,
) -> None:
    clock = ManualClock()
    with quelmdb.open(path, clock=clock) as store:
        places = list(range(1000))
        random.Random(7).shuffle(places)
        store.insert_many(
            Job("a", place, run_at=clock.time + timedelta(seconds=place + 1)) for place in places
        )
        assert store.claim("b") == []
        assert store.counts()[Status.SCHEDULED] == 1000
        clock.advance(2_000_000_000)
        for left in (744, 488, 232, 0):
            assert store.claim("b") == []  # they become queued whose ever they are
            assert store.counts()[Status.SCHEDULED] == left
            queued = [job.arguments for job in store.jobs("queued")]
            assert sorted(queued) == list(range(1000 - left))  # by their times
        assert store.next_due() is None
        claimed = []
        while some := store.claim("a", limit=128):
            claimed += some
        assert sorted(job.arguments for job in claimed) == list(range(1000))
        assert [job.id for job in claimed] == sorted(job.id or 0 for job in claimed)


# --- Unique keys ----------------------------------------------------------------------


def _race(number: int, path: Path, rounds: int, way: Any) -> list[tuple[int, bool]]:
    won = []
    with quelmdb.open(path) as store:
        for key in range(rounds):
            try:
                job = store.insert(Job("a", number, unique_key=f"k{key}"), on_duplicate=way)
                won.append((job.id or 0, job.arguments == number))
            except DuplicateJobError as error:
                won.append((error.job_id or 0, False))
    return won


@pytest.mark.parametrize("way", ["raise", "skip"])
def test_of_processes_that_insert_the_same_key_exactly_one_wins(way: str, path: Path) -> None:
    rounds = 40
    told = in_children(3, _race, path, rounds, way, method="fork")
    with quelmdb.open(path) as store:
        assert len(store.all()) == rounds
        for key, of_key in enumerate(zip(*told, strict=True)):
            (job_id,) = {job_id for job_id, _ in of_key}
            assert sum(has_won for _, has_won in of_key) == 1
            job = store.find(job_id)
            assert job is not None
            assert job.unique_key == f"k{key}"


def test_insert_many_meets_duplicates_row_by_row(store: quelmdb.Store) -> None:
    held = store.insert(Job("a", "old", unique_key="held"))
    store.claim()
    jobs = [Job("a", n, unique_key=key) for n, key in enumerate(["k", "l", "k", "held", None, "k"])]
    before = list(store.all())
    with pytest.raises(DuplicateJobError):
        store.insert_many(jobs)
    assert list(store.all()) == before
    skipped = store.insert_many(jobs, on_duplicate="skip")
    assert [job.id for job in skipped] == [2, 3, 2, held.id, 4, 2]
    assert [job.arguments for job in skipped] == [0, 1, 0, "old", 4, 0]
    replaced = store.insert_many(jobs, on_duplicate="replace")
    assert [job.id for job in replaced] == [2, 3, 2, 5, 6, 2]
    assert [job.arguments for job in store.jobs("queued")] == [5, 1, 4, 3, 4]
    (started,) = store.jobs("started")
    assert (started.id, started.unique_key) == (held.id, None)
    assert store.complete(started).status == "completed"


# --- Priorities -------------------------------------------------------------------------


def test_the_highest_priority_comes_first_among_many_workers(path: Path) -> None:
    rng = random.Random(11)
    names = [None, *(f"w{n}" for n in range(30))]
    with quelmdb.open(path) as store:
        jobs = store.insert_many(
            Job(rng.choice(names), priority=rng.choice([0, 0, 1, 5, MAX_PRIORITY]))
            for _ in range(600)
        )
        paused = set(rng.sample(names, 5))
        for name in paused:
            store.pause(name)
        asked = rng.sample(names, 12)

        def expected(of: list[Job], limit: int) -> list[int | None]:
            ranked = sorted(of, key=lambda job: (-job.priority, job.id or 0))
            return [job.id for job in ranked[:limit]]

        left = [job for job in jobs if job.worker not in paused]
        while mine := [job for job in left if job.worker in asked]:
            wanted = expected(mine, 17)
            assert [job.id for job in store.claim(*asked, limit=17)] == wanted
            left = [job for job in left if job.id not in wanted]
        while left:
            wanted = expected(left, 31)
            assert [job.id for job in store.claim(limit=31)] == wanted
            left = [job for job in left if job.id not in wanted]
        assert store.claim() == []
        for name in paused:
            store.resume(name)
        late = [job for job in jobs if job.worker in paused]
        assert [job.id for job in store.claim(limit=600)] == expected(late, 600)


# --- Kills --------------------------------------------------------------------------------


def _work(pipe: Connection, path: Path, seed: int) -> None:
    """Random verbs on jobs that have options, for ever."""
    rng = random.Random(seed)
    with quelmdb.open(path) as store:
        held: list[Job] = []
        while True:
            _step(store, rng, held)
            pipe.send(None)


def _step(store: quelmdb.Store, rng: random.Random, held: list[Job]) -> None:
    soon = datetime.now(UTC) + timedelta(milliseconds=rng.randrange(-20, 20))
    try:
        match rng.randrange(9):
            case 0 | 1 | 2:
                store.insert_many(_new(rng, soon) for _ in range(4))
            case 3 | 4:
                held += store.claim(limit=rng.randrange(1, 4))
            case 5 if held:
                store.fail(held.pop(), "x" * rng.choice((5, 900)), retry_at=soon)
            case 6 if held:
                store.progress(held[-1], 1, 2, "note")
                store.cancel(held[-1])
                store.release(held.pop())
            case 7:
                ids = list(store.all(limit=40).ids())
                store.cancel_many(rng.sample(ids, min(len(ids), 3)))
                store.retry_many(rng.sample(ids, min(len(ids), 3)))
            case 8:
                store.prune(keep=20)
    except (DuplicateJobError, quelmdb.StaleClaim, quelmdb.JobNotFoundError):
        pass


def _new(rng: random.Random, soon: datetime) -> Job:
    return Job(
        rng.choice("ab"),
        b"x" * rng.choice((3, 3000)),
        run_at=rng.choice((None, soon)),
        priority=rng.randrange(3),
        unique_key=rng.choice((None, None, f"k{rng.randrange(50)}")),
        max_attempts=rng.choice((None, 2)),
    )


def _until(child: Child, steps: int) -> Iterator[None]:
    for count in range(steps + 1):
        if count == steps:
            child.kill()
        try:
            yield child.receive()
        except ChildDiedError:
            return


def test_the_index_of_options_is_that_of_the_records_after_a_kill_at_any_moment(
    path: Path, long: bool
) -> None:
    rng = random.Random()
    for _ in range(200 if long else 10):
        with Child(_work, path, rng.getrandbits(32)) as child:
            for _ in _until(child, rng.randrange(5, 80)):
                pass
        with quelmdb.open(path) as store:
            assert store.check() == []
            store.rescue()
            assert not any(job.owner for job in store.jobs("started"))
            assert store.check() == []


def test_entries_are_as_large_as_lmdb_takes() -> None:
    """511 bytes are the most of a key."""
    assert len(unique_key_of("k" * MAX_UNIQUE_KEY_BYTES)) <= 511


def test_a_closed_store_has_only_entries_of_its_jobs(path: Path) -> None:
    with quelmdb.open(path) as store:
        store.insert(Job("a", unique_key="k"))
        store.destroy(1)
        store.insert(Job("a", priority=1))
        store.pause("a")
    assert set(_entries(path)) == {
        priority_key(None, 1, 2),
        priority_key(1, 1, 2),
        paused_key(1),
    }
