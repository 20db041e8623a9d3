"""Which job runs next: what is claimed, how much ahead, within which limits, and with whom.

A process has two pools, one of threads for plain workers and one of coroutines for async
ones. Whoever of a pool is free takes a claimed job; where none is left, one of them claims
for all of its pool, and where there is nothing to claim, one waits in the store. So with
one thread everything happens in that thread, one thing after the other: a transaction
beside a thread that computes costs a hundred times as much, since py-lmdb gives up Python's
lock at every step and has to wait for it.

How far ahead is for `lanes` to say. A job that was held when its process died is a suspect: it
runs with nothing else held by this process, so that the next death costs no other job an
attempt. Only where the jobs that run already do not end within `STUCK_SECONDS` it runs beside
them: each of these may pay for its next death once, as all of them are suspects then. Around
suspects single jobs are claimed, the longer the more of them there are.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from quelmdb.errors import DecodeError, StoreClosedError, StoreError
from quelmdb.job import Job
from quelmdb.persistence import JobStore
from quelmdb.runner.finishing import REFUSED_SECONDS, Finisher
from quelmdb.runner.lanes import Lane, Pool
from quelmdb.runner.performing import Discard, Running
from quelmdb.runner.workers import Definition
from quelmdb.status import INCOMPLETE

log = logging.getLogger("quelmdb.runner")

MAX_DEATHS: Final = 3
"""A job that so many processes have died of is failed, and not run again."""

STUCK_SECONDS: Final = 0.1
"""What is claimed and not begun for so long, since a job took unexpectedly long, goes back."""
WAIT_SECONDS: Final = 0.25
"""After so long, whoever waits in the store looks whether it is to stop."""
DRAIN_SECONDS: Final = 0.05  # the same, where the end of other processes' jobs is waited for
_CAREFUL: Final = 3  # claims of a single job that follow one with a suspect; doubled by others
_MOST_CAREFUL: Final = 500
_CLEAN: Final = 1_000  # so many jobs without a suspect, and the next one is as the first
_NOT_RUN: Final = "not run again: "  # how the error of such a job begins


class Dispatcher:
    """Hands out the jobs of a process."""

    def __init__(
        self,
        store: JobStore,
        definitions: Sequence[Definition],
        widths: tuple[int, int],
        finisher: Finisher,
        watch: Callable[[float], None],
        until_empty: bool,
    ) -> None:
        """`widths`: how many plain jobs, and how many async ones, may run at once."""
        self._store = store
        self._finisher = finisher
        self._watch = watch
        self._until_empty = until_empty
        self._lock = threading.Lock()
        plain = [one for one in definitions if not one.is_async]
        coroutines = [one for one in definitions if one.is_async]
        self.threads = Pool(plain, widths[0], self._lock)
        self.coroutines = Pool(coroutines, widths[1], self._lock)
        self._pools = (self.threads, self.coroutines)
        self._suspect: tuple[Pool, Job] | None = None
        self._suspect_runs = False
        self._suspect_since = 0.0
        self._careful = 0  # claims of a single job that are left
        self._most_careful = 0  # of how many, after the latest suspect
        self._clean = 0  # jobs since then
        self.is_stopping = False

    # --- For those who run jobs -----------------------------------------------

    def take(self, pool: Pool) -> Running | None:
        """The next job to run, waited for; None where there will be none."""
        while True:
            alone: Running | None = None
            wanted: list[tuple[list[str], int]] = []
            with self._lock:
                while True:
                    if self.is_stopping:
                        return None
                    if self._suspect is None:
                        found = pool.pop()
                        if found is not None:
                            return self._begin(pool, *found)
                        wanted = [] if pool.is_claiming else pool.wanted()
                        if wanted:
                            pool.is_claiming = True
                            break
                    elif self._is_alone(pool):
                        alone = self._begin_suspect()
                        break
                    pool.is_awaited = pool.is_claiming
                    pool.changed.wait(self._patience())
            if alone is not None:
                self._finisher.flush(wait=True)  # what is finished is not at risk
                return alone
            try:
                if not self._claim(pool, wanted) and not self._idle(pool, wanted):
                    return None
            except StoreError as error:
                if isinstance(error, StoreClosedError):
                    return None
                log.error("nothing can be claimed: %s", error)
                with self._lock:
                    pool.changed.wait(REFUSED_SECONDS)

    def take_waiting(self, pool: Pool) -> list[Running]:
        """All that could run at once, without waiting."""
        taken: list[Running] = []
        with self._lock:
            while self._suspect is None and not self.is_stopping and len(pool.running) < pool.width:
                found = pool.pop()
                if found is None:
                    break
                taken.append(self._begin(pool, *found))
        return taken

    def proceed(self, pool: Pool, running: Running) -> Running | None:
        """Takes what came of a job of a thread, and returns the next one, as `take`."""
        if not running.is_given_up:
            if self._finisher.put(running, running.started + running.seconds):
                self._finisher.flush()
            with self._lock:
                self._finished(pool, running)
                if pool.queue and self._suspect is None and not self.is_stopping:
                    found = pool.pop()
                    if found is not None:
                        return self._begin(pool, *found)
        return self.take(pool)

    def finish(self, pool: Pool, running: Running) -> None:
        """Takes what came of a coroutine, which never waits for the store."""
        if running.is_given_up:
            return
        with self._lock:
            is_last = len(pool.running) == 1 and not pool.queue
        # Before it counts as ended: nobody may take that for the end of all.
        self._finisher.put(running, running.started + running.seconds, hurry=is_last)
        with self._lock:
            self._finished(pool, running)
            pool.changed.notify()

    # --- For the main thread --------------------------------------------------

    def give_up(self, running: Running) -> bool:
        """Forgets a job that is being run; False where it has ended by now."""
        with self._lock:
            for pool in self._pools:
                if running in pool.running:
                    pool.running.discard(running)
                    running.is_given_up = True
                    return True
        return False

    def stop(self) -> None:
        """Begins nothing any more, and gives back what is not begun."""
        with self._lock:
            self.is_stopping = True
            waiting = self._give_up_waiting()
            self._notify_all()
        self._finisher.release(waiting)

    def running(self) -> list[Running]:
        """The jobs that are being run, in all pools."""
        with self._lock:
            return [running for pool in self._pools for running in pool.running]

    def look_after(self, now: float) -> float:
        """Gives back what waits behind jobs that take unexpectedly long. Returns when to
        look again."""
        stuck: list[Job] = []
        again = float("inf")
        with self._lock:
            for pool in self._pools:
                if not pool.queue and not any(lane.parked for lane in pool.lanes.values()):
                    continue
                if now < pool.last_taken + STUCK_SECONDS:
                    again = min(again, pool.last_taken + STUCK_SECONDS)
                    continue
                stuck += pool.empty()
                for running in pool.running:
                    pool.lanes[running.definition.name].ran(now - running.started)
        if stuck:
            self._finisher.release(stuck)
        return again

    # --- Claiming -------------------------------------------------------------

    def _claim(self, pool: Pool, wanted: Sequence[tuple[list[str], int]]) -> bool:
        """Claims for a pool; whether there was anything to claim."""
        jobs: list[Job] = []
        refused: list[Job] = []
        try:
            self._finisher.flush()
            if not self._finisher.is_refused:
                for names, limit in wanted:
                    jobs = self._store.claim(*names, limit=1 if self._careful else limit)
                    if jobs:
                        break
            with self._lock:
                refused = self._admit(pool, jobs)
            if refused:
                self._finisher.release(refused)
        finally:
            with self._lock:
                pool.is_claiming = False
                if jobs:
                    pool.changed.notify(len(jobs))  # one more than is needed: it waits next
                elif pool.is_awaited:
                    pool.changed.notify()  # there may be room by now for other workers' jobs
                pool.is_awaited = False
                if self._suspect is not None:  # which may have waited for the end of this
                    self._notify_all()
        return bool(jobs)

    def _admit(self, pool: Pool, jobs: Sequence[Job]) -> list[Job]:
        """Puts what was claimed into the queue of its pool. Returns what is to be released."""
        refused: list[Job] = []
        suspect: Job | None = None
        for job in jobs:
            deaths = _deaths(job) if job.attempt > 1 else 0
            definition = pool.lanes[job.worker or ""].definition
            if deaths and (why := _why_not(job, definition)):
                settled = Running(self._store, job, definition)
                settled.error = Discard(_NOT_RUN + why)
                self._finisher.put(settled, settled.started, hurry=True)
            elif self.is_stopping or suspect is not None or self._suspect is not None:
                refused.append(job)
            elif deaths:
                suspect = job
            elif pool.is_too_early(job):
                refused.append(job)
            else:
                pool.queue.append(job)
                pool.lanes[job.worker or ""].held += 1
        if suspect is not None:
            refused += self._give_up_waiting()
            self._suspect = (pool, suspect)
            self._suspect_since = time.monotonic()
            pool.lanes[suspect.worker or ""].held += 1
            self._most_careful = min(max(_CAREFUL, self._most_careful * 2), _MOST_CAREFUL)
            self._careful = self._most_careful
            self._clean = 0
        elif jobs:
            self._careful -= self._careful > 0
            self._clean += len(jobs) - len(refused)
            if self._clean >= _CLEAN:
                self._most_careful = 0
        if self._careful:  # after that, more are claimed step by step
            for lane in pool.lanes.values():
                lane.ahead = 1
        pool.last_taken = time.monotonic()
        if pool.queue:
            self._watch(pool.last_taken + STUCK_SECONDS)
        return refused

    def _idle(self, pool: Pool, wanted: Sequence[tuple[list[str], int]]) -> bool:
        """Waits until there may be something to claim; False where there will be nothing."""
        if self._finisher.is_refused:
            with self._lock:
                pool.changed.wait(REFUSED_SECONDS)
            return True
        if self._until_empty and self._is_empty():
            with self._lock:
                self.is_stopping = True
                self._notify_all()
            return False
        names = frozenset(name for group, _ in wanted for name in group)
        with self._lock:
            if self.is_stopping:
                return False
            if pool.queue or self._suspect is not None:
                return True
            if names <= pool.waits_for:
                pool.changed.wait()
                return True
            pool.waits_for = names
        try:
            self._store.wait(*names, timeout=DRAIN_SECONDS if self._until_empty else WAIT_SECONDS)
        finally:
            with self._lock:
                if pool.waits_for is names:
                    pool.waits_for = frozenset()
        return True

    def _is_empty(self) -> bool:
        """Whether there is nothing left to be done, by anybody, for the workers of this
        process; those that are paused do not count."""
        paused = set(self._store.paused())
        return not any(
            self._store.counts(name)[status]
            for pool in self._pools
            for name in pool.lanes
            if name not in paused
            for status in INCOMPLETE
        )

    # --- With the lock --------------------------------------------------------

    def _begin(self, pool: Pool, job: Job, lane: Lane) -> Running:
        running = Running(self._store, job, lane.definition)
        lane.running += 1
        pool.running.add(running)
        pool.last_taken = running.started
        if running.deadline is not None:
            self._watch(running.deadline)
        return running

    def _finished(self, pool: Pool, running: Running) -> None:
        pool.running.discard(running)
        lane = pool.lanes[running.definition.name]
        lane.running -= 1
        lane.held -= 1
        lane.ran(running.seconds)
        if lane.parked:
            pool.queue.appendleft(lane.parked.popleft())
            pool.changed.notify()
        if self._suspect is not None:
            if self._suspect_runs:
                self._suspect, self._suspect_runs = None, False
                self._notify_all()
            else:
                self._notify_all()

    def _begin_suspect(self) -> Running:
        assert self._suspect is not None
        pool, job = self._suspect
        self._suspect_runs = True
        return self._begin(pool, job, pool.lanes[job.worker or ""])

    def _is_alone(self, pool: Pool) -> bool:
        """Whether the suspect is this pool's, and there is nothing beside it any more; or
        nothing but what has kept it waiting for too long."""
        if self._suspect is None or self._suspect[0] is not pool or self._suspect_runs:
            return False
        if any(one.is_claiming for one in self._pools):
            return False
        if not any(one.running for one in self._pools):
            return True
        lane = pool.lanes[self._suspect[1].worker or ""]
        has_room = len(pool.running) < pool.width and lane.running < lane.width
        return has_room and time.monotonic() >= self._suspect_since + STUCK_SECONDS

    def _patience(self) -> float | None:
        """How long to wait for a change, at most: until a suspect runs with others beside it."""
        if self._suspect is None or self._suspect_runs:
            return None
        rest = self._suspect_since + STUCK_SECONDS - time.monotonic()
        return rest if rest > 0 else None

    def _give_up_waiting(self) -> list[Job]:
        waiting = [job for pool in self._pools for job in pool.empty()]
        if self._suspect is not None and not self._suspect_runs:
            pool, job = self._suspect
            pool.lanes[job.worker or ""].held -= 1
            waiting.append(job)
            self._suspect = None
        return waiting

    def _notify_all(self) -> None:
        for pool in self._pools:
            pool.changed.notify_all()


def _deaths(job: Job) -> int:
    """How many processes have died while they held it."""
    try:
        return sum(failure.died for failure in job.failures)
    except DecodeError:  # which ends its attempt in a moment
        return 0


def _why_not(job: Job, definition: Definition) -> str | None:
    """Why a job that processes have died with is not to be run again; None if it is."""
    own = job.max_attempts  # which the store looks after: a death in the last one fails the job
    most = definition.max_attempts if own is None else own
    deaths: list[str] = []
    for failure in job.failures:
        is_last = most is not None and failure.attempt >= most
        if failure.died and not (is_last and own is not None):
            deaths.append(str(failure.attempt))
        elif is_last or failure.error.startswith(_NOT_RUN):
            deaths = []  # it was failed for good, and then somebody asked for a retry
    if len(deaths) >= MAX_DEATHS:
        return f"{len(deaths)} processes died while they held it (attempts {', '.join(deaths)})"
    if own is None and most is not None and job.attempt > most and job.failures[-1].died:
        return f"its process died in the last of {most} attempts"
    return None
