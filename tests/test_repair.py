"""Repair: every kind of damage that `check` finds becomes a store in which it finds nothing,
every job that can be read is as it was, and nothing is lost."""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

import quelmdb
from quelmdb import Job, UnsupportedFormatError, codec, layout
from quelmdb.layout import pack_number
from quelmdb.maintenance.repair import Repaired, repair
from quelmdb.maintenance.salvage import Chunk, Salvage
from quelmdb.pages import BRANCH, Hole, Pages, as_bytes, as_number, kind_of
from quelmdb.records import references
from quelmdb.values import time_of
from tests.damage import Raw, damaged_copy, data_file, raw, used_bytes
from tests.test_corrupt_records import BAD_RECORDS, HOSTILE

pytest_plugins = ["tests.fixtures"]

_PAGE: Final = 4096
_GENERATION: Final = layout.generation_name(layout.FIRST_GENERATION)
_DAMAGED: Final = 4  # the id of the job that is, of worker b; 4 and above are queued
_SCHEDULED, _QUEUED, _STARTED, _COMPLETED, _FAILED, _ = layout.STATUS_KEYS

Jobs = dict[int | None, Job]


class Outcome(NamedTuple):
    """A repaired store, and what is told of its repair."""

    told: Repaired
    path: Path
    jobs: Jobs
    aside: list[dict[str, Any]]


def _fill(path: Path) -> None:
    """A store with jobs of every kind."""
    with quelmdb.open(path) as store:
        store.insert_many(Job("ba"[n % 2], {"n": n}) for n in range(1, 11))
        one, two, _ = store.claim(limit=3)
        store.complete(one, result=b"r" * 5000)
        store.fail(two, "why " * 300)
        store.insert(Job("b", "due", run_at=time_of(2**52)))
        store.insert(Job("b", "urgent", priority=7))
        store.insert(Job("a", b"big" * 3000, unique_key="only", priority=3, max_attempts=5))
        store.insert(Job(None, "nobody's"))
        store.pause("b")
        store.destroy(store.insert(Job("c", "gone")))
        assert store.check() == []


@pytest.fixture
def closed(tmp_path: Path) -> Path:
    path = tmp_path / "jobs.qdb"
    _fill(path)
    return path


def _jobs_of(path: Path) -> Jobs:
    """Those that can be read, as they are."""
    with quelmdb.open(path) as store:
        return _jobs_in(store)


def _jobs_in(store: quelmdb.Store) -> Jobs:
    found = {}
    for job in store.all():
        try:
            job.as_dict()
        except quelmdb.DecodeError:
            continue
        found[job.id] = job
    return found


def _repair(path: Path, name: str = "repaired", **options: Any) -> Outcome:
    """Repairs a store into one beside it, which must be without a problem."""
    new = path.with_name(name)
    aside = path.with_name(f"{name}.aside")
    (new / _GENERATION).mkdir(parents=True)
    before = data_file(path).read_bytes()
    told = repair(path / _GENERATION, new / _GENERATION, aside, **options)
    assert data_file(path).read_bytes() == before
    if (path / layout.BOOT_FILE).exists():
        (new / layout.BOOT_FILE).write_bytes((path / layout.BOOT_FILE).read_bytes())
    with quelmdb.open(new, create=False) as store:
        assert store.check() == []
        assert len(store.all()) == told.kept
        jobs = _jobs_in(store)
    assert told.aside == (aside if aside.exists() else None)
    items = list(_items(aside)) if told.aside else []
    assert len(items) == told.set_aside
    return Outcome(told, new, jobs, items)


def _items(aside: Path) -> Iterator[dict[str, Any]]:
    items = codec.decode_sequence(BufferedReader(BytesIO(aside.read_bytes())))
    assert next(items) == {"quelmdb": "aside", "version": 1}
    return items


def _after(closed: Path, damage: Callable[[Raw], object]) -> tuple[Jobs, Outcome]:
    """The jobs before, and what a repair makes of the damage."""
    before = _jobs_of(closed)
    with raw(closed) as content:
        damage(content)
    return before, _repair(closed)


def _meta(path: Path) -> dict[bytes, bytes]:
    with raw(path) as content:
        return dict(content.transaction.cursor(content.databases.meta))


# --- What is whole ------------------------------------------------------------


def test_a_sound_store_is_the_same_after_a_repair(closed: Path) -> None:
    before = _jobs_of(closed)
    paused = _paused(closed)
    done = _repair(closed)
    assert done.jobs == before
    assert done.told == Repaired(kept=len(before))
    assert _meta(done.path) == _meta(closed)
    assert _paused(done.path) == paused == {"b"}
    with quelmdb.open(done.path) as store:
        assert [job.id for job in store.rescue()] == [3]
        assert store.claim("b") == []
        with pytest.raises(quelmdb.DuplicateJobError):
            store.insert(Job("a", unique_key="only"))


def _paused(path: Path) -> set[str | None]:
    with quelmdb.open(path) as store:
        return set(store.paused())


def test_a_large_store_is_the_same_after_a_repair(tmp_path: Path) -> None:
    """Trees of several levels, free pages, pages that were split in the middle."""
    path = tmp_path / "jobs.qdb"
    rng = random.Random(1)
    with quelmdb.open(path) as store:
        store.insert_many(
            Job(f"worker {n % 700}", rng.randbytes(rng.choice((9, 300, 900, 5000))), priority=n % 3)
            for n in range(3000)
        )
        store.destroy_many(rng.sample(range(1, 3001), 1000))
        claimed = store.claim(limit=500)
        store.complete_many(claimed, [rng.randbytes(rng.randrange(4000)) for _ in claimed])
    told: list[tuple[int, int]] = []
    before = _jobs_of(path)
    done = _repair(path, progress=lambda *numbers: told.append(numbers))
    assert done.jobs == before
    assert done.told == Repaired(kept=2000)
    assert told == [*sorted(told)]
    assert told[-1] == (2000, 2000)


def test_an_empty_store_is_repaired_to_an_empty_one(tmp_path: Path) -> None:
    path = tmp_path / "jobs.qdb"
    quelmdb.open(path).close()
    assert _repair(path).told == Repaired()


def test_an_ephemeral_store_keeps_its_durability_and_its_capacity(tmp_path: Path) -> None:
    path = tmp_path / "jobs.qdb"
    with quelmdb.open(path, durability="ephemeral", capacity=8 * 2**20) as store:
        store.insert_many(Job("a", n) for n in range(100))
    before = _jobs_of(path)
    done = _repair(path)
    assert done.jobs == before
    with quelmdb.open(done.path, durability="ephemeral", capacity=8 * 2**20):
        assert data_file(done.path).stat().st_size == 8 * 2**20


# --- Records and values -------------------------------------------------------


@pytest.mark.parametrize("damage", BAD_RECORDS.values(), ids=BAD_RECORDS)
def test_a_bad_record_is_set_aside_and_every_other_job_is_kept(
    damage: Callable[[Raw], None], closed: Path
) -> None:
    before = _jobs_of(closed)
    with raw(closed) as content:
        damage(content)
        record = content.record(_DAMAGED)
    done = _repair(closed)
    if done.told.invented:  # it lacks nothing but the name of its worker
        assert done.told.invented == {99: "unknown-worker-99"}
        assert done.jobs[_DAMAGED].worker == "unknown-worker-99"
        assert done.jobs.pop(_DAMAGED).arguments == before[_DAMAGED].arguments
    else:
        assert [(item["id"], item["record"]) for item in done.aside] == [(_DAMAGED, record)]
        assert done.aside[0]["reason"]
    del before[_DAMAGED]
    assert done.jobs == before
    assert {problem.job_id for problem in done.told.problems} <= {_DAMAGED, None}


@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("where", ["arguments", "extras"])
def test_a_record_with_a_value_that_is_none_is_set_aside(
    where: str, value: bytes, closed: Path
) -> None:
    if where == "extras" and not value:
        return
    before = _jobs_of(closed)
    with raw(closed) as content:
        content.change_arguments(_DAMAGED, *((value,) if where == "arguments" else (b"\1", value)))
        record = content.record(_DAMAGED)
    done = _repair(closed)
    del before[_DAMAGED]
    assert done.jobs == before
    assert [item["record"] for item in done.aside] == [record]


@pytest.mark.parametrize("micros", [2**63 - 1, -(2**63)])
def test_a_record_with_a_time_that_is_none_is_set_aside(micros: int, closed: Path) -> None:
    before, done = _after(closed, lambda raw: raw.change_header(_DAMAGED, created_at=micros))
    assert before.keys() - done.jobs.keys() == {_DAMAGED}
    assert len(done.aside) == 1


def test_a_record_with_a_claim_that_is_none_is_set_aside(closed: Path) -> None:
    before, done = _after(closed, lambda raw: raw.change_header(_DAMAGED, claim=2**64 - 1))
    assert before.keys() - done.jobs.keys() == {_DAMAGED}
    assert len(done.aside) == 1


# --- Payloads -----------------------------------------------------------------

_BIG: Final = 13  # the id of the job whose arguments stand outside


@pytest.mark.parametrize("chunk", range(5))
@pytest.mark.parametrize("value", [None, b"c" * 2000])
def test_a_job_with_a_damaged_or_missing_chunk_is_set_aside_with_the_others(
    value: bytes | None, chunk: int, closed: Path
) -> None:
    left: list[object] = []

    def damage(content: Raw) -> None:
        key = layout.payload_key(_BIG, layout.ARGUMENTS, chunk)
        if value is None:
            assert content.transaction.delete(key, db=content.databases.payloads)
        else:
            content.transaction.put(key, value, db=content.databases.payloads)
        left.extend(
            [key, value]
            for key, value in content.transaction.cursor(content.databases.payloads)
            if layout.split_payload_key(key)[0] == _BIG
        )
        left.append(content.record(_BIG))

    before, done = _after(closed, damage)
    del before[_BIG]
    assert done.jobs == before
    (item,) = done.aside
    assert [*item["chunks"], item["record"]] == left


def test_a_job_is_kept_although_the_number_of_a_chunk_is_damaged(closed: Path) -> None:
    """Their order and the checksum tell, as to whoever reads the job."""

    def damage(content: Raw) -> None:
        payloads = content.databases.payloads
        key = layout.payload_key(_BIG, layout.ARGUMENTS, 4)  # the last one
        chunk = content.transaction.pop(key, db=payloads)
        assert chunk is not None
        content.transaction.put(layout.payload_key(_BIG, layout.ARGUMENTS, 999), chunk, db=payloads)

    before, done = _after(closed, damage)
    assert done.jobs == before
    assert done.aside == []


def test_chunks_to_which_nothing_refers_are_set_aside(closed: Path) -> None:
    orphans = {
        layout.payload_key(1, layout.ARGUMENTS): b"of a job without",
        layout.payload_key(3, layout.RESULT): b"of a job that has none outside",
        layout.payload_key(99, layout.ARGUMENTS): b"of no job",
        b"k": b"a key that is none",
        b"k" * 13: b"one of no job",
        b"k" * 14: b"one that is too long",
    }

    def damage(content: Raw) -> None:
        for key, value in orphans.items():
            content.transaction.put(key, value, db=content.databases.payloads)

    before, done = _after(closed, damage)
    assert done.jobs == before
    assert {key: value for item in done.aside for key, value in item["chunks"]} == orphans


# --- Indexes, counters, owners ------------------------------------------------


def _put(database: str, key: bytes, value: bytes) -> Callable[[Raw], object]:
    return lambda content: content.transaction.put(
        key, value, db=getattr(content.databases, database)
    )


def _delete(database: str, key: bytes, value: bytes = b"") -> Callable[[Raw], object]:
    def damage(content: Raw) -> None:
        assert content.transaction.delete(key, value, db=getattr(content.databases, database))

    return damage


_KEY: Final = pack_number(_DAMAGED)
_OF_B: Final = layout.worker_status_key(2, 1)
_INDEXES: Final = {
    "an entry is missing in by_status": _delete("by_status", _QUEUED, _KEY),
    "an entry is missing in by_worker_status": _delete("by_worker_status", _OF_B, _KEY),
    "a foreign entry is in by_status": _put("by_status", _FAILED, _KEY),
    "an entry of no job is in by_status": _put("by_status", _FAILED, pack_number(99)),
    "a foreign entry is in by_worker_status": _put("by_worker_status", pack_number(517), _KEY),
    "an entry of no job is in by_worker_status": _put("by_worker_status", _OF_B, pack_number(99)),
    "a status that is none is in by_status": _put("by_status", pack_number(77), _KEY),
    "a worker's key is in by_status": _put("by_status", layout.worker_status_key(1, 1), _KEY),
    "a due time is missing": _delete("by_option", layout.due_key(2**52, 11)),
    "a priority is missing": _delete("by_option", layout.priority_key(None, 7, 12)),
    "a priority of no job is there": _put("by_option", layout.priority_key(2, 1, 99), b""),
    "a unique key is missing": _delete("by_option", layout.unique_key_of("only")),
    "a unique key is another's": _put("by_option", layout.unique_key_of("only"), _KEY),
    "a unique key is a job's without one": _put("by_option", layout.unique_key_of("mine"), _KEY),
    "an option is none": _put("by_option", b"?", b""),
    "a worker is paused that is none": _put("by_option", layout.paused_key(99), b""),
    "a paused worker is no number": _put("by_option", b"Z?", b""),
    "a paused worker has a value": _put("by_option", layout.paused_key(2), b"?"),
    "next_id is 0": _put("meta", layout.NEXT_ID, pack_number(0)),
    "next_id is too low": _put("meta", layout.NEXT_ID, pack_number(5)),
    "next_id is too high": _put("meta", layout.NEXT_ID, pack_number(2**64 - 1)),
    "next_id is no number": _put("meta", layout.NEXT_ID, b"short"),
    "next_id is missing": _delete("meta", layout.NEXT_ID),
    "next_claim is too low": _put("meta", layout.NEXT_CLAIM, pack_number(1)),
    "next_owner is too low": _put("meta", layout.NEXT_OWNER, pack_number(1)),
    "next_worker is too low": _put("meta", layout.NEXT_WORKER, pack_number(1)),
    "the uuid is none": _put("meta", layout.UUID_KEY, b"short"),
    "the format is another": _put("meta", layout.FORMAT_KEY, pack_number(9)),
    "the identity is missing": _delete("meta", layout.IDENTITY[0]),
    "the durability is none": _put("meta", layout.DURABILITY_KEY, b"fool"),
    "an owner is none": _put("owners", pack_number(1), b"short"),
    "an owner's number is too large": _put("owners", pack_number(2**40), bytes(16)),
}


_UNSEEN: Final = {"next_id is too high", "the durability is none"}
"""Nothing in the store contradicts it."""
_UNSERVED: Final = {"the format is another", "the identity is missing"}


@pytest.mark.parametrize("name", sorted(_INDEXES.keys() - _UNSEEN - _UNSERVED))
def test_what_stands_beside_the_records_is_checked(name: str, closed: Path) -> None:
    with raw(closed) as content:
        _INDEXES[name](content)
    with quelmdb.open(closed, readonly=True) as store:
        assert store.check()


@pytest.mark.parametrize("damage", _INDEXES.values(), ids=_INDEXES)
def test_what_stands_beside_the_records_is_made_again(
    damage: Callable[[Raw], object], closed: Path
) -> None:
    before, done = _after(closed, damage)
    assert done.jobs == before
    assert done.aside == []
    with quelmdb.open(done.path) as store:
        assert (store.insert(Job("new")).id or 0) > 15  # the last one was destroyed
        assert set(store.paused()) == {"b"}
        claimed = store.claim("a", limit=99)
        assert [job.arguments for job in claimed[:2]] == [b"big" * 3000, {"n": 3}]


def test_a_started_job_of_an_unknown_owner_is_rescued(closed: Path) -> None:
    with raw(closed) as content:
        content.transaction.drop(content.databases.owners, delete=False)
    done = _repair(closed)
    assert {problem.rule for problem in done.told.problems} == {"owner"}
    with quelmdb.open(done.path) as store:
        job = store.find(3)
        assert job is not None
        assert job.status == "started"
        assert [job.id for job in store.rescue()] == [3]
        assert store.check() == []


def test_a_job_that_is_not_started_has_no_owner_afterwards(closed: Path) -> None:
    before, done = _after(closed, lambda content: content.change_header(_DAMAGED, owner=1))
    assert done.jobs == before
    assert [(p.rule, p.job_id) for p in done.told.problems] == [("owner", _DAMAGED)]


def test_of_two_jobs_with_a_unique_key_the_first_keeps_it(closed: Path) -> None:
    with quelmdb.open(closed) as store:
        second = store.insert(Job("a", "second", unique_key="mine", max_attempts=3))
        third = store.insert(Job("a", "third", unique_key="yours"))
    with raw(closed) as content:
        for job in (second, third):
            record = content.record(job.id or 0)
            length = layout.unpack_record(pack_number(job.id or 0), record)[6]
            arguments, extras = layout.split_body(record)
            assert len(arguments) == length
            for own in (b"dmine", b"eyours"):
                extras = extras.replace(own, b"donly" if own == b"dmine" else b"donly!")
            content.change_arguments(job.id or 0, arguments, extras)
    with quelmdb.open(closed) as store:
        assert "by_option" in {problem.rule for problem in store.check()}
    before = _jobs_of(closed)
    done = _repair(closed)
    assert done.jobs[13] == before[13]
    assert done.jobs[second.id] == before[second.id].replace(unique_key=None)
    assert {(p.rule, p.job_id) for p in done.told.problems} >= {("by_option", second.id)}


# --- The names of workers -----------------------------------------------------


def _drop_names(*databases: str) -> Callable[[Raw], object]:
    def damage(content: Raw) -> None:
        for database in databases:
            content.transaction.drop(getattr(content.databases, database), delete=False)

    return damage


_NAMES: Final = {
    "a name has another's number": _put("workers", b"a", pack_number(2)),
    "a name has a number of nobody": _put("workers", b"a", pack_number(77)),
    "a name has no number": _put("workers", b"a", b"short"),
    "a number has another name": _put("worker_names", pack_number(1), b"z"),
    "a number has another's name": _put("worker_names", pack_number(1), b"b"),
    "a number has a name that is no text": _put("worker_names", pack_number(1), b"\xff"),
    "a name is missing": _delete("workers", b"a"),
    "a number is missing": _delete("worker_names", pack_number(1)),
    "a number is missing, and another name": lambda content: (
        _delete("workers", b"a")(content),
        _delete("worker_names", pack_number(2))(content),
    ),
    "no name is left in workers": _drop_names("workers"),
    "no name is left in worker_names": _drop_names("worker_names"),
    "no name is left but on old pages": _drop_names("workers", "worker_names"),
}


@pytest.mark.parametrize("damage", _NAMES.values(), ids=_NAMES)
def test_the_names_of_workers_are_as_they_were(
    damage: Callable[[Raw], object], closed: Path
) -> None:
    before, done = _after(closed, damage)
    assert done.jobs == before
    assert done.aside == []
    assert done.told.invented == {}


def test_a_name_that_is_nowhere_is_invented_and_never_guessed(closed: Path) -> None:
    before = _jobs_of(closed)
    path = damaged_copy(_repair(closed).path, closed.with_name("copy"), lambda data: None)

    def damage(data: bytearray) -> None:
        """The name `a` becomes `z` on every page, in one of both databases each time."""
        at = data.find(pack_number(1) + b"a")
        while at >= 0:
            data[at + 8] = ord("z")
            at = data.find(pack_number(1) + b"a", at + 1)

    done = _repair(damaged_copy(path, closed.with_name("worse"), damage), "again")
    assert done.told.invented == {1: "unknown-worker-1"}
    assert {job.worker for job in done.jobs.values()} == {"unknown-worker-1", "b", None}
    for job_id, job in done.jobs.items():
        was = before[job_id]
        assert job == (was.replace(worker="unknown-worker-1") if was.worker == "a" else was)


@pytest.mark.parametrize("database", ["workers", "worker_names"])
def test_a_name_that_is_disputed_is_told_by_both_databases_and_not_by_one_many_times(
    database: str, closed: Path
) -> None:
    before = _jobs_of(closed)
    path = _repair(closed).path  # without old pages
    for n in range(4):
        with raw(path) as content:  # leaves one more page of this database alone
            other = (b"c", pack_number(9)) if database == "workers" else (pack_number(9), b"c")
            db = getattr(content.databases, database)
            content.transaction.put(*other, db=db) if n % 2 else content.transaction.delete(
                other[0], db=db
            )
    known = b"a" + pack_number(1) if database == "workers" else pack_number(1) + b"a"

    def damage(data: bytearray) -> None:
        data[:] = data.replace(known, known.replace(b"a", b"z"))

    done = _repair(damaged_copy(path, closed.with_name("worse"), damage), "again")
    assert done.told.invented == {1: "unknown-worker-1"}
    assert {job.worker for job in before.values()} == {"a", "b", None}
    assert {job.worker for job in done.jobs.values()} == {"unknown-worker-1", "b", None}


# --- Other versions -----------------------------------------------------------


def test_what_a_later_version_wrote_is_refused(closed: Path) -> None:
    with raw(closed) as content:
        content.transaction.put(layout.FORMAT_KEY, pack_number(2), db=content.databases.meta)
        content.change_header(_DAMAGED, version=2)
    with pytest.raises(UnsupportedFormatError):
        _repair(closed)


# --- Pages --------------------------------------------------------------------


def _pages_of(path: Path, name: bytes) -> list[int]:
    """The leaves of a database."""
    with Pages(data_file(path)) as pages:
        order = as_number if name == layout.JOBS else as_bytes
        leaves = list(pages.leaves(Salvage(pages)._trees[name], order))
    assert not any(isinstance(leaf, Hole) for leaf in leaves)
    return [leaf.page for leaf in leaves]


def _wipe(*pages: int) -> Callable[[bytearray], None]:
    def damage(data: bytearray) -> None:
        for page in pages:
            data[page * _PAGE : (page + 1) * _PAGE] = bytes(_PAGE)

    return damage


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a tree of jobs that has two levels, and many pages that are free."""
    path = tmp_path_factory.mktemp("repair") / "jobs.qdb"
    with quelmdb.open(path) as store:
        store.insert_many(Job(f"worker {n % 5}", {"n": n}) for n in range(1, 301))
        store.update_many(Job("a", b"big" * 2000, id=n) for n in range(100, 110))
        for job in store.claim(limit=150):
            store.complete(job, result=b"r" * (3000 if job.id == 7 else 3))
        store.insert_many(Job("priority", n, priority=n, unique_key=f"{n}") for n in range(1, 9))
        store.destroy_many(range(40, 60))
        # As in bit_flips: a flip in a meta page may undo the last commit.
        for _ in range(2):
            store.destroy(store.insert(Job("a")))
        assert store.check() == []
    return path


def test_a_wiped_page_costs_the_jobs_on_it_and_no_other(many: Path, tmp_path: Path) -> None:
    before = _jobs_of(many)
    leaves = _pages_of(many, layout.JOBS)
    assert len(leaves) > 5
    done = _repair(damaged_copy(many, tmp_path / "copy", _wipe(leaves[2])))
    lost = before.keys() - done.jobs.keys()
    assert 5 < len(lost) < 60
    assert done.jobs == {key: job for key, job in before.items() if key not in lost}
    assert done.told.loose == 0
    assert [item["page"] for item in done.aside if "page" in item] == [leaves[2]]


def test_without_the_root_of_the_jobs_each_is_found_by_its_checksum(
    many: Path, tmp_path: Path
) -> None:
    before = _jobs_of(many)
    with Pages(data_file(many)) as pages:
        root = Salvage(pages)._trees[layout.JOBS].root
    assert root is not None
    done = _repair(damaged_copy(many, tmp_path / "copy", _wipe(root)))
    assert done.jobs == before
    assert done.told.loose == len(before)
    assert "nothing refers" in str(done.told.problems[-1])


@pytest.mark.parametrize("name", [layout.JOBS, layout.PAYLOADS])
@pytest.mark.parametrize("what", ["heads", "pointers", "frames"])
def test_a_flip_in_the_frame_of_a_leaf_costs_nothing_that_is_on_it(
    what: str, name: bytes, many: Path, tmp_path: Path
) -> None:
    """Where its nodes are is told by their pointers, by its bounds and by their own frames.
    The lowest bit of a length is not told by anything else: it is left out here."""
    page = _pages_of(many, name)[1]
    places = _frames(data_file(many).read_bytes(), page)[what]
    whole = _whole_jobs(many)
    for place in places:
        first, step = (0, 1) if what == "heads" else (place % 5, 5)
        for bit in range(first, 8, step):
            if (what, (place - places[0]) % 8, bit) != ("frames", 0, 0):
                copy = damaged_copy(many, tmp_path / f"{place}.{bit}", _flip(place, bit))
                assert _whole_jobs(copy) == whole, (place % _PAGE, bit)


def test_a_flip_in_a_branch_page_costs_nothing_that_is_below_it(many: Path, tmp_path: Path) -> None:
    """Nor that of a key, which moves what is on one page beyond its bounds."""
    with Pages(data_file(many)) as pages:
        root = Salvage(pages)._trees[layout.JOBS].root
        assert root is not None
        assert kind_of(pages.page(root) or b"") == BRANCH
    frames = _frames(data_file(many).read_bytes(), root)
    whole = _whole_jobs(many)
    keys = [place + 8 + byte for place in frames["frames"][::8] for byte in (0, 1, 7)]
    for place in (*frames["heads"], *frames["pointers"], *frames["frames"], *keys):
        for bit in range(place % 3, 8, 3):
            copy = damaged_copy(many, tmp_path / f"{place}.{bit}", _flip(place, bit))
            assert _whole_jobs(copy) == whole, (place % _PAGE, bit)


def _frames(data: bytes, page: int) -> dict[str, list[int]]:
    """The places in a file of what a page has around its keys and values."""
    begin = page * _PAGE
    lower = int.from_bytes(data[begin + 12 : begin + 14], sys.byteorder)
    pointers = range(begin + 16, begin + lower)
    nodes = [int.from_bytes(data[at : at + 2], sys.byteorder) for at in pointers[::2]]
    return {
        "heads": [*range(begin, begin + 16)],
        "pointers": [*pointers],
        "frames": [begin + node + byte for node in nodes for byte in range(8)],
    }


def _flip(place: int, bit: int) -> Callable[[bytearray], None]:
    def damage(data: bytearray) -> None:
        data[place] ^= 1 << bit

    return damage


def _whole_jobs(path: Path) -> dict[int, list[bytes]]:
    """The record of every job, and what it has in chunks."""
    with Pages(data_file(path)) as pages:
        salvage = Salvage(pages)
        chunks = dict(salvage.chunks())
        return {
            job_id: [
                record,
                *(
                    salvage.part(job_id, part, reference, chunks.get(job_id, ()))
                    for part, reference in references(record).items()
                ),
            ]
            for key, record, _ in salvage.records()
            for job_id in [layout.unpack_number(key)]
        }


def test_chunks_of_an_old_page_are_not_in_the_way_of_those_of_a_job(many: Path) -> None:
    """Of a value that was longer before, a page that is found by its looks has chunks beyond."""
    reference = layout.pack_reference(b"new" * 1000)
    new = dict(layout.chunks(7, layout.ARGUMENTS, b"new" * 1000))
    old = dict(layout.chunks(7, layout.ARGUMENTS, b"old" * 2000))
    assert old.keys() > new.keys()
    with Pages(data_file(many)) as pages:
        chunks = [Chunk(*item) for item in (*old.items(), *new.items())]
        found = Salvage(pages).part(7, layout.ARGUMENTS, reference, chunks)
    assert found == b"new" * 1000


@pytest.mark.parametrize("slot", [0, 1])
@pytest.mark.parametrize("name", [layout.JOBS, layout.PAYLOADS])
def test_a_page_that_stands_in_the_place_of_a_meta_page_is_read(
    name: bytes, slot: int, many: Path, tmp_path: Path
) -> None:
    before = _jobs_of(many)
    page = _pages_of(many, name)[1]

    def swap(data: bytearray) -> None:
        meta, leaf = (data[at * _PAGE : (at + 1) * _PAGE] for at in (slot, page))
        data[slot * _PAGE : (slot + 1) * _PAGE] = leaf
        data[page * _PAGE : (page + 1) * _PAGE] = meta

    done = _repair(damaged_copy(many, tmp_path / "copy", swap))
    assert {key: done.jobs.get(key) for key in before} == before


def test_a_meta_page_in_the_place_of_another_page_does_not_tell_the_size_of_pages(
    many: Path, tmp_path: Path
) -> None:
    """Behind eight pages of 4 KiB it is where the second one of a file with 32 KiB would be."""

    def swap(data: bytearray) -> None:
        data[8 * _PAGE : 9 * _PAGE], data[_PAGE : 2 * _PAGE] = (
            data[_PAGE : 2 * _PAGE],
            data[8 * _PAGE : 9 * _PAGE],
        )

    with Pages(data_file(damaged_copy(many, tmp_path / "copy", swap))) as pages:
        assert pages.size == _PAGE


@pytest.mark.parametrize("slots", [(0,), (1,), (0, 1)])
def test_without_meta_pages_jobs_and_names_are_found(
    slots: tuple[int, ...], many: Path, tmp_path: Path
) -> None:
    """Deleted ones may come back where nothing tells which pages are free."""
    before = _jobs_of(many)
    done = _repair(damaged_copy(many, tmp_path / "copy", _wipe(*slots)))
    found = {key: done.jobs[key] for key in before}
    assert found == before
    if len(slots) == 1:  # at worst the last transaction is undone, which destroyed a job
        assert done.jobs.keys() - before.keys() <= {310}
        assert done.told.loose == 0
        assert "may be undone" in str(done.told.problems[0])
    assert done.told.invented == {}


def test_a_file_that_was_cut_off_gives_what_is_left(many: Path, tmp_path: Path) -> None:
    before = _jobs_of(many)
    given = 0
    for size in range(0, used_bytes(many), 5 * _PAGE + 1000):

        def cut(data: bytearray, size: int = size) -> None:
            del data[size:]

        copy = damaged_copy(many, tmp_path / f"copy{size}", cut)
        try:
            done = _repair(copy, f"repaired{size}")
        except quelmdb.CorruptStoreError:  # of what is shorter
            assert not given
            continue
        given += len(done.jobs)
        assert [job for key, job in done.jobs.items() if not _was(job, before.get(key))] == []
    assert given


def _was(job: Job, original: Job | None) -> bool:
    """Whether it is the job that it was, at some time."""
    if original is None:  # it was deleted
        return True
    if job.worker is not None and job.worker.startswith("unknown-worker-"):
        job = job.replace(worker=original.worker)
    if 100 <= (job.id or 0) < 110 and job.arguments == {"n": job.id}:
        return True  # before its update
    return (job.id, job.worker, job.arguments, job.created_at) == (
        original.id,
        original.worker,
        original.arguments,
        original.created_at,
    )


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("bits", [1, 20])
def test_flipped_bits_never_alter_a_job(
    bits: int, many: Path, tmp_path: Path, long: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """In this process: LMDB does not see the damage. With one flipped bit jobs are kept as
    they are or set aside; with more, older ones may come back, which is said."""
    before = _jobs_of(many)
    rng = random.Random(bits)
    used = used_bytes(many)
    outcomes: Counter[str] = Counter()
    for number in range((2000 if long else 50) // (1 if bits == 1 else 2)):
        flips = [(rng.randrange(used), rng.randrange(8)) for _ in range(bits)]

        def flip(data: bytearray, flips: list[tuple[int, int]] = flips) -> None:
            for place, bit in flips:
                data[place] ^= 1 << bit

        (tmp_path / f"{number}").mkdir()
        copy = damaged_copy(many, tmp_path / f"{number}" / "copy", flip)
        done = _repair(copy)
        where = f"flips {flips}"
        invented = set(done.told.invented.values())
        assert bits > 1 or not invented, where
        altered = [
            key
            for key, job in done.jobs.items()
            if job != before.get(key)
            and not (key in before and job.worker in invented and _was(job, before[key]))
        ]
        if bits == 1 or not done.told.loose:
            assert altered == [], where
        assert [key for key in altered if not _was(done.jobs[key], before.get(key))] == [], where
        lost = before.keys() - done.jobs.keys()
        assert not lost or done.aside, where
        if bits == 1:
            assert len(lost) <= 1, where
        outcomes["jobs set aside" if lost else "loose" if done.told.loose else "all jobs"] += 1
    with capsys.disabled():
        print(f"\n{outcomes.total()} images of {bits} flips: {dict(outcomes.most_common())}")
