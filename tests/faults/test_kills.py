"""A process that is killed at any moment leaves a store with every acknowledged effect in it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import pytest

import quelmdb
from quelmdb import Job
from quelmdb.filesystem import MIB
from tests.children import Child, ChildDiedError
from tests.durabilities import by_durability
from tests.faults.crew import Crew
from tests.faults.figures import Tell
from tests.faults.seeds import seeded

pytest_plugins = ["tests.fixtures"]

KINDS: Final = ("alone", "threads", "submit", "asyncio")

_CYCLES: Final = 1_000  # in the long form, of each durability
_BIG: Final = 6000  # bytes of arguments that stand outside of the record


@by_durability(64 * MIB)
def test_every_acknowledged_effect_survives_kills_at_random_moments_while_others_go_on(
    options: dict[str, Any], path: Path, long: bool, figure: Tell
) -> None:
    rng = seeded()
    with Crew(path, KINDS, rng, **options) as crew:
        while crew.figures.cycles < (_CYCLES if long else 5):
            crew.listen(rng.random() * rng.choice((0.02, 0.1, 0.4)))
            crew.kill(rng.sample(crew.seats, rng.choice((1, 1, 2, 3, 4))))
        crew.end()
    figure(str(crew.figures))


@pytest.mark.parametrize("kind", KINDS)
def test_every_acknowledged_effect_survives_kills_of_a_process_that_is_alone(
    kind: str, path: Path, long: bool, figure: Tell
) -> None:
    rng = seeded()
    with Crew(path, [kind], rng) as crew:
        while crew.figures.cycles < (250 if long else 3):
            crew.listen(rng.random() * rng.choice((0.05, 0.4)))
            crew.kill(crew.seats)
    figure(str(crew.figures))


def _insert_in_batches(pipe: Connection, path: Path, seed: int) -> None:
    rng = random.Random(seed)
    with quelmdb.open(path) as store:
        while True:
            name = rng.randbytes(8).hex()
            with store.batch() as batch:
                batch.insert_many([Job("a", name)] * 10)
                batch.insert(Job("b", [name, "x" * _BIG]))
            pipe.send(name)


def _all_that_is_told(child: Child, messages: int) -> Iterator[Any]:
    """What it says until its death, which comes when it has said so much."""
    for number in count():
        if number == messages:
            child.kill()  # what it had told before is received still
        try:
            yield child.receive()
        except ChildDiedError:
            return


def test_a_batch_is_there_whole_or_not_at_all(path: Path, long: bool, figure: Tell) -> None:
    rng = seeded()
    acknowledged: set[str] = set()
    kills = 200 if long else 5
    for _ in range(kills):
        with Child(_insert_in_batches, path, rng.getrandbits(32)) as child:
            acknowledged.update(_all_that_is_told(child, rng.randrange(30)))
    with quelmdb.open(path) as store:
        counts = Counter(job.arguments for job in store.all("a"))
        assert counts == dict.fromkeys((job.arguments[0] for job in store.all("b")), 10)
        assert acknowledged <= counts.keys()
    figure(
        f"{kills} kills, {len(acknowledged):,} acknowledged batches, {len(counts):,} there; "
        "0 lost, 0 in part"
    )
