"""A store with a job of every kind, and every verb that writes, ready to be tried on it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple

import quelmdb
from quelmdb import Job, Status, Store
from quelmdb.status import ENDED
from tests.children import in_child

_PAST: Final = datetime(2020, 1, 1, tzinfo=UTC)
_BIG: Final = bytes(range(256)) * 80  # ten chunks of their own


class Verb(NamedTuple):
    """What is tried: `act(store, jobs)`, where `jobs` were claimed before in `prepare`."""

    act: Callable[[Store, list[Job]], object]
    claims: int = 0
    """How many jobs it wants to hold before."""
    steps: bool = False
    """Whether it is several transactions, of which some may be made where it raises."""


def seed(path: Path, **options: Any) -> None:
    """Makes the store, in a process of its own: what that holds is there to be rescued."""
    in_child(_seed, path, options)


def _seed(path: Path, options: dict[str, Any]) -> None:
    with quelmdb.open(path, **options) as store:
        store.insert_many(Job(f"worker {n % 3}", {"n": n}, priority=n % 4) for n in range(40))
        store.insert_many(Job("due", n, run_at=_PAST) for n in range(5))
        store.insert_many(Job("big", _BIG) for _ in range(3))
        for number, job in enumerate(store.claim("worker 0", "worker 1", limit=16)):
            match number % 4:
                case 0:
                    store.complete(job, {"done": number})
                case 1:
                    store.fail(job, "it failed")
                case 2:
                    store.complete(job, _BIG)
        store.cancel(store.insert(Job("cancelled")))
        store.insert(Job("unique", unique_key="one"))
        store.pause("worker 9")


def _first(store: Store, status: Status) -> int:
    return next(iter(store.jobs(status, limit=1).ids()))


def _update(store: Store, jobs: list[Job]) -> object:
    job = store.find(_first(store, Status.QUEUED))
    assert job is not None
    return store.update(job.replace(arguments=b"x" * 3000))


def _batch(store: Store, jobs: list[Job]) -> object:
    with store.batch() as batch:
        batch.complete(jobs[0], _BIG)
        batch.insert_many([Job("batch", _BIG), Job("a new name", 1)])
        batch.destroy(_first(store, Status.QUEUED))
        batch.fail(jobs[1], "in a batch")
    return batch.results


VERBS: Final[dict[str, Verb]] = {
    "insert": Verb(lambda store, jobs: store.insert(Job("worker 1", 1))),
    "insert, big": Verb(lambda store, jobs: store.insert(Job("another worker", _BIG))),
    "insert, replaces": Verb(
        lambda store, jobs: store.insert(Job("unique", _BIG, unique_key="one"), "replace")
    ),
    "insert_many": Verb(
        lambda store, jobs: store.insert_many(Job(f"new {n % 9}", b"x" * 500) for n in range(40))
    ),
    "submit.insert": Verb(lambda store, jobs: store.submit.insert(Job("worker 1", _BIG)).result()),
    "batch": Verb(_batch, claims=2),
    "update": Verb(_update),
    "destroy_many": Verb(lambda store, jobs: store.destroy_many([*store.completed().ids(), 1, 2])),
    "restore": Verb(
        lambda store, jobs: store.restore([Job("restored", _BIG, id=7), Job("b", id=99)], "replace")
    ),
    "claim": Verb(lambda store, jobs: store.claim(limit=20), steps=True),
    "complete": Verb(lambda store, jobs: store.complete(jobs[0], _BIG), claims=1),
    "complete_many": Verb(lambda store, jobs: store.complete_many(jobs), claims=12),
    "fail": Verb(lambda store, jobs: store.fail(jobs[0], "why " * 1000), claims=1),
    "fail, to be retried": Verb(
        lambda store, jobs: store.fail(jobs[0], "why", datetime.now(UTC) + timedelta(hours=1)),
        claims=1,
    ),
    "release": Verb(lambda store, jobs: store.release(jobs[0]), claims=1),
    "progress": Verb(lambda store, jobs: store.progress(jobs[0], 1, 2, "half"), claims=1),
    "cancel": Verb(lambda store, jobs: store.cancel(_first(store, Status.QUEUED))),
    "retry_many": Verb(lambda store, jobs: store.retry_many(list(store.failed().ids()))),
    "prune": Verb(lambda store, jobs: store.prune(keep=1), steps=True),
    "pause": Verb(lambda store, jobs: store.pause("worker 1")),
    "resume": Verb(lambda store, jobs: store.resume("worker 9")),
    "rescue": Verb(lambda store, jobs: store.rescue(), steps=True),
}


def prepared(store: Store, verb: Verb) -> list[Job]:
    """What it wants to hold, claimed, and nothing rescued by the way."""
    jobs = store.claim("worker 2", limit=verb.claims) if verb.claims else []
    assert len(jobs) == verb.claims
    return jobs


def all_of(store: Store) -> tuple[list[Job], list[str | None]]:
    """All that is stored, to be compared with what is later."""
    return list(store.all()), store.paused()


def assert_none_lost(before: Iterable[Job], after: Iterable[Job]) -> None:
    """Behind some of the steps of a verb: no job is new, and what is gone had ended."""
    left = {job.id for job in after}
    known = {job.id: job.status for job in before}
    assert left <= known.keys()
    assert all(known[job_id] in ENDED for job_id in known.keys() - left)
