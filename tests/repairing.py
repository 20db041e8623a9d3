"""Stores to be damaged and repaired, and what became of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import Any, Final, NamedTuple

import quelmdb
from quelmdb import Job, codec, layout
from quelmdb.maintenance.repair import Repaired, repair
from quelmdb.maintenance.salvage import Salvage
from quelmdb.pages import Pages
from quelmdb.values import time_of
from tests.damage import Raw, data_file, raw

GENERATION: Final = layout.generation_name(layout.FIRST_GENERATION)
DAMAGED: Final = 4  # the id of the job that is, of worker b; 4 and above are queued

Jobs = dict[int | None, Job]


class Outcome(NamedTuple):
    """A repaired store, and what is told of its repair."""

    told: Repaired
    path: Path
    jobs: Jobs
    aside: list[dict[str, Any]]


def filled(directory: Path) -> Path:
    """A store with jobs of every kind, closed."""
    path = directory / "jobs.qdb"
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
    return path


def jobs_of(path: Path) -> Jobs:
    """Those that can be read, as they are."""
    with quelmdb.open(path) as store:
        return jobs_in(store)


def root_of(path: Path, name: bytes) -> int:
    """The page at which a database begins."""
    with Pages(data_file(path)) as pages:
        root = Salvage(pages)._trees[name].root
    assert root is not None
    return root


def jobs_in(store: quelmdb.Store) -> Jobs:
    found = {}
    for job in store.all():
        try:
            job.as_dict()
        except quelmdb.DecodeError:
            continue
        found[job.id] = job
    return found


def repaired(path: Path, name: str = "repaired", **options: Any) -> Outcome:
    """Repairs a store into one beside it, which must be without a problem."""
    new = path.with_name(name)
    aside = path.with_name(f"{name}.aside")
    (new / GENERATION).mkdir(parents=True)
    before = data_file(path).read_bytes()
    told = repair(path / GENERATION, new / GENERATION, aside, **options)
    assert data_file(path).read_bytes() == before
    if (path / layout.BOOT_FILE).exists():
        (new / layout.BOOT_FILE).write_bytes((path / layout.BOOT_FILE).read_bytes())
    with quelmdb.open(new, create=False) as store:
        assert store.check() == []
        assert len(store.all()) == told.kept
        jobs = jobs_in(store)
    assert told.aside == (aside if aside.exists() else None)
    items = list(items_of(aside)) if told.aside else []
    assert len(items) == told.set_aside
    return Outcome(told, new, jobs, items)


def items_of(aside: Path) -> Iterator[dict[str, Any]]:
    items = codec.decode_sequence(BufferedReader(BytesIO(aside.read_bytes())))
    assert next(items) == {"quelmdb": "aside", "version": 1}
    return items


def after(closed: Path, damage: Callable[[Raw], object]) -> tuple[Jobs, Outcome]:
    """The jobs before, and what a repair makes of the damage."""
    before = jobs_of(closed)
    with raw(closed) as content:
        damage(content)
    return before, repaired(closed)


def meta_of(path: Path) -> dict[bytes, bytes]:
    with raw(path) as content:
        return dict(content.transaction.cursor(content.databases.meta))
