"""Stores to be damaged, of which every page and every job is known as it was before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from pathlib import Path
from typing import Any, Final, NamedTuple

import quelmdb
from quelmdb import Job
from quelmdb.layout import JOBS, PAYLOADS
from quelmdb.pages import (
    EMPTY,
    OVERFLOW,
    Leaf,
    Pages,
    as_bytes,
    as_number,
    is_tree,
    kind_of,
    tree_of,
)
from quelmdb.recordlayout import split_payload_key
from quelmdb.testing import ManualClock
from tests.damage import PAGE, data_file, used_bytes

Fields = tuple[Any, ...]
"""A job, as `fields_of` tells it."""

FIELDS: Final = (
    *("_id", "_worker", "_arguments", "_status", "_created_at", "_updated_at", "_attempt"),
    *("_claim", "_owner", "_result", "_error", "_failures", "_options"),
)
_fields: Final = attrgetter(*FIELDS)
_DECODED: Final = ("_arguments", "_result", "_error", "_failures")
_others: Final = attrgetter(*(name for name in FIELDS if name not in _DECODED))


def fields_of(job: Job) -> Fields:
    """All that a job is, in a tenth of the time of `Job.as_dict`. Raises `DecodeError`."""
    _ = job.arguments  # with which all others are decoded
    return _fields(job)


class Piece(NamedTuple):
    """A record or a chunk."""

    page: int
    at: int
    """Where its key begins on the page."""
    key: bytes
    value: bytes


class Specimen(NamedTuple):
    """A store before it is damaged."""

    data: bytes
    """The data file, up to its last page in use."""
    used: list[int]
    """Pages that a reader can come to."""
    main: int
    """The one that tells where the databases are."""
    free: set[int]
    """Those of the list of free pages."""
    older: dict[int, list[bytes]]
    """What stood on such pages before: as long as a lost write leaves it there."""
    jobs: dict[int, Fields]
    before: dict[int, Fields]
    """The jobs that the last transaction has changed, as it found them."""
    pieces: dict[int, list[Piece]]
    """The record of each job, and its chunks."""
    versions: dict[int, list[Fields]]
    """Every job as it ever was, also those that are destroyed."""
    inline: dict[int, tuple[bytes, Fields]]
    """Jobs that have nothing outside of their records: record, and the fields that are told
    without decoding it."""

    def fields_of(self, job: Job) -> Fields:
        """As the function does it, which need not decode again what is the same. Raises
        `DecodeError`."""
        job_id = job.id or 0
        known = self.inline.get(job_id)
        if known is not None and known == (job._record, _others(job)):
            return self.jobs[job_id]
        return fields_of(job)


Making = Callable[[quelmdb.Store], Iterator[object]]
"""Changes a store, and stops behind each transaction."""


def specimen(path: Path, making: Making) -> Specimen:
    """Makes a store, and knows what it was behind each transaction."""
    files: list[bytes] = []
    versions: dict[int, list[Fields]] = {}
    states: list[dict[int, Fields]] = []
    clock = ManualClock()
    with quelmdb.open(path, clock=clock) as store:
        for _ in making(store):
            clock.advance(1_000_000)
            files.append(data_file(path).read_bytes())
            stored = {job.id or 0: (job._record, _others(job)) for job in store.all()}
            jobs = {job.id or 0: fields_of(job) for job in store.all()}
            states.append(jobs)
            for job_id, fields in jobs.items():
                known = versions.setdefault(job_id, [])
                if fields not in known:
                    known.append(fields)
        assert store.check() == []
    data = data_file(path).read_bytes()[: used_bytes(path)]
    used = pages_in_use(path)
    pieces = _pieces(path, data)
    inline = {job_id: known for job_id, known in stored.items() if len(pieces[job_id]) == 1}
    before = {job_id: old for job_id, old in states[-2].items() if old != jobs[job_id]}
    older = _older(data, files, used)
    main, free = _tellers(path, used)
    return Specimen(data, used, main, free, older, jobs, before, pieces, versions, inline)


def everything(store: quelmdb.Store) -> Iterator[object]:
    """Jobs of every status and with every option, arguments and results in chunks, indexes and
    records in trees of two levels and more, a list of free pages that needs pages of its own."""
    yield store.insert_many(Job(f"worker {n % 40}", {"n": n}) for n in range(60))
    yield store.insert_many(Job("mail", {"user": n, "template": "welcome"}) for n in range(540))
    yield store.insert_many(_with_options())
    yield store.insert_many(Job("big", bytes([n]) * (1500 * n)) for n in range(1, 9))
    claimed = store.claim("mail", limit=530)
    yield claimed
    results = [b"r" * 3000 if n % 60 == 0 else None for n in range(len(claimed))]
    yield store.complete_many(claimed, results)
    failing = store.claim(*(f"worker {n}" for n in range(8)), limit=4)
    yield failing
    for n, job in enumerate(failing):
        yield store.fail(job, "why " * (20 if n % 2 else 200))
    failing = store.claim("first", limit=2)
    yield failing
    for job in failing:
        yield store.fail(job, "once", retry_at=datetime(2026, 1, 2, tzinfo=UTC))
    held = store.claim("first", "worker 9", "worker 10", limit=3)
    yield held
    for job in held:
        yield store.progress(job, 1, 2, "half of it")
    yield store.cancel_many(store.jobs("queued", worker="worker 11").ids())
    store.pause("worker 12")
    yield None
    yield store.update_many(job.replace(arguments={"new": 1}) for job in store.all("worker 20"))
    store.destroy_many(range(100, 110))
    yield None
    yield store.insert_many(Job("gone", b"g" * 20_000) for _ in range(60))
    store.destroy_many(store.all("gone").ids())
    yield None
    gone = store.insert(Job("gone"))
    yield gone
    store.destroy(gone)
    yield None
    # Where the newer one of both meta pages is damaged, LMDB takes the older state for the last.
    last = store.claim("mail", limit=6)
    yield last
    yield store.complete_many(last, [b"l" * 3000, *[None] * 5])


def deep(store: quelmdb.Store) -> Iterator[object]:
    """So many and so large jobs that the tree of their records has three levels."""
    padded = {"pad": "x" * 220}
    yield store.insert_many(Job(f"worker {n % 40}", padded | {"n": n}) for n in range(3_800))
    yield store.insert_many(Job("big", bytes([n]) * (900 * n)) for n in range(1, 60))
    claimed = store.claim("worker 1", "worker 2", limit=150)
    yield claimed
    yield store.complete_many(claimed, [b"r" * 3000 if n % 20 == 0 else None for n in range(150)])
    yield store.cancel_many(store.jobs("queued", worker="worker 11").ids())
    store.destroy_many(range(300, 420))
    yield None
    yield store.insert_many(Job("gone", b"g" * 20_000) for _ in range(30))
    store.destroy_many(store.all("gone").ids())
    yield None
    yield store.insert_many(Job(f"late {n % 4}", padded | {"n": n}) for n in range(600))
    last = store.claim("worker 3", limit=6)
    yield last
    yield store.complete_many(last, [b"l" * 3000, *[None] * 5])


def _with_options() -> Iterator[Job]:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    for n in range(1, 21):
        due = start + timedelta(days=9_000 + n)
        yield Job("later", n, status="scheduled", run_at=due, max_attempts=3)
        yield Job("first", [n], priority=n, unique_key=f"key {n}")


def _pieces(path: Path, data: bytes) -> dict[int, list[Piece]]:
    found: dict[int, list[Piece]] = {}
    with Pages(data_file(path)) as pages:
        trees = {JOBS: EMPTY, PAYLOADS: EMPTY}
        for leaf in pages.leaves(pages.metas[0].main, as_bytes, plain=False):
            assert isinstance(leaf, Leaf)
            trees |= {node.key: tree_of(node.value) for node in leaf.nodes if is_tree(node)}
        for name, order in ((JOBS, as_number), (PAYLOADS, as_bytes)):
            for leaf in pages.leaves(trees[name], order):
                assert isinstance(leaf, Leaf)
                for key, _, value in leaf.nodes:
                    job_id = as_number(key) if name == JOBS else split_payload_key(key)[0]
                    # The last one: what was deleted on a page lies before all of its nodes.
                    place = data.rindex(key + value, 0, (leaf.page + 1) * PAGE)
                    piece = Piece(leaf.page, place % PAGE, key, value)
                    found.setdefault(job_id, []).append(piece)
    return found


def pages_in_use(path: Path) -> list[int]:
    """All but those that the list of free pages names."""
    with Pages(data_file(path)) as pages:
        free: set[int] = set()
        for leaf in pages.leaves(pages.metas[0].free, as_number):
            assert isinstance(leaf, Leaf)
            for node in leaf.nodes:
                free.update(memoryview(node.value).cast("Q")[1:])  # the first counts them
    return [number for number in range(used_bytes(path) // PAGE) if number not in free]


def _tellers(path: Path, used: list[int]) -> tuple[int, set[int]]:
    """The page of the databases, and those of the list of free pages."""
    with Pages(data_file(path)) as pages:
        meta = pages.metas[0]
        leaves = list(pages.leaves(meta.free, as_number))
        lists = [node.value for leaf in leaves if isinstance(leaf, Leaf) for node in leaf.nodes]
        outside = {
            n
            for n in used
            if kind_of(page := pages.page(n) or b"") == OVERFLOW
            and any(value in page for value in lists)
        }
        assert meta.main.root is not None
        return meta.main.root, outside | {leaf.page for leaf in leaves}


def _older(data: bytes, files: list[bytes], used: list[int]) -> dict[int, list[bytes]]:
    found: dict[int, list[bytes]] = {}
    for number in used:
        place = slice(number * PAGE, (number + 1) * PAGE)
        before = {file[place] for file in files} - {data[place], b""}
        if before:
            found[number] = sorted(before)
    return found
