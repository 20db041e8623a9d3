"""What is done to a store while its writes are recorded, and what it had acknowledged by when."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import quelmdb
from quelmdb import Job
from tests.faults.recorder import Event, Recorder

State = dict[int, Job]
"""Every job, by its id."""

Effect = dict[int, Job | None]
"""What has become of jobs (None: gone)."""

OPENED: Final = "opened"
"""Is told when a store was given out."""

BIG: Final = 9000  # bytes of arguments or a result that stand outside of the record, in chunks

_LATER: Final = datetime(2100, 1, 1, tzinfo=UTC)


class Actor:
    """Does random verbs with the jobs of one worker, and tells what became of them."""

    def __init__(self, recorder: Recorder, store: quelmdb.Store, worker: str, seed: int) -> None:
        self._recorder = recorder
        self._store = store
        self._worker = worker
        self._rng = random.Random(f"{seed} {worker}")
        self._held: list[Job] = []
        self._count = 0

    def act(self, steps: int) -> None:
        for _ in range(steps):
            self._count += 1
            token = f"{self._worker}{self._count}"
            self._recorder.tell((token, None))
            effect = self._step()
            self._recorder.tell((token, effect))

    def _step(self) -> Effect:
        store, rng, worker = self._store, self._rng, self._worker
        match rng.randrange(12):
            case 0 | 1:
                return _of(store.insert(self._new()))
            case 2 | 3:
                return _of(*store.insert_many(self._new() for _ in range(rng.randrange(1, 9))))
            case 4 | 5 | 6:
                claimed = store.claim(worker, limit=rng.randrange(1, 4))
                self._held += claimed
                return _of(*claimed)
            case 7 if self._held:
                some, self._held = self._held, []
                return _of(*store.complete_many(some, [self._content() for _ in some]))
            case 9 if self._held:
                return _of(self._end(self._held.pop(rng.randrange(len(self._held)))))
            case 7:
                failed = next(iter(store.failed(worker)), None)
                return _of(store.retry(failed)) if failed else {}
            case 8 if self._held:
                self._held[0] = store.progress(self._held[0], self._count, note="so far")
                return _of(self._held[0])
            case 10:
                finished = list(store.jobs("completed", "failed", "cancelled", worker=worker))[:4]
                with store.batch() as batch:
                    batch.destroy_many(finished[:2])
                    batch.update_many(job.replace(status="queued") for job in finished[2:])
                    batch.insert(self._new())
                updated, new = batch.results[1:]
                return {**dict.fromkeys(_of(*finished[:2])), **_of(*updated, new)}
            case 11:
                kept = set(store.completed(worker).ids())
                store.prune("completed", worker=worker, keep=2)
                return dict.fromkeys(kept - set(store.completed(worker).ids()))
        queued = list(store.jobs("queued", "scheduled", worker=worker, limit=4))
        if not queued:
            return {}
        job = rng.choice(queued)
        match rng.randrange(3):
            case 0:
                store.destroy(job)
                return dict.fromkeys(_of(job))
            case 1:
                return _of(store.cancel(job))
            case _:
                return _of(store.update(job.replace(arguments=self._content())))

    def _new(self) -> Job:
        rng = self._rng
        options: dict[str, Any] = {}
        if rng.random() < 0.3:
            options["priority"] = rng.randrange(3)
        if rng.random() < 0.2:
            options["unique_key"] = rng.randbytes(8).hex()
        if rng.random() < 0.1:
            options["run_at"] = _LATER
        return Job(self._worker, self._content(), **options)

    def _end(self, job: Job) -> Job:
        match self._rng.randrange(5):
            case 0 | 1:
                return self._store.complete(job, result=self._content())
            case 2:
                return self._store.fail(job, "x" * self._rng.choice((3, BIG)))
            case 3:
                return self._store.fail(job, "later", retry_at=_LATER)
            case _:
                return self._store.release(job)

    def _content(self) -> bytes:
        return self._rng.randbytes(self._rng.randrange(self._rng.choice((3, 200, BIG))))


def _of(*jobs: Job) -> Effect:
    return {job.id: job for job in jobs if job.id}


class Acknowledged:
    """What was acknowledged up to some event, and what was under way."""

    def __init__(self, events: Sequence[Event]) -> None:
        self._effects = {
            event.data[0]: event.data[1]
            for event in events
            if event.kind == "told" and event.data != OPENED and event.data[1] is not None
        }
        self._flying: set[str] = set()
        self.state: State = {}
        self.is_open = False
        """Whether the store was given out."""

    def apply(self, event: Event) -> bool:
        """Whether something was acknowledged."""
        if event.kind != "told":
            return False
        if event.data == OPENED:
            self.is_open = True
            return True
        token, effect = event.data
        if effect is None:
            self._flying.add(token)
            return False
        self._flying.remove(token)
        for job_id, job in effect.items():
            if job is None:
                self.state.pop(job_id, None)
            else:
                self.state[job_id] = job
        return True

    def explains(self, state: State) -> bool:
        """Whether it is what was acknowledged, with some of what was under way, each whole."""
        expected: dict[int, Job | None] = {**self.state}
        for token in self._flying:
            effect = self._effects.get(token, {})
            if all(state.get(job_id) == job for job_id, job in effect.items()):
                expected |= effect
        return {job_id: job for job_id, job in expected.items() if job is not None} == state
