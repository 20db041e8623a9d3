"""The workers of a process side by side: how far ahead each one's jobs are claimed, and how
many of them may run at once.

Short jobs are claimed ahead, some `AHEAD_SECONDS` of work; long ones are not, so that other
processes get them. Nor are those of a worker with a single attempt, or of which this one is the
last that they ask for themselves: where the process dies, only jobs that had begun shall lose
it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from typing import Final

from quelmdb.job import Job
from quelmdb.runner.performing import Running
from quelmdb.runner.workers import Definition

AHEAD_SECONDS: Final = 0.02
MOST_AHEAD: Final = 500
_SINGLE: Final = 64  # claims that follow a job in its last attempt
_LATEST: Final = 0.2  # the weight of the latest job in the mean duration


class Lane:
    """The jobs of one worker in this process."""

    __slots__ = ("ahead", "definition", "held", "parked", "running", "seconds", "single", "width")

    def __init__(self, definition: Definition, width: int) -> None:
        self.definition = definition
        self.width = width if definition.concurrency is None else min(definition.concurrency, width)
        self.running = 0
        self.held = 0  # claimed: those that run, and those that wait
        self.parked: deque[Job] = deque()  # claimed, and more than may run at once
        self.ahead = 1  # how many are claimed for each that can run at once
        self.single = 0  # as many claims are of no more than can begin
        self.seconds: float | None = None  # the mean duration

    def ran(self, seconds: float) -> None:
        """Learns how long a job took."""
        mean = self.seconds
        self.seconds = mean = seconds if mean is None else mean + _LATEST * (seconds - mean)
        if mean * self.ahead > AHEAD_SECONDS:
            self.ahead = max(1, int(AHEAD_SECONDS / mean))

    def grow(self) -> None:
        """Claims further ahead the next time, where its jobs are short."""
        if self.seconds is None or self.definition.max_attempts == 1:
            return
        if self.single:
            self.single -= 1
            return
        if self.ahead * self.seconds * 2 <= AHEAD_SECONDS:
            self.ahead = min(self.ahead * 4, MOST_AHEAD, int(AHEAD_SECONDS / self.seconds) or 1)


class Pool:
    """The lanes of plain workers, or of async ones, and the claimed jobs that wait in them."""

    def __init__(self, definitions: Iterable[Definition], width: int, lock: threading.Lock) -> None:
        self.width = width
        """How many jobs it can run at the same time."""
        self.lanes = {one.name: Lane(one, width) for one in definitions}
        self.changed = threading.Condition(lock)
        self.queue: deque[Job] = deque()
        self.running: set[Running] = set()
        self.is_claiming = False
        self.is_awaited = False  # somebody waits for the end of that claim
        self.waits_for: frozenset[str] = frozenset()
        """The workers for which somebody waits in the store."""
        self.turn = 0  # of the short jobs, or of the long ones, to be claimed first
        self.last_taken = 0.0

    def pop(self) -> tuple[Job, Lane] | None:
        """The next job that may run."""
        while self.queue:
            job = self.queue.popleft()
            lane = self.lanes[job.worker or ""]
            if lane.running < lane.width:
                return job, lane
            lane.parked.append(job)
        return None

    def is_too_early(self, job: Job) -> bool:
        """Whether a job that was claimed is in the last attempt that it asks for itself, and
        cannot begin at once."""
        if job.max_attempts is None or job.attempt < job.max_attempts:
            return False
        lane = self.lanes[job.worker or ""]
        lane.ahead, lane.single = 1, _SINGLE
        return len(self.running) + len(self.queue) >= self.width or lane.held >= lane.width

    def empty(self) -> list[Job]:
        """Takes away all that wait."""
        waiting = [*self.queue]
        self.queue.clear()
        for lane in self.lanes.values():
            waiting += lane.parked
            lane.parked.clear()
        for job in waiting:
            self.lanes[job.worker or ""].held -= 1
        return waiting

    def wanted(self) -> list[tuple[list[str], int]]:
        """Which workers' jobs are to be claimed, and how many at most: long jobs apart from
        short ones, so that nobody has to be claimed for beyond what can run."""
        free = self.width - len(self.running)
        if free <= 0:
            return []
        short: list[tuple[int, str]] = []
        long: list[tuple[int, str]] = []
        ahead = MOST_AHEAD
        for name, lane in self.lanes.items():
            lane.grow()
            room = lane.width * lane.ahead - lane.held
            if room > 0:
                (long if lane.ahead == 1 else short).append((room, name))
                if lane.ahead > 1:
                    ahead = min(ahead, lane.ahead)
        groups = []
        for group, most in ((short, free * ahead), (long, free)):
            if group:
                limit = min(min(group)[0], most, MOST_AHEAD)
                groups.append(([name for _, name in group], limit))
        self.turn ^= 1
        return groups[::-1] if self.turn else groups
