"""Repair: every kind of damage that `check` finds becomes a store in which it finds nothing,
every job that can be read is as it was, and nothing is lost."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

import quelmdb
from quelmdb import Job, UnsupportedFormatError, layout, recordlayout
from quelmdb.layout import pack_number
from quelmdb.maintenance.repair import Repaired
from tests.damage import Raw, data_file, raw
from tests.repairing import (
    DAMAGED,
    after,
    filled,
    jobs_of,
    meta_of,
    repaired,
)
from tests.test_corrupt_records import BAD_RECORDS, HOSTILE

pytest_plugins = ["tests.fixtures"]


@pytest.fixture
def closed(tmp_path: Path) -> Path:
    return filled(tmp_path)


# --- What is whole ------------------------------------------------------------


def test_a_sound_store_is_the_same_after_a_repair(closed: Path) -> None:
    before = jobs_of(closed)
    paused = _paused(closed)
    done = repaired(closed)
    assert done.jobs == before
    assert done.told == Repaired(kept=len(before))
    assert meta_of(done.path) == meta_of(closed)
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
    before = jobs_of(path)
    done = repaired(path, progress=lambda *numbers: told.append(numbers))
    assert done.jobs == before
    assert done.told == Repaired(kept=2000)
    assert told == [*sorted(told)]
    assert told[-1] == (2000, 2000)


def test_an_empty_store_is_repaired_to_an_empty_one(tmp_path: Path) -> None:
    path = tmp_path / "jobs.qdb"
    quelmdb.open(path).close()
    assert repaired(path).told == Repaired()


def test_an_ephemeral_store_keeps_its_durability_and_its_capacity(tmp_path: Path) -> None:
    path = tmp_path / "jobs.qdb"
    with quelmdb.open(path, durability="ephemeral", capacity=8 * 2**20) as store:
        store.insert_many(Job("a", n) for n in range(100))
    before = jobs_of(path)
    done = repaired(path)
    assert done.jobs == before
    with quelmdb.open(done.path, durability="ephemeral", capacity=8 * 2**20):
        assert data_file(done.path).stat().st_size == 8 * 2**20


# --- Records and values -------------------------------------------------------


@pytest.mark.parametrize("damage", BAD_RECORDS.values(), ids=BAD_RECORDS)
def test_a_bad_record_is_set_aside_and_every_other_job_is_kept(
    damage: Callable[[Raw], None], closed: Path
) -> None:
    before = jobs_of(closed)
    with raw(closed) as content:
        damage(content)
        record = content.record(DAMAGED)
    done = repaired(closed)
    if done.told.invented:  # it lacks nothing but the name of its worker
        assert done.told.invented == {99: "unknown-worker-99"}
        assert done.jobs[DAMAGED].worker == "unknown-worker-99"
        assert done.jobs.pop(DAMAGED).arguments == before[DAMAGED].arguments
    else:
        assert [(item["id"], item["record"]) for item in done.aside] == [(DAMAGED, record)]
        assert done.aside[0]["reason"]
    del before[DAMAGED]
    assert done.jobs == before
    assert {problem.job_id for problem in done.told.problems} <= {DAMAGED, None}


@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("where", ["arguments", "extras"])
def test_a_record_with_a_value_that_is_none_is_set_aside(
    where: str, value: bytes, closed: Path
) -> None:
    if where == "extras" and not value:
        return
    before = jobs_of(closed)
    with raw(closed) as content:
        content.change_arguments(DAMAGED, *((value,) if where == "arguments" else (b"\1", value)))
        record = content.record(DAMAGED)
    done = repaired(closed)
    del before[DAMAGED]
    assert done.jobs == before
    assert [item["record"] for item in done.aside] == [record]


@pytest.mark.parametrize("micros", [2**63 - 1, -(2**63)])
def test_a_record_with_a_time_that_is_none_is_set_aside(micros: int, closed: Path) -> None:
    before, done = after(closed, lambda raw: raw.change_header(DAMAGED, created_at=micros))
    assert before.keys() - done.jobs.keys() == {DAMAGED}
    assert len(done.aside) == 1


def test_a_record_with_a_claim_that_is_none_is_set_aside(closed: Path) -> None:
    before, done = after(closed, lambda raw: raw.change_header(DAMAGED, claim=2**64 - 1))
    assert before.keys() - done.jobs.keys() == {DAMAGED}
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
        key = recordlayout.payload_key(_BIG, recordlayout.ARGUMENTS, chunk)
        if value is None:
            assert content.transaction.delete(key, db=content.databases.payloads)
        else:
            content.transaction.put(key, value, db=content.databases.payloads)
        left.extend(
            [key, value]
            for key, value in content.transaction.cursor(content.databases.payloads)
            if recordlayout.split_payload_key(key)[0] == _BIG
        )
        left.append(content.record(_BIG))

    before, done = after(closed, damage)
    del before[_BIG]
    assert done.jobs == before
    (item,) = done.aside
    assert [*item["chunks"], item["record"]] == left


def test_a_job_is_kept_although_the_number_of_a_chunk_is_damaged(closed: Path) -> None:
    """Their order and the checksum tell, as to whoever reads the job."""

    def damage(content: Raw) -> None:
        payloads = content.databases.payloads
        key = recordlayout.payload_key(_BIG, recordlayout.ARGUMENTS, 4)  # the last one
        chunk = content.transaction.pop(key, db=payloads)
        assert chunk is not None
        content.transaction.put(
            recordlayout.payload_key(_BIG, recordlayout.ARGUMENTS, 999), chunk, db=payloads
        )

    before, done = after(closed, damage)
    assert done.jobs == before
    assert done.aside == []


def test_chunks_to_which_nothing_refers_are_set_aside(closed: Path) -> None:
    orphans = {
        recordlayout.payload_key(1, recordlayout.ARGUMENTS): b"of a job without",
        recordlayout.payload_key(3, recordlayout.RESULT): b"of a job that has none outside",
        recordlayout.payload_key(99, recordlayout.ARGUMENTS): b"of no job",
        b"k": b"a key that is none",
        b"k" * 13: b"one of no job",
        b"k" * 14: b"one that is too long",
    }

    def damage(content: Raw) -> None:
        for key, value in orphans.items():
            content.transaction.put(key, value, db=content.databases.payloads)

    before, done = after(closed, damage)
    assert done.jobs == before
    assert {key: value for item in done.aside for key, value in item["chunks"]} == orphans


# --- Other versions -----------------------------------------------------------


def test_what_a_later_version_wrote_is_refused(closed: Path) -> None:
    with raw(closed) as content:
        content.transaction.put(layout.FORMAT_KEY, pack_number(2), db=content.databases.meta)
        content.change_header(DAMAGED, version=2)
    with pytest.raises(UnsupportedFormatError):
        repaired(closed)
