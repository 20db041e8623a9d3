"""What a process does until it is killed: random verbs, in several lanes at the same time.

A lane is what makes one call after the other: a thread, a task of asyncio, or a chain of
futures. The jobs of a lane have a worker of their own, so that nobody else touches them, but for
rescues and for what falls due: whoever knows what a lane was told knows its jobs.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, Final, NamedTuple

from quelmdb import Job, Status, Store
from quelmdb.status import ENDED

Changes = dict[int, Job | None]
"""What became of jobs, by their ids; None: they are gone."""

_BIG: Final = 6000  # bytes of arguments or a result that stand outside of the record
_JOBS: Final = 40  # jobs of a lane, about, at most
_KEPT: Final = 3  # ended jobs that a prune leaves


class Step(NamedTuple):
    """A call that is about to be made."""

    verb: str
    """A method of a store; or "batch", of which the arguments are steps."""
    arguments: tuple[Any, ...]
    options: Mapping[str, Any] = {}
    touches: frozenset[int] = frozenset()
    """All that it may change, beside what it inserts or claims."""
    inserts: tuple[str, ...] = ()
    """What marks the jobs that it inserts, all or none."""
    takes: int = 0
    """The most jobs that it may claim."""
    completes: frozenset[int] = frozenset()
    """What is completed if, and only if, the jobs are inserted."""


class Lane:
    """The calls of one lane. Reads the store for itself, and has others write."""

    def __init__(self, store: Store, rng: random.Random, name: str) -> None:
        self.name = name
        self._store = store
        self._rng = rng
        self._marks = (f"{name} {rng.getrandbits(32):08x} {number}" for number in count())
        self._jobs = {job.id: job for job in store.all(name) if job.id}
        self._held: dict[int, Job] = {}

    def next_step(self) -> Step:
        while True:
            step = self._chosen(self._rng.randrange(100))
            if step is not None:
                return step

    def told(self, step: Step, result: Any) -> Changes:
        """What a call has changed that returned this."""
        changes: Changes = {}
        match step.verb:
            case "destroy_many":
                changes = dict.fromkeys(step.touches)
            case "prune":
                left = set(self._store.jobs(*ENDED, worker=self.name).ids())
                changes = dict.fromkeys(step.touches - left)
            case "wait":
                pass
            case "insert":
                changes = {result.id: result}
                for job_id in step.touches - {result.id}:  # it may have lost its key
                    changes[job_id] = self._store.find(job_id)
            case _:
                jobs = [result] if isinstance(result, Job) else result
                changes = {job.id or 0: job for job in jobs}
        for job_id, job in changes.items():
            self._know(job_id, job)
        return changes

    def _know(self, job_id: int, job: Job | None) -> None:
        self._held.pop(job_id, None)
        if job is None:
            del self._jobs[job_id]
            return
        self._jobs[job_id] = job
        if job.status is Status.STARTED:
            self._held[job_id] = job

    def _chosen(self, chance: int) -> Step | None:
        if len(self._jobs) > _JOBS:
            chance = 30 + chance * 70 // 100  # no inserts
        if chance < 15:
            return self._insert()
        if chance < 30:
            jobs = [self._new() for _ in range(self._rng.randrange(1, 9))]
            return Step("insert_many", (jobs,), inserts=_marks_of(jobs))
        if chance < 50:
            limit = self._rng.randrange(1, 5)
            return Step("claim", (self.name,), {"limit": limit}, takes=limit)
        if chance < 72:
            return self._of_held(chance)
        if chance < 80:
            return self._of_some("cancel", (Status.SCHEDULED, Status.QUEUED, Status.STARTED))
        if chance < 88:
            return self._of_some("retry", (Status.SCHEDULED, Status.FAILED, Status.CANCELLED))
        if chance < 90:
            return Step("wait", (self.name,), {"timeout": self._rng.random() * 0.01})
        return self._of_ended(chance)

    def _insert(self) -> Step:
        job = self._new()
        touches = frozenset[int]()
        if job.unique_key is not None:
            touches = frozenset(
                one
                for one, other in self._jobs.items()
                if other.unique_key == job.unique_key and other.status not in ENDED
            )
        how = self._rng.choice(("raise", "skip", "replace"))
        return Step("insert", (job,), {"on_duplicate": how}, touches, _marks_of([job]))

    def _of_held(self, chance: int) -> Step | None:
        if not self._held:
            return None
        rng = self._rng
        some = rng.sample(list(self._held.values()), rng.randint(1, min(3, len(self._held))))
        first, touches = some[0], _ids(some[:1])
        if chance < 56:
            results = [self._bytes() for _ in some]
            return Step("complete_many", (some, results), {}, _ids(some))
        if chance < 60:
            new = self._new(plain=True)
            parts = (*(Step("complete", (job,)) for job in some), Step("insert", (new,)))
            return Step("batch", parts, {}, _ids(some), _marks_of([new]), completes=_ids(some))
        if chance < 63:
            return Step("complete", (first, self._bytes()), {}, touches)
        if chance < 66:
            soon = {} if rng.random() < 0.4 else {"retry_at": self._soon()}
            return Step("fail", (first, "x" * rng.choice((3, _BIG))), soon, touches)
        if chance < 69:
            return Step("release", (first,), {}, touches)
        return Step("progress", (first, rng.randrange(9), 9), {}, touches)

    def _of_some(self, verb: str, statuses: Iterable[Status]) -> Step | None:
        some = [job for job in self._jobs.values() if job.status in statuses]
        if not some:
            return None
        job = self._rng.choice(some)
        return Step(verb, (job.id,), {}, _ids([job]))

    def _of_ended(self, chance: int) -> Step | None:
        ended = [job for job in self._jobs.values() if job.status in ENDED]
        if not ended:
            return None
        some = self._rng.sample(ended, self._rng.randint(1, min(3, len(ended))))
        if chance < 94:
            return Step("destroy_many", (some,), {}, _ids(some))
        if chance < 97:
            anew = [job.replace(status="queued", unique_key=None) for job in some]
            return Step("update_many", (anew,), {}, _ids(some))
        return Step("prune", (), {"worker": self.name, "keep": _KEPT}, _ids(ended))

    def _new(self, plain: bool = False) -> Job:
        rng = self._rng
        options: dict[str, Any] = {}
        if not plain and rng.random() < 0.5:
            options = {
                "priority": rng.choice((0, 0, 5)),
                "run_at": rng.choice((None, self._soon())),
                "max_attempts": rng.choice((None, 2)),
            }
            if rng.random() < 0.3:
                options["unique_key"] = f"{self.name} {rng.randrange(4)}"
        return Job(self.name, [next(self._marks), self._bytes()], **options)

    def _soon(self) -> datetime:
        return datetime.now(UTC) + timedelta(milliseconds=self._rng.choice((0, 5, 10**7)))

    def _bytes(self) -> bytes:
        return self._rng.randbytes(self._rng.choice((3, 3, 200, _BIG)))


def _ids(jobs: Iterable[Job]) -> frozenset[int]:
    return frozenset(job.id for job in jobs if job.id)


def _marks_of(jobs: Iterable[Job]) -> tuple[str, ...]:
    return tuple(job.arguments[0] for job in jobs)
