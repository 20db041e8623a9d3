"""Processes that work on one store in threads, and record what they call and are told.

Each thread appends to a file of its own, before a call and behind it: what is written there
survives SIGKILL, and a call without a return is the one in which its process died.
"""

from __future__ import annotations

import os
import random
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final, NamedTuple, get_args

import quelmdb
from quelmdb import InvalidTransitionError, Job, JobNotFoundError, StaleClaim, Status, Store
from tests.faults.onejob import Call, Verb

THREADS: Final = 2  # of each process

_VERBS: Final[tuple[Verb, ...]] = get_args(Verb)
_TOLD: Final = ("", *Status, "stale", "refused", "missing")
_RECORD: Final = struct.Struct("<BBBBIQQQQ")
_HELD: Final = 6  # jobs that a thread holds, at most
_SWITCH_SECONDS: Final = 0.0002  # between threads, so that they meet more often
_NEAR: Final = 40  # jobs that many look at, at the same time

Told = tuple[int, str, int, int]
"""Of one job: its id, its status, claim and attempt."""


class Held(NamedTuple):
    """A claim, as it can be handed to another process."""

    job: int
    claim: int


class Recorder:
    """The file of one thread."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def call(
        self,
        verb: Verb,
        work: Callable[[], Iterable[Job]],
        job: int = 0,
        claim: int = 0,
        limit: int = 1,
    ) -> list[Job]:
        """Calls `work`, which returns the jobs that it is told of; none where it raises what
        it may."""
        code = _VERBS.index(verb)
        called = time.monotonic_ns()
        os.write(self._file, _RECORD.pack(0, code, 0, limit, 0, job, claim, called, 0))
        jobs: list[Job] = []
        told: list[Told] = []
        try:
            jobs = list(work())
            told = [(one.id or 0, one.status, one.claim, one.attempt) for one in jobs]
        except StaleClaim:
            told = [(job, "stale", claim, 0)]
        except InvalidTransitionError:
            told = [(job, "refused", claim, 0)]
        except JobNotFoundError:
            told = [(job, "missing", claim, 0)]
        returned = time.monotonic_ns()
        if not told:
            told = [(job, "missing" if verb == "find" else "", claim, 0)]
        rows = (
            _RECORD.pack(
                len(told), code, _TOLD.index(status), limit, attempt, id, claim, called, returned
            )
            for id, status, claim, attempt in told
        )
        os.write(self._file, b"".join(rows))
        return jobs


def recorded(path: Path, process: int) -> tuple[list[Call], Call | None]:
    """The calls of a thread, and that one which was under way at its end, if it died."""
    calls: list[Call] = []
    content = path.read_bytes()
    left, under_way = 0, None
    whole = len(content) // _RECORD.size * _RECORD.size  # a kill may cut the last write short
    for rows, code, told, limit, attempt, job, claim, called, returned in _RECORD.iter_unpack(
        content[:whole]
    ):
        verb = _VERBS[code]
        if not rows:
            left, under_way = -1, Call(process, verb, job, called, None, "", claim, 0, limit)
            continue
        assert under_way is not None
        left = rows - 1 if left < 0 else left - 1
        if job and (told or verb != "claim"):
            calls.append(Call(process, verb, job, called, returned, _TOLD[told], claim, attempt))
        under_way = under_way._replace(limit=left) if left else None
    return calls, under_way


def held_at_the_end(calls: Iterable[Call]) -> list[Held]:
    """What a thread held, or may have."""
    held = {}
    for call in calls:
        if call.verb == "claim":
            held[call.job] = call.claim
        elif call.told != "stale" and call.claim == held.get(call.job):
            held.pop(call.job, None)
    return [Held(job, claim) for job, claim in held.items()]


# --- In the child ---------------------------------------------------------------


def work(
    pipe: Connection,
    path: Path,
    logs: Path,
    process: int,
    seed: int,
    plain: bool,
    inherited: Sequence[Held],
) -> tuple[int, int]:
    """Works in threads until it is told to stop; returns when it closed its store. `plain` asks
    for nothing that few jobs ask for. `inherited` are claims of dead ones, to be misused."""
    sys.setswitchinterval(_SWITCH_SECONDS)
    stop = threading.Event()
    errors: list[BaseException] = []
    with quelmdb.open(path) as store:

        def in_thread(number: int) -> None:
            recorder = Recorder(logs / f"{process}.{number}")
            rng = random.Random(seed + number)
            try:
                steps = _Thread(store, recorder, rng, plain, list(inherited))
                while not stop.is_set():
                    steps.step()
            except BaseException as error:
                errors.append(error)
                stop.set()

        threads = [threading.Thread(target=in_thread, args=(n,)) for n in range(THREADS)]
        for thread in threads:
            thread.start()
        while not stop.is_set() and not pipe.poll(0.01):
            pass
        stop.set()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]
        closing = time.monotonic_ns()
    return closing, time.monotonic_ns()


class _Thread:
    """Random calls of one thread."""

    def __init__(
        self,
        store: Store,
        recorder: Recorder,
        rng: random.Random,
        plain: bool,
        inherited: list[Held],
    ) -> None:
        self._store = store
        self._call = recorder.call
        self._rng = rng
        self._plain = plain
        self._held: list[Held] = []
        self._lost = inherited  # and what was ended: all of these are to be stale
        self._latest = 1

    def step(self) -> None:
        rng, store = self._rng, self._store
        chance = rng.random()
        if chance < 0.11:
            jobs = [self._new() for _ in range(rng.randrange(1, 8))]
            told = self._call("insert", lambda: store.insert_many(jobs), limit=len(jobs))
            self._latest = max(self._latest, told[-1].id or 0)
        elif chance < 0.45 and len(self._held) < _HELD:
            self._claim(rng.randint(1, 4))
        elif chance < 0.82 and self._held:
            self._end(self._held.pop(rng.randrange(len(self._held))))
        elif chance < 0.85 and self._lost:
            self._end(self._lost[rng.randrange(len(self._lost))])
        elif chance < 0.88:
            job = self._any()
            self._call("cancel", lambda: [store.cancel(job)], job)
        elif chance < 0.885:
            self._call("rescue", store.rescue, limit=0)
        elif chance < 0.94:
            job = self._any()
            self._call("retry", lambda: [store.retry(job)], job)
        else:
            job = self._any()
            self._call("find", lambda: self._found(job), job)

    def _new(self) -> Job:
        if self._plain or self._rng.random() < 0.5:
            return Job("a")
        return Job("b", priority=self._rng.randrange(3), max_attempts=self._rng.choice((None, 3)))

    def _claim(self, limit: int) -> None:
        worker = "a" if self._plain else self._rng.choice("ab")
        told = self._call("claim", lambda: self._store.claim(worker, limit=limit), limit=limit)
        for job in told:
            self._held.append(Held(job.id or 0, job.claim))
            self._latest = max(self._latest, job.id or 0)

    def _end(self, held: Held) -> None:
        store, rng = self._store, self._rng
        job = Job("a", id=held.job, claim=held.claim)
        chance = rng.random()
        if chance < 0.6:
            self._call("complete", lambda: [store.complete(job)], *held)
        elif chance < 0.7:
            self._call("fail", lambda: [store.fail(job, "why")], *held)
        elif chance < 0.8 and not self._plain:
            later = datetime.now(UTC) + timedelta(milliseconds=rng.randrange(3))
            self._call("fail later", lambda: [store.fail(job, "why", retry_at=later)], *held)
        else:
            self._call("release", lambda: [store.release(job)], *held)
        self._lost = [*self._lost[-20:], held]

    def _any(self) -> int:
        """One that others work on just now, or that is to come."""
        return max(1, self._latest + 2 - self._rng.randrange(_NEAR))

    def _found(self, job: int) -> Iterator[Job]:
        found = self._store.find(job)
        if found is not None:
            yield found
