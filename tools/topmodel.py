"""What `quelmdb top` shows, computed: looks at a store, and what has changed between them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, Final, NamedTuple

from quelmdb import Job, Status, Store, StoreInfo

from .readers import Holder, holder_facts, holders
from .render import error_of

JOBS: Final = 100  # of each kind that are shown at most
RATE_SECONDS: Final = 5.0  # over which rates are told
HELD: Final = 10_000  # started jobs among which those of the dead are sought: 40 ms

Clock = Callable[[], float]


class Rates(NamedTuple):
    """Jobs a second. What leaves a status faster than it comes in counts as 0."""

    inserted: float
    claimed: float
    completed: float
    failed: float


class Running(NamedTuple):
    """A started job, and who has it."""

    job: Job
    since: datetime | None
    pid: int | None
    """None: it has no owner."""
    alive: bool


class Reading(NamedTuple):
    """A reader that keeps old pages."""

    holder: Holder
    seen: float
    """How long it was seen, in seconds: it may have begun before."""


@dataclass(frozen=True)
class Look:
    """The store at one moment."""

    info: StoreInfo
    rates: Rates | None
    """None at the first look."""
    oldest: Job | None
    """The queued job with the lowest id."""
    running: list[Running]
    failed: list[Job]
    """The latest by id."""
    dead: list[int]
    """Process ids of owners that are dead and still hold jobs."""
    readers: list[Reading]

    def jobs(self) -> list[int]:
        """The ids of all that can be selected, from top to bottom."""
        shown = (*(one.job for one in self.running), *self.failed)
        return [job.id for job in shown if job.id is not None]


class Watch:
    """Looks at a store again and again."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._samples: deque[tuple[float, StoreInfo]] = deque()
        self._first_seen: dict[tuple[int, str, int], float] = {}

    def look(self, store: Store) -> Look:
        """One look: O(workers), and the jobs that are shown."""
        now = self._clock()
        info = store.info()
        rates = self._rates(now, info)
        readers = self._readers(now, holders(store))
        with store.snapshot() as snapshot:
            started = list(snapshot.jobs(Status.STARTED, limit=JOBS))
            oldest = next(iter(snapshot.jobs(Status.QUEUED, limit=1)), None)
            failed = list(snapshot.jobs(Status.FAILED, limit=JOBS, reverse=True))
            owners = {owner.number: owner for owner in store.info().owners}
            ended = {owner.number: owner.pid for owner in owners.values() if not owner.alive}
            sought = snapshot.jobs(Status.STARTED, limit=HELD) if ended else ()
            holding = {job.owner for job in sought}
            running = [_running(job, snapshot.started_at(job), owners) for job in started]
        dead = [pid for number, pid in ended.items() if number in holding]
        return Look(info, rates, oldest, running, failed, dead, readers)

    def _rates(self, now: float, info: StoreInfo) -> Rates | None:
        while len(self._samples) > 1 and now - self._samples[1][0] >= RATE_SECONDS:
            self._samples.popleft()
        self._samples.append((now, info))
        then, before = self._samples[0]
        if now <= then:
            return None

        def rate(count: Callable[[StoreInfo], int]) -> float:
            return max(count(info) - count(before), 0) / (now - then)

        return Rates(
            rate(lambda one: one.next_id),
            rate(lambda one: one.next_claim),
            rate(lambda one: one.counts[Status.COMPLETED]),
            rate(lambda one: one.counts[Status.FAILED]),
        )

    def _readers(self, now: float, found: Iterable[Holder]) -> list[Reading]:
        keys = {
            (holder.process.pid, holder.thread, holder.transaction): holder
            for holder in found
            if holder.behind and holder.transaction is not None
        }
        self._first_seen = {
            (pid, thread, transaction or 0): self._first_seen.get(
                (pid, thread, transaction or 0), now
            )
            for pid, thread, transaction in keys
        }
        seen = zip(keys.values(), self._first_seen.values(), strict=True)
        return [Reading(holder, now - first) for holder, first in seen]


def _running(job: Job, since: datetime | None, owners: dict[int, Any]) -> Running:
    owner = owners.get(job.owner)
    if owner is None:  # struck out, or of none
        return Running(job, since, None, job.owner == 0)
    return Running(job, since, owner.pid, owner.alive)


def as_json(look: Look) -> dict[str, Any]:
    """One look as an object for scripts."""
    info = look.info
    return {
        "path": info.path,
        "durability": info.durability,
        "generation": info.generation,
        "file_bytes": info.file_bytes,
        "used_bytes": info.used_bytes,
        "free_bytes": info.free_bytes,
        "counts": info.counts,
        "workers": [
            {"worker": name, "paused": name in info.paused, "counts": counts}
            for name, counts in info.workers.items()
        ],
        "rates": look.rates and look.rates._asdict(),
        "oldest_queued": look.oldest and _job_facts(look.oldest),
        "running": [
            {
                **_job_facts(one.job),
                "started_at": _text(one.since),
                "pid": one.pid,
                "alive": one.alive,
            }
            for one in look.running
        ],
        "failed": [{**_job_facts(job), "error": error_of(job, 200)} for job in look.failed],
        "dead_owners": look.dead,
        "readers": [{**holder_facts(one.holder), "seen_for": one.seen} for one in look.readers],
    }


def _job_facts(job: Job) -> dict[str, object]:
    return {
        "id": job.id,
        "worker": job.worker,
        "attempt": job.attempt,
        "updated_at": _text(job.updated_at),
    }


def _text(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat()


class Selection:
    """Which of the jobs is selected: the same one, wherever it stands by now; where it is
    gone, the one that has come into its place."""

    def __init__(self) -> None:
        self.id: int | None = None
        self._place = 0

    def follow(self, ids: list[int]) -> None:
        """There are these jobs now."""
        if self.id in ids:
            self._place = ids.index(self.id)
        else:
            self._place = max(min(self._place, len(ids) - 1), 0)
            self.id = next(islice(ids, self._place, None), None)

    def move(self, ids: list[int], by: int) -> None:
        """To the job that stands `by` places lower."""
        self.follow(ids)
        if ids:
            self._place = max(min(self._place + by, len(ids) - 1), 0)
            self.id = ids[self._place]
