"""Compactions that are killed while others write, and are killed too, leave one store."""

from __future__ import annotations

from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import lmdb

import quelmdb
from quelmdb import Job, Store, layout
from quelmdb.filesystem import MIB
from tests.children import Child, ChildDiedError, in_child
from tests.durabilities import by_durability
from tests.faults.crew import Crew
from tests.faults.figures import Tell
from tests.faults.seeds import seeded
from tests.faults.workers import compact_for_ever
from tests.runners import eventually
from tests.steps import die_at_step

pytest_plugins = ["tests.fixtures"]

KINDS: Final = ("threads", "asyncio")


# --- Which generation is the store --------------------------------------------


def _seals(path: Path) -> dict[int, bool]:
    """Of each generation, whether it is sealed, as LMDB alone sees it; in a process of its own."""
    found = {}
    for entry in path.iterdir():
        number = layout.generation_number(entry.name)
        if number is not None:
            try:
                found[number] = _is_sealed(entry)
            except lmdb.Error:
                if entry.exists():  # else it was deleted meanwhile
                    raise
    return found


def _is_sealed(generation: Path) -> bool:
    with lmdb.open(str(generation), max_dbs=16, readonly=True, lib_version=0) as environment:
        meta = environment.open_db(b"meta", create=False)
        with environment.begin() as transaction:
            return transaction.get(layout.SEAL_KEY, db=meta) is not None


def _one_is_live(path: Path, store: Store) -> bool:
    """Those that are sealed stand below the one that is the store, and what a broken compaction
    left, at most one, above it. For when nobody compacts. Returns whether there is such."""
    seals = in_child(_seals, path)
    live = min(number for number, sealed in seals.items() if not sealed)
    assert store.info().generation == live
    assert all(sealed == (number < live) for number, sealed in seals.items())
    assert max(seals) <= live + 1
    assert not [name for name in _litter(path) if name.endswith(".new")]  # who opens it deletes it
    return max(seals) > live


def _litter(path: Path) -> list[str]:
    """What is half made, or half deleted."""
    return [entry.name for entry in path.iterdir() if entry.name.endswith((".new", ".dead"))]


# --- Behind a compaction ------------------------------------------------------


def test_a_compacted_store_from_which_jobs_are_deleted_alone_can_be_opened(tmp_path: Path) -> None:
    rng = seeded()
    for number in range(30):
        path = tmp_path / str(number)
        with quelmdb.open(path) as store:
            sizes = rng.choices((3, 200, 6000), k=rng.randrange(20, 300))
            jobs = store.insert_many(Job("a", bytes(size)) for size in sizes)
            store.compact()
            store.destroy_many(rng.sample(jobs, rng.randrange(1, len(jobs))))
            left = store.counts()
        with quelmdb.open(path) as store:
            assert store.counts() == left
            assert store.check() == []


# --- At random moments --------------------------------------------------------


@by_durability(8 * MIB)
def test_a_compaction_killed_at_a_random_moment_leaves_one_store_with_all_that_was_acknowledged(
    options: dict[str, Any], path: Path, long: bool, figure: Tell
) -> None:
    rng = seeded()
    kills = 300 if long else 6
    compactions = 0
    left: list[bool] = []
    with Crew(path, KINDS, rng, **options) as crew:
        for _ in range(kills):
            with Child(compact_for_ever, path) as compactor:
                crew.listen(rng.random() * rng.choice((0.05, 0.2, 0.5)))
                victims = rng.sample(crew.seats, rng.choice((0, 0, 1, 2)))
                crew.kill(
                    victims, [compactor], lambda store: left.append(_one_is_live(path, store))
                )
                compactions += _told_by(compactor)
            if rng.random() < 0.3:
                with quelmdb.open(path) as store:  # it is alone with those who write
                    compactions += 1
                    generation = store.compact().generation
                    assert store.info().generation == generation
                eventually(lambda: _litter(path) == [])  # who leaves the old one deletes it
        crew.end()
        with quelmdb.open(path) as store:
            generation = store.compact().generation
        directories = [entry.name for entry in path.iterdir() if entry.is_dir()]
        assert directories == [layout.generation_name(generation)]
    figure(
        f"{kills:,} kills of who compacts, of which {sum(left):,} left a generation "
        f"that is none, between "
        f"{compactions:,} compactions; with the writers {crew.figures}"
    )


def _told_by(compactor: Child) -> int:
    """How many compactions it has made."""
    made = 0
    try:
        while compactor.receive():
            made += 1
    except ChildDiedError:
        return made
    raise AssertionError("it has ended")


# --- At each step -------------------------------------------------------------


def _compact_and_die(pipe: Connection, path: Path, calls: int) -> None:
    """Dies before the `calls`-th step of a compaction that goes to the file system."""
    with quelmdb.open(path) as store:
        die_at_step(calls)
        store.compact()


@by_durability(8 * MIB)
def test_a_compaction_killed_at_each_step_again_and_again_leaves_one_store_to_those_who_write(
    options: dict[str, Any], path: Path, long: bool, figure: Tell
) -> None:
    rng = seeded()
    kills = rounds = 0
    with Crew(path, KINDS, rng, **options) as crew:
        for _ in range(20 if long else 1):
            rounds += 1
            for calls in range(1, 1_000) if long else range(rng.randrange(1, 5), 1_000, 4):
                crew.listen(0.02)
                with Child(_compact_and_die, path, calls) as child:
                    crew.listen(60, until=lambda child=child: child.pipe.poll())  # type: ignore[misc]
                    if child.join() == 0:
                        break
                    kills += 1
                    victims = rng.sample(crew.seats, rng.choice((0, 0, 0, 1)))
                    crew.kill(victims, look=lambda store: _one_is_live(path, store))
            else:
                raise AssertionError("it never came to its end")
            assert calls > 5
            eventually(lambda: _litter(path) == [])
        crew.end()
    figure(
        f"{kills:,} kills, each before one of some {calls} steps, in {rounds} rounds; with the "
        f"writers {crew.figures}"
    )
