"""A store on disk and one in memory, which do the same, and must tell the same of it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import quelmdb
from quelmdb import Job, JobStore, MemoryStore, Status
from quelmdb.events import Event
from quelmdb.reader import Reader, Snapshot
from quelmdb.testing import ManualClock
from tests import strategies as some
from tests.inmemory import MEMORY


def _outcome(call: Callable[[], Any]) -> Any:
    """What a call returns, or the type of what it raises, in a form that compares."""
    try:
        return _comparable(call())
    except (quelmdb.QuelmdbError, ValueError) as error:
        return type(error)


def _comparable(value: Any) -> Any:
    """A job without the number of its owner, which only says which process it was."""
    if isinstance(value, Event):
        return (value.kind, _comparable(value.job), value.seconds)
    if isinstance(value, Job):
        return repr({**value.as_dict(), "owner": value.owner > 0})
    if isinstance(value, list):
        return [_comparable(item) for item in value]
    return value


def _everything(reader: Reader) -> list[Any]:
    return [
        _comparable(list(reader.all())),
        list(reader.all(reverse=True).ids()),
        reader.workers(),
        reader.counts(),
        *(reader.counts(worker) for worker in reader.workers()),
        *(list(reader.jobs(status).ids()) for status in Status),
        *(list(reader.incomplete(worker).ids()) for worker in reader.workers()),
    ]


class TwoStores(RuleBasedStateMachine):
    """One LMDB store, one MemoryStore, one clock; and what happens to both beside the verbs."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.directory = Path(tempfile.mkdtemp(prefix="quelmdb-", dir=MEMORY))
        self.store: JobStore = quelmdb.open(self.directory / "store", clock=self.clock)
        self.model = MemoryStore(clock=self.clock)
        self.heard: tuple[list[Event], list[Event]] = ([], [])
        self.ends: list[Callable[[], None]] = []
        self.snapshots: tuple[Snapshot, Snapshot] | None = None
        self.claimed: list[Job] = []  # every job that was ever claimed, as the model tells it

    def teardown(self) -> None:
        try:
            self.end_snapshot()
            assert self.store.check() == []
            assert self.model.check() == []
        finally:
            self.store.close()
            shutil.rmtree(self.directory)

    def both(self, verb: Callable[[JobStore], Any]) -> Any:
        """Does the same on both, compares, and tells what the model returned."""
        returned: list[Any] = []

        def of_model() -> Any:
            returned.append(verb(self.model))
            return returned[0]

        expected = _outcome(of_model)
        assert _outcome(lambda: verb(self.store)) == expected
        of_store, told = self.heard
        assert _comparable(of_store) == _comparable(told)
        of_store.clear()
        told.clear()
        return returned[0] if returned else None

    @rule()
    def listen_or_end_it(self) -> None:
        """Where nobody listens, many jobs take a shorter path."""
        if self.ends:
            for end in self.ends:
                end()
            self.ends = []
        else:
            self.ends = [
                store.listen(events.append)
                for store, events in zip((self.store, self.model), self.heard, strict=True)
            ]

    @invariant()
    def they_agree(self) -> None:
        assert _everything(self.store) == _everything(self.model)
        assert self.store.next_due() == self.model.next_due()
        assert self.store.paused() == self.model.paused()
        for job in self.model.jobs(Status.STARTED):
            assert self.store.started_at(job) == self.model.started_at(job)

    def a_claimed_job(self, data: st.DataObject) -> Job:
        """Mostly one that is still held."""
        held = [job for job in self.claimed if self.model.find(job) == job]
        job: Job = data.draw(st.sampled_from(held or self.claimed) | st.sampled_from(self.claimed))
        return job

    def a_stored_job(self, data: st.DataObject) -> Job | int:
        """Mostly one that is there."""
        stored = list(self.model.all())
        job: Job | int = data.draw(
            st.sampled_from(stored) | st.sampled_from(stored) | some.few_ids
            if stored
            else some.few_ids
        )
        return job

    @precondition(lambda self: self.snapshots is None)
    @rule()
    def take_snapshot(self) -> None:
        self.snapshots = (self.store.snapshot(), self.model.snapshot())

    @precondition(lambda self: self.snapshots is not None)
    @rule()
    def look_at_snapshot(self) -> None:
        assert self.snapshots is not None
        store, model = self.snapshots
        assert _everything(store) == _everything(model)

    @rule()
    def end_snapshot(self) -> None:
        for snapshot in self.snapshots or ():
            snapshot.close()
        self.snapshots = None

    # --- The world ---

    @rule(microseconds=st.integers(-1_000, 10**12))
    def time_goes_on(self, microseconds: int) -> None:
        self.clock.advance(microseconds)

    @rule()
    def reopen(self) -> None:
        """What the store held when it was closed is held by nobody: it is rescued when it
        is open again."""
        self.end_snapshot()
        self.store.close()
        self.store = quelmdb.open(self.directory / "store", clock=self.clock)
        self.model = self.model.reopened()
        self.ends = []
        self.both(lambda store: store.rescue())

    @rule()
    def rescue_finds_nothing_that_a_living_process_holds(self) -> None:
        self.both(lambda store: store.rescue())

    @rule()
    def check(self) -> None:
        self.both(lambda store: store.check())
