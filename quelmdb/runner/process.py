"""A process that runs jobs: its threads, its event loop, and the main thread, which looks
after time limits, summaries, and being told to stop."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from quelmdb.job import Job
from quelmdb.persistence import JobStore
from quelmdb.runner.dispatch import Dispatcher
from quelmdb.runner.finishing import Counts, Finisher
from quelmdb.runner.lanes import Pool
from quelmdb.runner.performing import Running, perform, perform_async, time_out
from quelmdb.runner.watch import Watch
from quelmdb.runner.workers import Definition

log = logging.getLogger("quelmdb.runner")

TASKS: Final = 1_000
"""How many async jobs a process runs at the same time, where their workers set no limit."""
GRACE_SECONDS: Final = 5.0
"""How much later than its timeout a coroutine or generator has to have ended; after that it
is treated as a thread that cannot be stopped."""
LOOP_SECONDS: Final = 2.0
"""An event loop that does not answer for so long is blocked."""
REPORT_SECONDS: Final = 1.0
_FEEDERS: Final = 2  # one waits in the store, while the other may find room for more
_PATIENCE: Final = 10.0  # seconds for the store to take what is finished, at the end
_NEVER: Final = float("inf")


class Process:
    """Runs the jobs of some workers in this process, until it is told to stop."""

    def __init__(
        self,
        store: JobStore,
        definitions: Sequence[Definition],
        *,
        threads: int = 1,
        until_empty: bool = False,
        tell: Callable[[Counts], object] = lambda counts: None,
        retiring: Callable[[], object] = lambda: None,
    ) -> None:
        """`tell` is called now and then with what came of the jobs so far, `retiring` when
        a job's thread cannot be stopped and this process should be replaced."""
        self.watch = Watch()
        self._finisher = Finisher(store, self.watch.by)
        self._dispatcher = Dispatcher(
            store, definitions, (threads, TASKS), self._finisher, self.watch.by, until_empty
        )
        self._tell = tell
        self._retiring = retiring
        self._error: BaseException | None = None  # of a thread, which should have none
        self._told = Counts()
        self._told_at = 0.0
        self._is_stopping = False
        self.is_retiring = False
        """Whether a thread is left that could not be stopped."""
        self._stuck: set[Running] = set()  # the jobs of such threads, and such coroutines
        self._loop_asked: float | None = None  # when, if it has not answered
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop_thread = threading.Thread(target=self._run_loop, name="loop", daemon=True)
        self._threads: list[threading.Thread] = []
        self._ended: list[None] = []  # an item for each of them that has
        for pool, count, work in (
            (self._dispatcher.threads, threads, self._work),
            (self._dispatcher.coroutines, _FEEDERS, self._feed),
        ):
            if pool.lanes:
                # Daemons, since one that cannot be stopped must not keep the process.
                self._threads += [
                    threading.Thread(
                        target=work, args=(pool,), name=f"{work.__name__}-{n}", daemon=True
                    )
                    for n in range(count)
                ]

    @property
    def counts(self) -> Counts:
        """What came of the jobs so far."""
        return self._finisher.counts

    def start(self) -> None:
        """Begins to claim."""
        if self._dispatcher.coroutines.lanes:
            self._loop_thread.start()
            self._ready.wait()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Claims no more, gives back what is not begun, and lets what runs end. For the
        main thread."""
        if not self._is_stopping:
            self._is_stopping = True
            self._dispatcher.stop()
            log.info(
                "process %d begins no more jobs; %d are being run",
                os.getpid(),
                len(self._dispatcher.running()),
            )

    def look_around(self) -> set[int]:
        """Does what the main thread has to do by now, and sleeps until there is more, or
        there is something to read from what `watch.also` was told. Raises what has ended one
        of the threads."""
        self.watch.begin()
        if self._error is not None:
            raise self._error
        now = time.monotonic()
        if now >= self._finisher.due:
            self._finisher.flush()
        self._report(now)
        until = min(
            self._dispatcher.look_after(now),
            self._finisher.due,
            self._look_after_limits(now),
            _NEVER if self.counts == self._told else self._told_at + REPORT_SECONDS,
        )
        return set() if self.is_over() else self.watch.sleep(until)

    def is_over(self) -> bool:
        """Whether all has ended that can be waited for."""
        stuck = self._stuck.intersection(self._dispatcher.running())
        stuck_tasks = sum(running.definition.is_async for running in stuck)
        threads = len(self._threads) - len(self._ended)
        tasks = len(self._dispatcher.coroutines.running)
        if threads > len(stuck) - stuck_tasks:
            return False
        return tasks <= stuck_tasks or self._loop_is_blocked(time.monotonic())

    def finish(self) -> bool:
        """When all is over: fails what could not be stopped, and sees that what is finished
        is in the store; whether it is."""
        left: list[Job] = []
        for running in self._dispatcher.running():
            if self._dispatcher.give_up(running):
                if running in self._stuck:
                    time_out(running)
                    self._finisher.put(running, time.monotonic())
                else:  # of a loop that another coroutine has blocked
                    left.append(running.job)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._end_loop.set)
            if not self.is_retiring:
                self._loop_thread.join()
        is_stored = self._flush_all()
        self._finisher.release(left)
        return is_stored

    def abandon(self) -> None:
        """Gives back all that is being run, so that it can be claimed at once and has not
        lost an attempt. The process has to end then."""
        self.stop()
        self._flush_all()
        self._finisher.release([running.job for running in self._dispatcher.running()])

    def _flush_all(self) -> bool:
        deadline = time.monotonic() + _PATIENCE
        while True:
            self._finisher.flush(wait=True)
            if self._finisher.due == _NEVER:
                self._tell(self.counts)
                return True
            if time.monotonic() > deadline:
                log.error("the store refuses what is finished; it will be run again")
                return False
            time.sleep(max(0.0, min(1.0, self._finisher.due - time.monotonic())))

    # --- Running jobs ---------------------------------------------------------

    def _work(self, pool: Pool) -> None:
        """A thread of plain jobs."""
        proceed = self._dispatcher.proceed
        try:
            running = self._dispatcher.take(pool)
            while running is not None:
                perform(running)
                running = proceed(pool, running)
        except BaseException as error:
            self._error = error
        finally:
            self._ended.append(None)
            self.watch.wake()

    def _feed(self, pool: Pool) -> None:
        """A thread that claims for the event loop."""
        dispatcher, loop = self._dispatcher, self._loop
        assert loop is not None
        try:
            while (running := dispatcher.take(pool)) is not None:
                begun = [running, *dispatcher.take_waiting(pool)]
                loop.call_soon_threadsafe(self._begin, begun)
        except BaseException as error:
            self._error = error
        finally:
            self._ended.append(None)
            self.watch.wake()

    def _run_loop(self) -> None:
        async def serve() -> None:
            self._loop = asyncio.get_running_loop()
            self._end_loop = asyncio.Event()
            self._ready.set()
            await self._end_loop.wait()

        asyncio.run(serve())

    def _begin(self, begun: Sequence[Running]) -> None:
        for running in begun:
            task = asyncio.get_running_loop().create_task(self._perform(running))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _perform(self, running: Running) -> None:
        await perform_async(running)
        self._dispatcher.finish(self._dispatcher.coroutines, running)
        if self._dispatcher.is_stopping:  # also by itself, when there is nothing left
            self.watch.wake()

    # --- What the main thread looks after -------------------------------------

    def _look_after_limits(self, now: float) -> float:
        """Sees whose time is over. Returns when the next one's will be."""
        again = _NEVER
        for running in self._dispatcher.running():
            deadline, definition = running.deadline, running.definition
            if deadline is None or running in self._stuck:
                continue
            running.is_overdue = now >= deadline
            if definition.is_async or (definition.is_generator and running.is_overdue):
                deadline += GRACE_SECONDS
            if now < deadline:
                again = min(again, deadline)
            else:
                self._retire(running)
        if self._loop_asked is not None:
            again = min(again, self._loop_asked + LOOP_SECONDS)
        return again

    def _retire(self, running: Running) -> None:
        log.warning(
            "job %s of %s takes longer than %g s and cannot be stopped: this process ends when "
            "its other jobs have, and is replaced",
            running.job.id,
            running.job.worker,
            running.definition.timeout,
        )
        self._stuck.add(running)
        if running.definition.is_async and self._loop is not None and self._loop_asked is None:
            self._loop_asked = time.monotonic()
            self._loop.call_soon_threadsafe(self._hear_loop)
        if not self.is_retiring:
            self.is_retiring = True
            self._retiring()
            self.stop()

    def _hear_loop(self) -> None:
        self._loop_asked = None
        self.watch.wake()

    def _loop_is_blocked(self, now: float) -> bool:
        """Whether a coroutine keeps all others from going on."""
        return self._loop_asked is not None and now >= self._loop_asked + LOOP_SECONDS

    def _report(self, now: float) -> None:
        counts = self.counts
        if counts != self._told and now >= self._told_at + REPORT_SECONDS:
            self._tell(counts)
            self._told, self._told_at = replace(counts), now
