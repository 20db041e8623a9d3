"""Ids out of the indexes: copied whole or read in pieces, merged from several keys."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

import quelmdb
from quelmdb import ANY, Job, Status, index, layout, reading

pytest_plugins = ["tests.fixtures"]

_WORKERS = ("a", "b", None)


@pytest.mark.parametrize("seed", range(12))
def test_listings_are_the_same_however_they_are_read(
    path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    dice = random.Random(seed)
    for module, sizes in (
        (
            index,
            {"_PIECE": (4, 16, 2**13), "_SMALL": (1, 2, 16), "_WASTE": (0, 2), "_AHEAD": (0, 8)},
        ),
        (reading, {"_ID_PAGE": (3, 50, 2**17), "_JOB_PAGE": (3, 40), "_FIRST_PAGE": (1, 7, 128)}),
    ):
        for name, choices in sizes.items():
            monkeypatch.setattr(module, name, dice.choice(choices))
    with quelmdb.open(path) as store:
        count = dice.choice((0, 1, 60, 300))
        jobs = store.insert_many(
            Job(dice.choice(_WORKERS), n, status=dice.choices(list(Status), (1, 9, 1, 20, 3, 1))[0])
            for n in range(count)
        )
        gone = set(dice.sample(range(1, count + 1), count // 5))
        store.destroy_many(gone)
        jobs = [job for job in jobs if job.id not in gone]
        for _ in range(40):
            _compare(store, jobs, dice)


def _compare(store: quelmdb.Store, jobs: list[Job], dice: random.Random) -> None:
    statuses = dice.sample(list(Status), dice.randint(1, len(Status)))
    worker: Any = dice.choice((ANY, *_WORKERS, "nobody"))
    reverse = dice.random() < 0.5
    after = dice.choice((None, dice.randint(1, len(jobs) + 5)))
    limit = dice.choice((None, 0, 1, 3, dice.randint(0, len(jobs) + 3)))
    expected = [
        job
        for job in (jobs[::-1] if reverse else jobs)
        if job.status in statuses
        and worker in (ANY, job.worker)
        and (after is None or job.id is None or (job.id < after if reverse else job.id > after))
    ][:limit]
    with store.snapshot() as snapshot:
        for reader in (store, snapshot):
            view = reader.jobs(*statuses, worker=worker, after=after, limit=limit, reverse=reverse)
            assert list(view) == expected
            assert list(view.ids()) == [job.id for job in expected]
            assert len(view) == len(view.ids()) == len(expected)


@pytest.mark.parametrize("reverse", [False, True])
def test_merged_ids_are_read_about_once(
    path: Path, monkeypatch: pytest.MonkeyPatch, reverse: bool
) -> None:
    """However uneven the statuses are, and however many pages it takes."""
    monkeypatch.setattr(index, "_MOST", 100)
    monkeypatch.setattr(index, "_PIECE", 64)
    monkeypatch.setattr(reading, "_ID_PAGE", 1000)
    read = 0

    def counted(data: bytes) -> list[int]:
        nonlocal read
        read += len(data) // 8
        return layout.unpack_numbers(data)

    monkeypatch.setattr(index, "unpack_numbers", counted)
    with quelmdb.open(path) as store:
        store.insert_many(
            Job("a", status=list(Status)[n % 97 % 6 if n % 10 == 0 else 3]) for n in range(10_000)
        )
        ids = list(store.all("a", reverse=reverse).ids())
    assert sorted(ids) == list(range(1, 10_001))
    assert read < 1.5 * len(ids)
