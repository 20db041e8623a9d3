"""Processes that work on one store (`workers`) and are killed; and whether the store has what
they were told that it has."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Any, Final, Self

import quelmdb
from quelmdb import Job, Status, Store
from tests.children import Child, ChildDiedError
from tests.faults.lanes import Step
from tests.faults.workers import Begun, Done, names, work

_PATIENCE: Final = 40.0  # seconds; a machine may be busy
_OPENED: Final = 1.0  # second
_MOST: Final = 0.99  # of the openings: others use the disk and the processors, too
_MANY: Final = 100  # openings, of which that part can be told
_DIED: Final = {"status", "updated_at", "owner", "failures", "error", "result"}
_DUE: Final = {"status", "updated_at"}


@dataclass
class Figures:
    """What was seen."""

    cycles: int = 0
    """Of a kill, of some processes at once; the store opened, and all that was acknowledged found
    in it; and work that goes on."""
    kills: int = 0
    """Of processes."""
    writes: int = 0
    """Calls that were acknowledged."""
    under_way: int = 0
    """Calls that were not, when their process was killed."""
    opened: list[float] = field(default_factory=list)
    """Seconds that opening took, in each cycle."""
    waited: list[float] = field(default_factory=list)
    """Seconds from a kill to the next acknowledged call of each process that lives on."""

    def __str__(self) -> str:
        others = ""
        if self.waited:
            others = f"; the others' next write came after {_ms(self.waited)}"
        return (
            f"{self.cycles:,} cycles of {self.kills:,} kills, {self.writes:,} acknowledged calls, "
            f"0 lost, {self.under_way:,} under way; "
            f"opened after a kill in {_ms(self.opened)}{others}"
        )


def assert_at_once(opened: Sequence[float]) -> None:
    """That opening took less than a second: by the median, and, of many, nearly always."""
    assert median(opened) < _OPENED, _ms(opened)
    if len(opened) >= _MANY:
        in_time = sum(seconds < _OPENED for seconds in opened)
        assert in_time >= len(opened) * _MOST, f"{in_time} of {len(opened)}, {_ms(opened)}"


def _ms(seconds: Sequence[float]) -> str:
    return f"{median(seconds) * 1000:.0f} ms, {max(seconds) * 1000:.0f} ms at most"


class Known:
    """What a lane was told."""

    def __init__(self) -> None:
        self.jobs: dict[int, Job] = {}
        self.step: Step | None = None
        """The call that is under way."""
        self.cancelling: set[tuple[int, int]] = set()
        """Ids and claims of jobs whose cancellation was asked for."""


class Seat:
    """A place for a process, taken by another one when it is killed."""

    def __init__(self, path: Path, name: str, kind: str) -> None:
        self.known = {lane: Known() for lane in names(name, kind)}
        self.child: Child | None = None
        self._arguments = path, name, kind

    def start(self, seed: int) -> None:
        self.child = Child(work, *self._arguments, seed)

    def hear(self, figures: Figures) -> int:
        """Takes in one message; returns when the call was made of which it tells, or 0.
        Raises `ChildDiedError`."""
        assert self.child is not None
        told = self.child.receive()
        known = self.known[told.lane]
        if isinstance(told, Begun):
            known.step = told.step
            return 0
        assert isinstance(told, Done)
        for job_id, job in told.changes.items():
            if job is None:
                del known.jobs[job_id]
                continue
            known.jobs[job_id] = job
            if known.step and known.step.verb == "cancel" and job.status is Status.STARTED:
                known.cancelling.add((job_id, job.claim))
        known.step = None
        figures.writes += 1
        return told.at

    def whereabouts(self) -> str:
        """In what its threads wait in the kernel, and what its lanes call."""
        assert self.child is not None
        threads = Path(f"/proc/{self.child.pid}/task").iterdir()
        waiting = [(thread / "wchan").read_text() for thread in threads]
        calls = [known.step and known.step.verb for known in self.known.values()]
        return f"{self._arguments[1:]} waits in {waiting}, calls {calls}"


class Crew:
    """All processes on a store. Ends them at the end of its `with` block."""

    def __init__(
        self, path: Path, kinds: Iterable[str], rng: random.Random, **options: Any
    ) -> None:
        self.figures = Figures()
        self.seats = [Seat(path, f"seat {n}", kind) for n, kind in enumerate(kinds)]
        self._path = path
        self._rng = rng
        quelmdb.open(path, **options).close()

    def __enter__(self) -> Self:
        for seat in self.seats:
            seat.start(self._rng.getrandbits(32))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for seat in self.seats:
            if seat.child is not None:
                seat.child.__exit__(kind, error, trace)

    def listen(self, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        """Takes in what all say, for so long."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not until():
            self._hear(left)

    def kill(
        self,
        victims: Sequence[Seat],
        also: Sequence[Child] = (),
        look: Callable[[Store], object] = lambda store: None,
    ) -> None:
        """Kills these processes, and others. Opens the store then, as a new process would;
        `look` sees it, while the others go on; and writes. New processes take the places."""
        self._kill(victims, also, look)
        for seat in victims:
            seat.start(self._rng.getrandbits(32))

    def end(self) -> None:
        """Kills all, for good; the store must have opened at once, all along."""
        self._kill(self.seats, (), lambda store: None)
        assert_at_once(self.figures.opened)

    def _kill(
        self, victims: Sequence[Seat], also: Sequence[Child], look: Callable[[Store], object]
    ) -> None:
        killed = [seat.child for seat in victims if seat.child is not None]
        at = time.monotonic_ns()
        for child in (*killed, *also):
            os.kill(child.pid, signal.SIGKILL)
        for child in (*killed, *also):
            child.join()
        for seat in victims:
            self._hear_the_last_of(seat)
        self.figures.cycles += 1
        self.figures.kills += len(killed) + len(also)
        began = time.monotonic()
        with quelmdb.open(self._path, create=False) as store:
            self.figures.opened.append(time.monotonic() - began)
            look(store)
            assert store.check() == []
            store.rescue()
            for seat in victims:
                self._verify(store, seat)
            store.destroy(store.insert(Job("of the test")))
        self._wait_for_others([seat for seat in self.seats if seat not in victims], at)

    def _hear(self, seconds: float, heard: Callable[[Seat, int], object] | None = None) -> None:
        pipes = {seat.child.pipe: seat for seat in self.seats if seat.child is not None}
        for pipe in wait(list(pipes), seconds):
            seat = pipes[pipe]
            at = seat.hear(self.figures)
            if heard is not None and at:
                heard(seat, at)

    def _hear_the_last_of(self, seat: Seat) -> None:
        assert seat.child is not None
        try:
            while True:
                seat.hear(self.figures)
        except ChildDiedError as died:
            assert died.exit_code == -signal.SIGKILL  # noqa: PT017
        seat.child.pipe.close()
        seat.child = None

    def _wait_for_others(self, others: Sequence[Seat], killed: int) -> None:
        missing = set(others)
        deadline = time.monotonic() + _PATIENCE

        def heard(seat: Seat, at: int) -> None:
            if at > killed and seat in missing:
                missing.discard(seat)
                self.figures.waited.append((at - killed) / 1e9)

        while missing:
            if time.monotonic() > deadline:
                where = [seat.whereabouts() for seat in missing]
                raise AssertionError(f"cannot write after others were killed: {where}")
            self._hear(1, heard)

    def _verify(self, store: Store, seat: Seat) -> None:
        for lane, known in seat.known.items():
            there = {job.id or 0: job for job in store.all(lane)}
            verify(known, there)
            self.figures.under_way += known.step is not None
            known.jobs, known.step = there, None
            known.cancelling.clear()


def verify(known: Known, there: Mapping[int, Job]) -> None:
    """Raises `AssertionError` unless the jobs of a lane are those that it was told of, and what
    the call under way may have made of them, after its process died and was rescued from."""
    told, step = known.jobs, known.step or Step("none", ())
    new = [job for job_id, job in there.items() if job_id not in told]
    assert {job.arguments[0] for job in new} <= set(step.inserts)
    if not step.touches or step.completes:  # else one may have taken the place of another
        assert len(new) in (0, len(step.inserts))
    taken = 0
    for job_id, was in told.items():
        job = there.get(job_id)
        if job_id in step.completes:
            assert job is not None
            assert (job.status is Status.COMPLETED) == bool(new)
        elif job_id not in step.touches:
            assert job is not None, f"{was} is lost"
            if not _is_the_same(was, job, (job_id, was.claim) in known.cancelling):
                assert _is_taken(was, job), f"{was} became {job}"
                taken += 1
    assert taken <= step.takes


def _is_the_same(was: Job, job: Job, cancelling: bool) -> bool:
    """Whether nothing has become of it but what does by itself."""
    if was == job:
        return was.status is not Status.STARTED
    if was.status is Status.SCHEDULED and job.status is Status.QUEUED:  # it fell due
        return _but(was, _DUE) == _but(job, _DUE)
    if was.status is not Status.STARTED:
        return False
    exhausted = was.max_attempts is not None and was.attempt >= was.max_attempts
    status = Status.FAILED if exhausted else Status.QUEUED
    return (
        job.status is (Status.CANCELLED if cancelling else status)
        and _has_died(was, job)
        and _but(was, _DIED) == _but(job, _DIED)
        and (job.status is Status.FAILED or (was.error, was.result) == (job.error, job.result))
    )


def _is_taken(was: Job, job: Job) -> bool:
    """Whether it was claimed by the process that died, which was not told of it any more."""
    changed = {*_DIED, "claim", "attempt"}
    return (
        was.status in (Status.QUEUED, Status.SCHEDULED)
        and job.claim > was.claim
        and job.attempt == was.attempt + 1
        and _has_died(was, job)
        and _but(was, changed) == _but(job, changed)
    )


def _has_died(was: Job, job: Job) -> bool:
    return job.owner == 0 and job.failures[-1].died and job.failures[:-1] == was.failures[-9:]


def _but(job: Job, names: set[str]) -> dict[str, Any]:
    return {name: value for name, value in job.as_dict().items() if name not in names}
