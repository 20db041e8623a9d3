"""Random operations on the LMDB store and on MemoryStore, which must agree on everything."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import initialize, precondition, rule, run_state_machine_as_test

from quelmdb import Job, JobStore, Status
from tests import strategies as some
from tests.twostores import TwoStores

SHORT = settings(
    max_examples=40,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
LONG = settings(SHORT, max_examples=3000, stateful_step_count=120)


class StoreAndModel(TwoStores):
    """Every verb, with anything that can be handed in."""

    # --- Writing ---

    @initialize(jobs=st.lists(some.queued_job, max_size=20))
    def begin(self, jobs: list[Job]) -> None:
        self.both(lambda store: store.insert_many(jobs))

    @rule(job=some.any_job, way=some.on_duplicate)
    def insert(self, job: Job, way: Any) -> None:
        self.both(lambda store: store.insert(job, on_duplicate=way))

    @rule(jobs=st.lists(some.any_job, max_size=5), way=some.on_duplicate)
    def insert_many(self, jobs: list[Job], way: Any) -> None:
        self.both(lambda store: store.insert_many(jobs, on_duplicate=way))

    @rule(job=some.any_job)
    def update(self, job: Job) -> None:
        self.both(lambda store: store.update(job))

    @rule(
        data=st.data(),
        changes=st.fixed_dictionaries(
            {},
            optional={
                "status": some.status,
                "worker": some.worker,
                "progress": some.progress,
                "failures": some.failures,
                "result": some.value,
                "error": some.text,
                **some.options,
            },
        ),
    )
    def update_what_is_stored(self, data: st.DataObject, changes: dict[str, Any]) -> None:
        stored = data.draw(st.sampled_from([Job(), *self.model.all()]))
        job = stored.replace(**changes)
        self.both(lambda store: store.update(job))

    @rule(jobs=st.lists(some.any_job, max_size=5))
    def update_many(self, jobs: list[Job]) -> None:
        self.both(lambda store: store.update_many(jobs))

    @rule(what=st.one_of(some.maybe_id, some.job))
    def destroy(self, what: Job | int | None) -> None:
        self.both(lambda store: store.destroy(what))

    @rule(what=st.lists(st.one_of(some.maybe_id, some.job), max_size=5))
    def destroy_many(self, what: list[Job | int | None]) -> None:
        self.both(lambda store: store.destroy_many(what))

    @rule(jobs=st.lists(some.job, max_size=5), way=st.sampled_from(["error", "skip", "replace"]))
    def restore(self, jobs: list[Job], way: Any) -> None:
        self.both(lambda store: store.restore(jobs, on_conflict=way))

    # --- Runners ---

    @rule(workers=st.lists(some.worker, max_size=3), limit=st.integers(0, 4))
    def claim(self, workers: list[str | None], limit: int) -> None:
        self.claimed += self.both(lambda store: store.claim(*workers, limit=limit)) or []

    @precondition(lambda self: self.claimed)
    @rule(data=st.data(), result=some.value)
    def complete(self, data: st.DataObject, result: Any) -> None:
        job = self.a_claimed_job(data)
        self.both(lambda store: store.complete(job, result))

    @precondition(lambda self: self.claimed)
    @rule(data=st.data(), error=st.one_of(some.text, st.just("\ud800")), retry_at=some.run_at)
    def fail(self, data: st.DataObject, error: Any, retry_at: datetime | None) -> None:
        job = self.a_claimed_job(data)
        self.both(lambda store: store.fail(job, error, retry_at))

    @precondition(lambda self: self.claimed)
    @rule(data=st.data())
    def fail_with_an_exception(self, data: st.DataObject) -> None:
        job, error = self.a_claimed_job(data), ValueError("it broke")
        self.both(lambda store: store.fail(job, error, retry_at=self.clock.time))

    @precondition(lambda self: self.claimed)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        job = self.a_claimed_job(data)
        self.both(lambda store: store.release(job))

    @precondition(lambda self: self.claimed)
    @rule(data=st.data(), count=st.integers(0, 3))
    def complete_many(self, data: st.DataObject, count: int) -> None:
        jobs = [self.a_claimed_job(data) for _ in range(count)]
        self.both(lambda store: store.complete_many(jobs))

    @precondition(lambda self: self.claimed)
    @rule(data=st.data(), count=st.integers(0, 3), results=st.lists(some.value, max_size=3))
    def complete_many_with_results(
        self, data: st.DataObject, count: int, results: list[Any]
    ) -> None:
        jobs = [self.a_claimed_job(data) for _ in range(count)]
        self.both(lambda store: store.complete_many(iter(jobs), iter(results)))

    @precondition(lambda self: self.claimed)
    @rule(
        data=st.data(),
        done=some.number,
        total=st.none() | some.number,
        note=st.sampled_from([None, "ö" * 150, "n"]),
    )
    def progress(self, data: st.DataObject, done: int, total: int | None, note: str | None) -> None:
        job = self.a_claimed_job(data)
        self.both(lambda store: store.progress(job, done, total, note))

    @precondition(lambda self: self.claimed)
    @rule(data=st.data())
    def cancel_requested(self, data: st.DataObject) -> None:
        job = self.a_claimed_job(data)
        self.both(lambda store: store.cancel_requested(job))

    @rule(data=st.data(), verb=st.sampled_from(["cancel", "retry"]))
    def cancel_or_retry(self, data: st.DataObject, verb: str) -> None:
        job = self.a_stored_job(data)
        self.both(lambda store: getattr(store, verb)(job))

    @rule(
        data=st.data(),
        verb=st.sampled_from(["cancel_many", "retry_many"]),
        count=st.integers(0, 5),
    )
    def cancel_or_retry_many(self, data: st.DataObject, verb: str, count: int) -> None:
        jobs = [self.a_stored_job(data) for _ in range(count)]
        self.both(lambda store: getattr(store, verb)(jobs))

    @rule(worker=some.worker, verb=st.sampled_from(["pause", "resume", "resume"]))
    def pause_or_resume(self, worker: Any, verb: str) -> None:
        self.both(lambda store: getattr(store, verb)(worker))

    @rule(
        statuses=st.lists(
            st.sampled_from([Status.COMPLETED, Status.FAILED, Status.CANCELLED]), max_size=2
        ),
        worker=some.worker_filter,
        days=st.none() | st.integers(0, 20),
        keep=st.none() | st.integers(0, 3),
    )
    def prune(
        self, statuses: list[Status], worker: Any, days: int | None, keep: int | None
    ) -> None:
        age = None if days is None else timedelta(days=days)
        self.both(lambda store: store.prune(*statuses, worker=worker, older_than=age, keep=keep))

    @rule(workers=st.lists(some.worker, max_size=3))
    def wait(self, workers: list[Any]) -> None:
        """What is due is seen by all who wait, whose worker's it is."""
        due = self.model.next_due()
        expected = self.model.wait(*workers, timeout=0)
        if expected or due is None or due > self.clock.time:
            assert self.store.wait(*workers, timeout=0) == expected

    @rule(job=some.job, verb=st.sampled_from(["complete", "release"]))
    def end_a_job_that_was_made_up(self, job: Job, verb: str) -> None:
        self.both(lambda store: getattr(store, verb)(job))

    @rule(data=st.data(), jobs=st.lists(some.any_job, min_size=1, max_size=3))
    def batch(self, data: st.DataObject, jobs: list[Job]) -> None:
        calls: list[tuple[Any, ...]] = [
            ("insert", jobs[0]),
            ("insert_many", jobs),
            ("update", jobs[-1]),
            ("update_many", jobs),
            ("destroy", jobs[0]),
            ("destroy_many", jobs),
            ("cancel", self.a_stored_job(data)),
            ("retry_many", [self.a_stored_job(data)]),
            ("pause", "a"),
            ("resume", "a"),
        ]
        if self.claimed:
            job = self.a_claimed_job(data)
            calls += [
                ("complete", job, {"n": 1}),
                ("complete_many", [job]),
                ("fail", job, "oh"),
                ("fail", job, "oh", self.clock.time),
                ("release", job),
                ("progress", job, 1),
            ]
        chosen = data.draw(st.lists(st.sampled_from(calls), max_size=4))

        def apply(store: JobStore) -> list[Any]:
            with store.batch() as batch:
                for name, *arguments in chosen:
                    getattr(batch, name)(*arguments)
            return batch.results

        self.both(apply)

    # --- Reading ---

    @rule(what=st.one_of(some.maybe_id, some.job, some.no_id))
    def find(self, what: Any) -> None:
        self.both(lambda store: store.find(what))

    @rule(statuses=st.lists(some.status, max_size=4), worker=some.worker_filter, page=some.page)
    def view(self, statuses: list[Status], worker: Any, page: Any) -> None:
        self.both(lambda store: list(store.jobs(*statuses, worker=worker, **page)))
        self.both(lambda store: list(store.jobs(*statuses, worker=worker, **page).ids()))
        self.both(lambda store: len(store.jobs(*statuses, worker=worker, **page)))

    # --- Bad input ---

    @rule(job=some.bad_job, good=some.any_job)
    def refuse_a_job(self, job: Any, good: Job) -> None:
        self.both(lambda store: store.insert(job))
        self.both(lambda store: store.update(job))
        self.both(lambda store: store.insert_many([good, job]))
        self.both(lambda store: store.update_many([good, job]))
        self.both(lambda store: store.restore([good.replace(id=50), job], "replace"))

    @rule(what=some.no_id, worker=some.no_worker)
    def refuse_an_id_and_a_worker(self, what: Any, worker: Any) -> None:
        self.both(lambda store: store.destroy(what))
        self.both(lambda store: store.destroy_many([1, what]))
        self.both(lambda store: list(store.all(worker)))
        self.both(lambda store: store.counts(worker))
        self.both(lambda store: store.claim("a", worker))
        self.both(lambda store: store.wait(worker, timeout=0))
        self.both(lambda store: store.pause(worker))
        self.both(lambda store: store.prune(worker=worker))
        self.both(lambda store: store.cancel(what))
        self.both(lambda store: store.retry_many([1, what]))

    @rule(bad=st.sampled_from([-1, 1.0, "1", True]))
    def refuse_a_page(self, bad: Any) -> None:
        self.both(lambda store: list(store.all(after=bad)))
        self.both(lambda store: list(store.all(limit=bad)))
        self.both(lambda store: store.claim("a", limit=bad))
        self.both(lambda store: store.prune(keep=bad))
        self.both(lambda store: store.prune("completed", "queued"))
        self.both(lambda store: list(store.jobs("queued", str(bad))))

    @precondition(lambda self: self.claimed)
    @rule(data=st.data(), value=some.uncarriable)
    def refuse_a_result(self, data: st.DataObject, value: Any) -> None:
        job = self.a_claimed_job(data)
        self.both(lambda store: store.complete(job, value))


@pytest.mark.timeout(0)
def test_store_and_model_agree(request: pytest.FixtureRequest) -> None:
    long = request.config.getoption("--long")
    run_state_machine_as_test(StoreAndModel, settings=LONG if long else SHORT)
