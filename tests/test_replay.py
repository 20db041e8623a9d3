"""The replay of recordings finds every way in which a store may not do what Que did."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from datetime import timedelta
from typing import Any, Unpack

import pytest

from quelmdb.errors import JobExistsError
from quelmdb.job import Job
from quelmdb.memory import MemoryStore
from quelmdb.reader import IdView, JobView, Page
from quelmdb.status import Status
from quelmdb.testing import ManualClock, Mismatch, load_trace, replay, trace_names
from quelmdb.testing.replay import Trace
from quelmdb.values import ANY, WorkerFilter
from quelmdb.writes import OnDuplicate


class _ChangedView(JobView):
    """A listing that `change` was done to."""

    def __init__(self, view: JobView, change: Callable[[list[Job]], list[Job]]) -> None:
        self._view = view
        self._change = change

    def __iter__(self) -> Iterator[Job]:
        return iter(self._change(list(self._view)))

    def __len__(self) -> int:
        return len(self._view)

    def ids(self) -> IdView:
        return self._view.ids()


class _ChangedListings(MemoryStore):
    def jobs(
        self, *statuses: Status | str, worker: WorkerFilter = ANY, **page: Unpack[Page]
    ) -> JobView:
        return _ChangedView(super().jobs(*statuses, worker=worker, **page), self.change)

    def change(self, jobs: list[Job]) -> list[Job]:
        raise NotImplementedError


class ListsBackwards(_ChangedListings):
    def change(self, jobs: list[Job]) -> list[Job]:
        return jobs[::-1]


class ListsInOrderOfUpdate(_ChangedListings):
    def change(self, jobs: list[Job]) -> list[Job]:
        return sorted(jobs, key=lambda job: str(job.updated_at))


class LosesTheLast(_ChangedListings):
    def change(self, jobs: list[Job]) -> list[Job]:
        return jobs[:-1]


class ListsTwice(_ChangedListings):
    def change(self, jobs: list[Job]) -> list[Job]:
        return jobs + jobs[-1:]


class ListsWithoutArguments(_ChangedListings):
    def change(self, jobs: list[Job]) -> list[Job]:
        return [job.replace(arguments=None) for job in jobs]


class CountsCancelledForFailed(MemoryStore):
    def completed(self, worker: WorkerFilter = ANY, **page: Unpack[Page]) -> JobView:
        return self.jobs("completed", "failed", worker=worker, **page)


class ForgetsStarted(MemoryStore):
    def incomplete(self, worker: WorkerFilter = ANY, **page: Unpack[Page]) -> JobView:
        return self.jobs("queued", worker=worker, **page)


class TakesNoneForAll(MemoryStore):
    def jobs(
        self, *statuses: Status | str, worker: WorkerFilter = ANY, **page: Unpack[Page]
    ) -> JobView:
        return super().jobs(*statuses, worker=ANY if worker is None else worker, **page)


class OverwritesOnInsert(MemoryStore):
    def insert(self, job: Job, on_duplicate: OnDuplicate = "raise") -> Job:
        try:
            return super().insert(job, on_duplicate)
        except JobExistsError:
            return self.update(job)


class OverwritesAndRaises(MemoryStore):
    def insert(self, job: Job, on_duplicate: OnDuplicate = "raise") -> Job:
        try:
            return super().insert(job, on_duplicate)
        except JobExistsError:
            self.update(job.replace(arguments="overwritten"))
            raise


class ReusesIds(MemoryStore):
    def insert(self, job: Job, on_duplicate: OnDuplicate = "raise") -> Job:
        self._table.next_id = max(self._table.ids, default=0) + 1
        return super().insert(job, on_duplicate)


class SkipsIds(MemoryStore):
    def insert(self, job: Job, on_duplicate: OnDuplicate = "raise") -> Job:
        self._table.next_id += 1
        return super().insert(job, on_duplicate)


class KeepsUpdatedAt(MemoryStore):
    def update(self, job: Job) -> Job:
        before = self.find(job)
        updated = super().update(job)
        if before is None:
            return updated
        return self.restore([updated.replace(updated_at=before.updated_at)], "replace")[0]


class KeepsCreatedAt(MemoryStore):
    def update(self, job: Job) -> Job:
        before = self.find(job)
        return super().update(job.replace(created_at=before and before.created_at))


class BelievesCreatedAtOfInserts(MemoryStore):
    def insert(self, job: Job, on_duplicate: OnDuplicate = "raise") -> Job:
        inserted = super().insert(job, on_duplicate)
        if job.created_at is None:
            return inserted
        return self.update(inserted.replace(created_at=job.created_at))


class IsLate(MemoryStore):
    def insert(self, job: Job, on_duplicate: OnDuplicate = "raise") -> Job:
        inserted = super().insert(job, on_duplicate)
        assert inserted.updated_at is not None
        late = inserted.updated_at + timedelta(microseconds=1)
        return self.restore([inserted.replace(updated_at=late)], "replace")[0]


class KeepsArgumentsOfUpdates(MemoryStore):
    def update(self, job: Job) -> Job:
        before = self.find(job)
        return super().update(job.replace(arguments=before.arguments) if before else job)


class RefusesUnknownIdsInUpdate(MemoryStore):
    def update(self, job: Job) -> Job:
        if job.id is not None and self.find(job) is None:
            raise JobExistsError("not here")
        return super().update(job)


class DestroysNothing(MemoryStore):
    def destroy(self, job_or_id: Job | int | None) -> None:
        pass


class FindsByAllFields(MemoryStore):
    def find(self, job_or_id: Job | int | None) -> Job | None:
        found = super().find(job_or_id)
        if isinstance(job_or_id, Job) and found != job_or_id:
            return None
        return found


class ReturnsWhatWasGiven(MemoryStore):
    def update(self, job: Job) -> Job:
        return job.replace(id=super().update(job).id)


class StoresNoBooleans(MemoryStore):
    def insert(self, job: Job, on_duplicate: OnDuplicate = "raise") -> Job:
        numbers = isinstance(job, Job) and job.replace(arguments=_numbers(job.arguments))
        return super().insert(numbers or job, on_duplicate)


class ForgivesWhatIsNoJob(MemoryStore):
    def insert(self, job: Job, on_duplicate: OnDuplicate = "raise") -> Job:
        return super().insert(job if isinstance(job, Job) else Job(), on_duplicate)


def _numbers(value: Any) -> Any:
    """True as 1: equal for Python, and something else."""
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    return int(value) if isinstance(value, bool) else value


BROKEN = [
    ListsBackwards,
    ListsInOrderOfUpdate,
    LosesTheLast,
    ListsTwice,
    ListsWithoutArguments,
    CountsCancelledForFailed,
    ForgetsStarted,
    TakesNoneForAll,
    OverwritesOnInsert,
    OverwritesAndRaises,
    ReusesIds,
    SkipsIds,
    KeepsUpdatedAt,
    KeepsCreatedAt,
    BelievesCreatedAtOfInserts,
    IsLate,
    KeepsArgumentsOfUpdates,
    RefusesUnknownIdsInUpdate,
    DestroysNothing,
    FindsByAllFields,
    ReturnsWhatWasGiven,
    StoresNoBooleans,
    ForgivesWhatIsNoJob,
]


@pytest.mark.parametrize("broken", BROKEN)
def test_a_store_that_does_otherwise_is_found_out(broken: type[MemoryStore]) -> None:
    found_in = []
    for name in trace_names():
        clock = ManualClock()
        try:
            replay(load_trace(name), broken(clock=clock), clock)
        except Mismatch:
            found_in.append(name)
    assert found_in


def _jobs(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict) and "worker" in value:
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _jobs(item)


def _results(trace: Trace) -> Iterator[tuple[int, dict[str, Any]]]:
    for step in trace["steps"]:
        for job in _jobs(step["result"]):
            yield step["i"], job


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", 9_999),
        ("worker", "somebody else"),
        ("arguments", "something else"),
        ("status", "cancelled"),
        ("created_at", "1999-01-01T00:00:00.000000"),
        ("updated_at", "1999-01-01T00:00:00.000000"),
    ],
)
def test_every_field_of_every_recorded_job_is_compared(field: str, value: object) -> None:
    trace = load_trace("golden-small")
    for number, job in _results(trace):
        recorded, job[field] = job[field], value
        clock = ManualClock()
        with pytest.raises(Mismatch) as caught:
            replay(trace, MemoryStore(clock=clock), clock)
        assert caught.value.step == number
        job[field] = recorded


def test_every_result_that_is_no_job_is_compared() -> None:
    recorded = load_trace("golden-small")
    numbers = [
        step["i"] for step in recorded["steps"] if step["op"] == "find" and step["result"] is None
    ]
    assert len(numbers) == 4
    for number in numbers[1:]:  # the first comes before any job
        trace = deepcopy(recorded)
        trace["steps"][number]["result"] = trace["steps"][5]["result"]
        clock = ManualClock()
        with pytest.raises(Mismatch) as caught:
            replay(trace, MemoryStore(clock=clock), clock)
        assert caught.value.step == number
