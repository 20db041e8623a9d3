"""What many processes do at the same time, some of which are killed, is what a store may do."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from statistics import median
from typing import Any, Final

import quelmdb
from quelmdb import Store
from quelmdb.filesystem import MIB
from tests.children import Child, ChildDiedError
from tests.durabilities import by_durability
from tests.faults.figures import Tell
from tests.faults.history import Asked, History, recoveries, violations
from tests.faults.onejob import Call, Death
from tests.faults.recording import THREADS, Held, held_at_the_end, recorded, work
from tests.faults.seeds import seeded
from tests.faults.workers import compact_for_ever

pytest_plugins = ["tests.fixtures"]

PROCESSES: Final = 4
LONG: Final = 24  # rounds


class _Round:
    """Processes on one store, for a while; and their history."""

    def __init__(self, path: Path, logs: Path, rng: random.Random, plain: bool) -> None:
        self.deaths: dict[int, Death] = {}
        self.kills = 0
        self.compactors = 0
        self._path = path
        self._logs = logs
        self._rng = rng
        self._plain = plain
        self._stack = ExitStack()
        self._living: dict[int, Child] = {}
        self._calls: list[Call] = []
        self._under_way: list[Call] = []

    def run(self, seconds: float) -> History:
        logs = self._logs
        logs.mkdir()
        with self._stack:
            for _ in range(PROCESSES):
                self._start(())
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                with ExitStack() as compacting:
                    if self._rng.random() < 0.3:
                        compacting.enter_context(Child(compact_for_ever, self._path))
                        self.compactors += 1
                    time.sleep(self._rng.random() * self._rng.choice((0.05, 0.4)))
                self._start(self._kill(self._rng.choice(list(self._living))))
            for process, child in list(self._living.items()):
                child.send()
                began, ended = child.receive()
                self.deaths[process] = Death(began, ended, killed=False)
                self._read(process)
        return self._history()

    def _start(self, inherited: Sequence[Held]) -> None:
        number = len(self.deaths) + len(self._living) + 1
        seed = self._rng.randrange(2**32)
        arguments = (self._path, self._logs, number, seed, self._plain, inherited)
        self._living[number] = self._stack.enter_context(Child(work, *arguments))

    def _kill(self, process: int) -> list[Held]:
        """Returns what it held."""
        child = self._living.pop(process)
        began = time.monotonic_ns()
        child.kill()
        self.deaths[process] = Death(began, time.monotonic_ns())
        with suppress(ChildDiedError):  # what it has to say is an error
            child.receive()
        self.kills += 1
        return self._read(process)

    def _read(self, process: int) -> list[Held]:
        held: list[Held] = []
        for thread in range(THREADS):
            log = self._logs / f"{process}.{thread}"
            if log.exists():
                calls, under_way = recorded(log, process)
                self._calls += calls
                held += held_at_the_end(calls)
                if under_way is not None:
                    self._under_way.append(under_way)
                log.unlink()
        return held

    def _history(self) -> History:
        """With what is left at the end."""
        with quelmdb.open(self._path, create=False) as store:
            store.rescue()
            jobs = _look_at_all(store, self._calls)
            store.destroy_many(jobs)
        known = [call for call in self._under_way if call.job]
        return History(
            self._calls + known,
            self.deaths,
            jobs,
            [call for call in self._under_way if call.verb == "claim"],
            [call for call in self._under_way if call.verb == "insert"],
        )


def _look_at_all(store: Store, calls: list[Call]) -> dict[int, Asked]:
    jobs = {}
    called = time.monotonic_ns()
    everything = list(store.all())
    returned = time.monotonic_ns()
    for job in everything:
        assert job.id is not None
        jobs[job.id] = Asked(job.worker or "", job.priority, job.max_attempts)
        told = str(job.status), job.claim, job.attempt
        calls.append(Call(0, "find", job.id, called, returned, *told))
    return jobs


@by_durability(64 * MIB)
def test_every_history_of_many_processes_is_one_that_a_store_may_have(
    options: dict[str, Any], path: Path, tmp_path: Path, long: bool, figure: Tell
) -> None:
    rng = seeded()
    quelmdb.open(path, **options).close()
    calls = jobs = kills = stale = under_way = compactors = 0
    back: list[int] = []
    for number in range(LONG if long else 2):
        one = _Round(path, tmp_path / f"logs {number}", rng, plain=number % 2 == 1)
        history = one.run(5 if long else 0.7)
        found = violations(history)
        assert not found, f"{len(found)} violations:\n" + "\n".join(found[:5])
        calls += len(history.calls)
        jobs += len(history.jobs)
        kills += one.kills
        compactors += one.compactors
        stale += sum(call.told == "stale" for call in history.calls)
        under_way += len(history.claims_under_way)
        back += recoveries(history)
    assert not long or min(kills, stale, under_way, compactors, len(back)) > 0
    again = f"{median(back) / 1e6:.0f} ms, {max(back) / 1e6:.0f} ms at most" if back else "–"
    figure(
        f"{calls:,} calls on {jobs:,} jobs by {PROCESSES} processes of {THREADS} threads, "
        f"{kills:,} of them killed, {under_way:,} in a claim, and {compactors:,} in compactions; "
        f"{stale:,} stale ends refused, 0 violations; what the dead held was claimed again "
        f"after {again}"
    )
