"""What becomes of a job, run in the process of the test, on either store."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Generator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import quelmdb
from quelmdb import Job, JobStore, MemoryStore, Progress, Status
from quelmdb.runner import (
    Counts,
    Discard,
    Retry,
    Worker,
    WorkerFunction,
    current,
    exponential,
    work,
    worker,
)

SOON = exponential(first=0.01, factor=1.0, jitter=0.0)
PATIENCE = 20.0


@pytest.fixture(params=["memory", "lmdb"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[JobStore]:
    made = (
        MemoryStore()
        if request.param == "memory"
        else quelmdb.open(tmp_path / "s", durability="ephemeral", capacity=16 * 2**20)
    )
    with made as store:
        yield store
        assert store.check() == []
        assert not len(store.jobs("started"))


def found(store: JobStore, job: Job) -> Job:
    stored = store.find(job)
    assert stored is not None
    return stored


def run_one(store: JobStore, target: Any, arguments: Any = None, **options: Any) -> Job:
    """What has become of a single job."""
    job: Job = target.add(store, arguments, **options)
    work(store, [target])
    return found(store, job)


def test_the_five_lines(store: JobStore) -> None:
    greeted = []

    class Welcome(Worker):
        def perform(self, arguments: dict[str, int]) -> str:
            greeted.append(arguments["user"])
            return "hello"

    job = run_one(store, Welcome, {"user": 7})
    assert greeted == [7]
    assert (job.status, job.result, job.attempt) == (Status.COMPLETED, "hello", 1)


def test_functions_coroutines_and_generators_are_workers(store: JobStore) -> None:
    @worker
    def plain(number: int) -> int:
        return number + 1

    @worker
    async def coroutine(number: int) -> int:
        await asyncio.sleep(0)
        return number + 2

    @worker
    def generator(number: int) -> Generator[None, None, int]:
        yield
        return number + 3

    targets: list[WorkerFunction[..., Any]] = [plain, coroutine, generator]
    jobs = [target.add(store, 10) for target in targets]
    assert work(store, targets) == Counts(completed=3)
    assert [found(store, job).result for job in jobs] == [11, 12, 13]


@pytest.mark.parametrize("is_async", [False, True])
def test_hooks_come_in_ques_order_and_change_nothing(
    store: JobStore, is_async: bool, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[Any] = []

    class Base(Worker):
        max_attempts = 1

        def on_setup(self, job: Job) -> None:
            calls.append(("setup", job.id))
            raise ValueError("of no consequence")

        def on_success(self, arguments: Any) -> None:
            calls.append(("success", arguments))
            raise SystemExit

        def on_failure(self, arguments: Any, error: BaseException) -> None:
            calls.append(("failure", arguments, type(error)))

        def on_teardown(self, job: Job) -> None:
            calls.append(("teardown", job.id))

    class Plain(Base):
        def perform(self, arguments: Any) -> None:
            calls.append("perform")
            if arguments == "bad":
                raise LookupError

    class Coroutine(Base):
        async def perform(self, arguments: Any) -> None:
            calls.append("perform")
            if arguments == "bad":
                raise LookupError

        async def on_success(self, arguments: Any) -> None:  # type: ignore[override]
            calls.append(("success", arguments))

    target = Coroutine if is_async else Plain
    good = run_one(store, target, "good")
    assert calls == [("setup", good.id), "perform", ("success", "good"), ("teardown", good.id)]
    assert good.status is Status.COMPLETED
    assert "on_setup raised" in caplog.text
    calls.clear()
    bad = run_one(store, target, "bad")
    assert calls == [
        ("setup", bad.id),
        "perform",
        ("failure", "bad", LookupError),
        ("teardown", bad.id),
    ]
    assert bad.status is Status.FAILED


@pytest.mark.parametrize(
    "raised", [ValueError("of mine"), SystemExit("of mine"), KeyboardInterrupt("of mine")]
)
def test_whatever_is_raised_fails_the_job_alone(store: JobStore, raised: BaseException) -> None:
    @worker(max_attempts=1)
    def perform(arguments: Any) -> None:
        if arguments == "bad":
            raise raised

    @worker(max_attempts=1)
    async def coroutine(arguments: Any) -> None:
        if arguments == "bad" and isinstance(raised, Exception):
            raise raised

    jobs = [perform.add(store, what) for what in ("good", "bad", "good")]
    others = [coroutine.add(store, what) for what in ("good", "good")]
    work(store, [perform, coroutine])
    assert [found(store, job).status for job in jobs] == ["completed", "failed", "completed"]
    assert all(found(store, job).status == "completed" for job in others)
    error = found(store, jobs[1]).error or ""
    assert "of mine" in error
    assert "Traceback" in error


def test_a_failed_attempt_is_followed_by_others_up_to_the_workers_limit(store: JobStore) -> None:
    attempts = []

    @worker(max_attempts=3, backoff=SOON)
    def perform(arguments: Any) -> None:
        attempts.append(current().job.attempt)
        raise ValueError

    job = run_one(store, perform)
    assert attempts == [1, 2, 3]
    assert (job.status, job.attempt, len(job.failures)) == (Status.FAILED, 3, 3)


def test_a_jobs_own_limit_wins_over_the_workers(store: JobStore) -> None:
    @worker(max_attempts=1, backoff=SOON)
    def perform(arguments: Any) -> None:
        raise ValueError

    assert run_one(store, perform, max_attempts=2).attempt == 2
    assert run_one(store, perform).attempt == 1


def test_the_backoff_is_given_the_attempt_and_says_when(store: JobStore) -> None:
    asked = []

    def backoff(attempt: int) -> float:
        asked.append(attempt)
        return 0.01

    @worker(max_attempts=3, backoff=backoff)
    def perform(arguments: Any) -> None:
        raise ValueError

    run_one(store, perform)
    assert asked == [1, 2]


def test_retry_asks_for_another_time(store: JobStore) -> None:
    @worker(backoff=exponential(first=1000.0))
    def perform(arguments: Any) -> str:
        if current().job.attempt == 1:
            raise Retry(0.01, "not ready")
        return "done"

    job = run_one(store, perform)
    assert (job.status, job.result, job.attempt) == (Status.COMPLETED, "done", 2)
    assert "not ready" in job.failures[0].error


@pytest.mark.parametrize("is_async", [False, True])
def test_discard_fails_a_job_for_good_with_the_reason_alone(
    store: JobStore, is_async: bool
) -> None:
    told = []

    class Base(Worker):
        def on_failure(self, arguments: Any, error: BaseException) -> None:
            told.append(error)

    class Plain(Base):
        def perform(self, arguments: Any) -> None:
            raise Discard("no such file")

    class Coroutine(Base):
        async def perform(self, arguments: Any) -> None:
            raise Discard("no such file")

    job = run_one(store, Coroutine if is_async else Plain, max_attempts=9)
    assert (job.status, job.attempt, job.error) == (Status.FAILED, 1, "no such file")
    assert [type(error) for error in told] == [Discard]


@pytest.mark.parametrize("is_async", [False, True])
def test_a_result_that_cannot_be_stored_fails_its_job_and_no_other(
    store: JobStore, is_async: bool
) -> None:
    @worker
    def plain(arguments: Any) -> Any:
        return object() if arguments == "bad" else arguments

    @worker
    async def coroutine(arguments: Any) -> Any:
        return object() if arguments == "bad" else arguments

    target = coroutine if is_async else plain
    jobs = [target.add(store, what) for what in ("a", "bad", "c")]
    assert work(store, [target]) == Counts(completed=2, failed=1)
    assert [found(store, job).result for job in jobs] == ["a", None, "c"]
    bad = found(store, jobs[1])
    assert (bad.status, bad.attempt) == (Status.FAILED, 1)
    assert (bad.error or "").startswith("its result cannot be stored: EncodeError: ")


def test_who_has_lost_his_claim_does_not_hurt_the_others(
    store: JobStore, caplog: pytest.LogCaptureFixture
) -> None:
    @worker
    def perform(arguments: Any) -> None:
        if arguments == "gone":
            store.destroy(current().job)
        elif arguments == "stolen":
            job = current().job
            store.release(job)

    jobs = [perform.add(store, what) for what in ("a", "gone", "c")]
    counts = work(store, [perform])
    assert (counts.completed, counts.lost) == (2, 1)
    assert f"job {jobs[1].id} is left as it is" in caplog.text


def test_many_jobs_are_all_done_once(store: JobStore) -> None:
    done: list[int] = []
    count = 3000 if isinstance(store, quelmdb.Store) else 300

    @worker
    def perform(number: int) -> None:
        done.append(number)

    @worker
    async def coroutine(number: int) -> None:
        done.append(number)

    half = count // 2
    store.insert_many(perform.job(n) for n in range(half))
    store.insert_many(coroutine.job(n) for n in range(half, count))
    assert work(store, [perform, coroutine], threads=4) == Counts(completed=count)
    assert sorted(done) == list(range(count))


def test_several_threads_run_several_jobs_at_once(store: JobStore) -> None:
    together = threading.Barrier(3, timeout=PATIENCE)

    @worker
    def perform(arguments: Any) -> None:
        together.wait()

    store.insert_many(perform.job() for _ in range(6))
    assert work(store, [perform], threads=3) == Counts(completed=6)


def test_many_coroutines_run_at_once(store: JobStore) -> None:
    begun = 0
    all_begun = asyncio.Event()

    @worker
    async def perform(arguments: Any) -> None:
        nonlocal begun
        begun += 1
        if begun == 200:
            all_begun.set()
        await asyncio.wait_for(all_begun.wait(), PATIENCE)

    store.insert_many(perform.job() for _ in range(200))
    assert work(store, [perform]) == Counts(completed=200)


class _Meter:
    """How many are inside at once, at most."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self.most = 0

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            self.most = max(self.most, self._inside)

    def __exit__(self, *reason: object) -> None:
        with self._lock:
            self._inside -= 1


def test_no_more_than_a_workers_concurrency_run_at_once(store: JobStore) -> None:
    single, pair, any_number, coroutines = _Meter(), _Meter(), _Meter(), _Meter()
    pause = threading.Event()

    def made(meter: _Meter, **options: Any) -> WorkerFunction[..., Any]:
        @worker(name=str(id(meter)), **options)
        def perform(arguments: Any) -> None:
            with meter:
                pause.wait(0.002)

        return perform

    @worker(concurrency=3)
    async def coroutine(arguments: Any) -> None:
        with coroutines:
            await asyncio.sleep(0.002)

    targets = [made(single, concurrency=1), made(pair, concurrency=2), made(any_number), coroutine]
    store.insert_many(target.job() for _ in range(25) for target in targets)
    assert work(store, targets, threads=6) == Counts(completed=100)
    assert single.most == 1
    assert pair.most <= 2
    assert 2 <= any_number.most <= 6
    assert coroutines.most == 3


def test_a_limited_worker_does_not_hold_up_the_others(store: JobStore) -> None:
    others_done = threading.Event()
    count = 0

    @worker(concurrency=1)
    def slow(arguments: Any) -> bool:
        return others_done.wait(PATIENCE)

    @worker
    def quick(arguments: Any) -> None:
        nonlocal count
        count += 1
        if count == 20:
            others_done.set()

    slows = [slow.add(store) for _ in range(3)]
    store.insert_many(quick.job() for _ in range(20))
    work(store, [slow, quick], threads=2)
    assert [found(store, job).result for job in slows] == [True] * 3


def test_what_was_claimed_ahead_goes_back_when_a_job_takes_long(store: JobStore) -> None:
    begun = threading.Event()

    @worker
    def perform(arguments: Any) -> Any:
        if arguments == "slow":
            begun.set()
            waiting = len(store.jobs("queued", worker=perform))
            for _ in range(400):
                if waiting := len(store.jobs("queued", worker=perform)):
                    break
                threading.Event().wait(0.005)
            return waiting
        return None

    # Short ones first, so that it claims ahead.
    store.insert_many(perform.job() for _ in range(40))
    slow = perform.add(store, "slow")
    store.insert_many(perform.job() for _ in range(40))
    assert work(store, [perform]) == Counts(completed=81)
    assert found(store, slow).result > 0
    assert {job.attempt for job in store.completed(perform)} == {1}


@pytest.mark.parametrize(("max_attempts", "is_ahead"), [(1, False), (2, True)])
def test_jobs_with_a_single_attempt_are_not_claimed_ahead(
    store: JobStore, max_attempts: int, is_ahead: bool
) -> None:
    most_started = 0

    @worker(max_attempts=max_attempts)
    def perform(arguments: Any) -> None:
        nonlocal most_started
        most_started = max(most_started, store.counts(perform)[Status.STARTED])

    store.insert_many(perform.job() for _ in range(40))
    assert work(store, [perform]) == Counts(completed=40)
    assert (most_started > 1) == is_ahead


def test_a_coroutine_that_takes_too_long_is_cancelled(store: JobStore) -> None:
    ended = []

    @worker(timeout=0.05, max_attempts=2, backoff=SOON)
    async def perform(arguments: Any) -> None:
        try:
            await asyncio.sleep(PATIENCE)
        finally:
            ended.append(current().job.attempt)

    job = run_one(store, perform)
    assert (job.status, ended) == (Status.FAILED, [1, 2])
    assert "timed out: it took longer than 0.05 s" in (job.error or "")


def test_a_timeout_error_of_the_coroutine_itself_is_its_own(store: JobStore) -> None:
    @worker(timeout=PATIENCE, max_attempts=1)
    async def perform(arguments: Any) -> None:
        raise TimeoutError("mine")

    assert "mine" in (run_one(store, perform).error or "")


def test_a_generator_that_takes_too_long_ends_at_its_next_yield(store: JobStore) -> None:
    closed = []

    @worker(timeout=0.05, max_attempts=1)
    def perform(arguments: Any) -> Generator[None, None, None]:
        try:
            while True:
                threading.Event().wait(0.01)
                yield
        finally:
            closed.append(True)

    job = run_one(store, perform)
    assert (job.status, closed) == (Status.FAILED, [True])
    assert "timed out" in (job.error or "")


def test_a_thread_that_takes_too_long_fails_its_job_when_the_others_have_ended(
    store: JobStore,
) -> None:
    release, ended = threading.Event(), threading.Event()

    @worker(timeout=0.05, max_attempts=1)
    def stuck(arguments: Any) -> None:
        release.wait(PATIENCE)
        ended.set()

    @worker
    def other(arguments: Any) -> str:
        threading.Event().wait(0.2)
        return "done"

    jobs = [stuck.add(store), other.add(store)]
    late = stuck.add(store, run_at=datetime.now(UTC) + timedelta(hours=1))
    try:
        assert work(store, [stuck, other], threads=2) == Counts(completed=1, failed=1)
        assert [found(store, job).status for job in jobs] == ["failed", "completed"]
        assert "timed out" in (found(store, jobs[0]).error or "")
        assert found(store, late).status is Status.SCHEDULED
    finally:
        release.set()
        ended.wait(PATIENCE)


def test_a_coroutine_that_blocks_its_loop_fails_and_the_others_are_released(
    store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GRACE_SECONDS", "LOOP_SECONDS"):
        monkeypatch.setattr(f"quelmdb.runner.process.{name}", 0.1)
    release, is_cancelled, all_begun = threading.Event(), threading.Event(), asyncio.Event()

    @worker
    async def other(arguments: Any) -> None:
        all_begun.set()
        try:
            await asyncio.sleep(PATIENCE)
        finally:
            is_cancelled.set()

    @worker(timeout=0.1, max_attempts=1)
    async def blocks(arguments: Any) -> None:
        await all_begun.wait()
        release.wait(PATIENCE)

    jobs = [blocks.add(store), other.add(store)]
    try:
        assert work(store, [blocks, other]) == Counts(failed=1)
        failed, released = (found(store, job) for job in jobs)
        assert failed.status is Status.FAILED
        assert "timed out: it took longer than 0.1 s" in (failed.error or "")
        assert (released.status, released.attempt) == (Status.QUEUED, 0)
    finally:
        release.set()
    assert is_cancelled.wait(PATIENCE)  # its loop ends, as soon as it can
    assert [found(store, job).status for job in jobs] == [Status.FAILED, Status.QUEUED]


def test_a_running_job_sees_that_its_cancellation_was_asked_for(store: JobStore) -> None:
    class Stopped(Exception):
        pass

    @worker
    def plain(arguments: Any) -> None:
        assert not current().cancel_requested()
        store.cancel(current().job)
        if current().cancel_requested():
            raise Stopped

    @worker(max_attempts=1)
    def last_attempt(arguments: Any) -> None:
        store.cancel(current().job)
        raise Stopped

    @worker
    def generator(arguments: Any) -> Generator[None, None, None]:
        yield
        store.cancel(current().job)
        yield
        raise AssertionError

    @worker
    def heedless(arguments: Any) -> str:
        store.cancel(current().job)
        return "done"

    statuses = [run_one(store, one).status for one in (plain, last_attempt, generator, heedless)]
    assert statuses == ["cancelled", "cancelled", "cancelled", "completed"]


def test_progress_is_stored_while_the_job_runs(store: JobStore) -> None:
    seen = []

    @worker
    def plain(arguments: Any) -> None:
        current().progress(1, 2, "half")
        seen.append(found(store, current().job).progress)

    @worker
    def generator(arguments: Any) -> Generator[Progress, None, None]:
        yield Progress(3, 4)
        seen.append(found(store, current().job).progress)

    @worker
    async def coroutine(arguments: Any) -> None:
        current().progress(5)

    for one in (plain, generator):
        run_one(store, one)
    assert run_one(store, coroutine).progress == Progress(5)
    assert seen == [Progress(1, 2, "half"), Progress(3, 4)]


def test_current_is_for_workers() -> None:
    with pytest.raises(LookupError, match="no job is run here"):
        current()


def test_follow_ups_are_done_before_it_ends(store: JobStore) -> None:
    @worker
    def second(number: int) -> int:
        return number

    @worker
    async def first(number: int) -> None:
        second.add(current().store, number + 1, run_at=datetime.now(UTC) + timedelta(seconds=0.1))

    first.add(store, 1)
    assert work(store, [first, second]) == Counts(completed=2)
    assert [job.result for job in store.completed(second)] == [2]


def test_jobs_of_paused_workers_and_of_others_are_left(store: JobStore) -> None:
    @worker
    def perform(arguments: Any) -> None: ...

    @worker
    def paused(arguments: Any) -> None: ...

    perform.add(store)
    left = [paused.add(store), store.insert(Job("of somebody else"))]
    store.pause(paused)
    assert work(store, [perform, paused]) == Counts(completed=1)
    assert all(found(store, job).status is Status.QUEUED for job in left)


def test_who_has_died_too_often_is_failed_without_being_run(store: JobStore) -> None:
    ran = []

    @worker(max_attempts=None)
    def perform(arguments: Any) -> None:
        ran.append(arguments)

    def died(times: int) -> Job:
        now = datetime.now(UTC)
        failures = [(n, now, now, "its process died", True) for n in range(1, times + 1)]
        return perform.job(times).replace(failures=failures, attempt=times)

    jobs = [died(times).replace(id=times + 1) for times in range(5)]
    store.restore(jobs)
    assert work(store, [perform]) == Counts(completed=3, failed=2)
    assert sorted(ran) == [0, 1, 2]
    failed = found(store, jobs[3])
    assert (failed.error or "").startswith(
        "not run again: 3 processes died while they held it (attempts 1, 2, 3)"
    )
    store.retry(failed)  # whoever asks for it knows better
    assert work(store, [perform]) == Counts(completed=1)


def test_the_last_attempt_of_a_worker_is_not_repeated_for_a_death(store: JobStore) -> None:
    @worker(max_attempts=1)
    def perform(arguments: Any) -> None: ...

    now = datetime.now(UTC)
    job = perform.job().replace(id=1, attempt=1, failures=[(1, now, now, "died", True)])
    store.restore([job])
    assert work(store, [perform]) == Counts(failed=1)


def test_each_job_is_a_line_at_debug(store: JobStore, caplog: pytest.LogCaptureFixture) -> None:
    @worker(name="w", max_attempts=1)
    def perform(arguments: Any) -> float:
        return 1 / int(arguments)

    with caplog.at_level(logging.DEBUG, "quelmdb.runner"):
        jobs = [perform.add(store, number) for number in (1, 0)]
        work(store, [perform])
    assert f"job {jobs[0].id} of w completed in 0.0" in caplog.text
    assert f"job {jobs[1].id} of w failed in 0.0" in caplog.text
    assert "(attempt 1): ZeroDivisionError('division by zero')" in caplog.text


@pytest.mark.parametrize("result", [None, "result"])
def test_a_store_that_refuses_for_a_while_loses_nothing(
    store: JobStore, monkeypatch: pytest.MonkeyPatch, result: str | None
) -> None:
    refusals = 6  # with results each attempt to write is three

    def refusing(real: Callable[..., Any]) -> Callable[..., Any]:
        def method(*arguments: Any) -> Any:
            nonlocal refusals
            if refusals:
                refusals -= 1
                raise quelmdb.StoreFullError("full")
            return real(*arguments)

        return method

    for name in ("complete_many", "batch"):
        monkeypatch.setattr(store, name, refusing(getattr(store, name)))
    for module in ("finishing", "dispatch"):
        monkeypatch.setattr(f"quelmdb.runner.{module}.REFUSED_SECONDS", 0.05)

    @worker
    def perform(arguments: Any) -> str | None:
        return result

    store.insert_many(perform.job() for _ in range(10))
    assert work(store, [perform]) == Counts(completed=10)
    assert {(job.attempt, job.result) for job in store.completed(perform)} == {(1, result)}


def test_after_a_crash_jobs_are_not_claimed_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @worker
    def perform(arguments: Any) -> None: ...

    @worker
    def held(arguments: Any) -> None: ...

    def opened() -> quelmdb.Store:
        return quelmdb.open(tmp_path / "s", durability="ephemeral", capacity=16 * 2**20)

    with opened() as store:
        store.insert_many((perform if n % 8 else held).job() for n in range(2000))
        assert len(store.claim(held, limit=2000)) == 250
    with opened() as store:
        claimed: list[int] = []
        real: Callable[..., list[Job]] = store.claim

        def claim(*names: str, **options: Any) -> list[Job]:
            jobs = real(*names, **options)
            claimed.append(len(jobs))
            return jobs

        monkeypatch.setattr(store, "claim", claim)
        assert work(store, [perform, held]) == Counts(completed=2000)
        assert sum(claimed) < 2.5 * 2000
        assert len(claimed) < 1.5 * 2000


def deaths_of(job: Job, *attempts: int, then: int = 0) -> Job:
    """The same, whose process died in these attempts, before others that failed."""
    now = datetime.now(UTC)
    last = max(*attempts, then)
    failures = [(n, now, now, "x", n in attempts) for n in (*attempts, then) if n]
    return job.replace(id=1, attempt=last, failures=failures)


def test_a_suspect_waits_for_a_long_job_but_not_for_long(store: JobStore) -> None:
    ran = threading.Event()

    @worker
    def suspect(arguments: Any) -> None:
        ran.set()

    @worker
    def long(arguments: Any) -> bool:
        store.restore([deaths_of(suspect.job(), 1).replace(id=99)])
        return ran.wait(PATIENCE)

    job = long.add(store)
    assert work(store, [suspect, long], threads=2) == Counts(completed=2)
    assert found(store, job).result is True


@pytest.mark.parametrize(
    ("own", "deaths", "then"),
    [(None, (1,), 3), (None, (1, 2), 3), (2, (1, 2), 0), (3, (1, 2, 3), 0), (3, (1, 2), 3)],
)
def test_what_an_operator_retries_is_run(
    store: JobStore, own: int | None, deaths: tuple[int, ...], then: int
) -> None:
    @worker(max_attempts=3)
    def perform(arguments: Any) -> None: ...

    job = deaths_of(perform.job(max_attempts=own), *deaths, then=then)
    store.restore([job.replace(status="failed", error="x")])
    store.retry(1)
    assert work(store, [perform]) == Counts(completed=1)


def test_a_result_without_room_fails_its_job_and_no_other(tmp_path: Path) -> None:
    @worker
    def perform(size: int) -> bytes:
        return b"x" * size

    with quelmdb.open(tmp_path / "s", durability="ephemeral", capacity=4 * 2**20) as store:
        jobs = [perform.add(store, size) for size in (10, 8 * 2**20, 20)]
        assert work(store, [perform]) == Counts(completed=2, failed=1)
        error = found(store, jobs[1]).error or ""
        assert error.startswith("its result cannot be stored: StoreFullError: ")
        assert [len(job.result) for job in store.completed(perform)] == [10, 20]


def test_jobs_in_their_own_last_attempt_are_not_claimed_ahead(store: JobStore) -> None:
    most_started = 0

    @worker
    def perform(arguments: Any) -> None:
        nonlocal most_started
        if arguments == "own":
            most_started = max(most_started, store.counts(perform)[Status.STARTED])

    store.insert_many(perform.job() for _ in range(40))
    store.insert_many(perform.job("own", max_attempts=1) for _ in range(40))
    assert work(store, [perform]) == Counts(completed=80)
    assert {job.attempt for job in store.completed(perform)} == {1}
    assert most_started == 1


class Mute(Discard):
    def __str__(self) -> str:
        raise SystemExit

    __repr__ = __str__


class Unpacking(dict[str, int]):
    def items(self) -> Any:
        raise SystemExit


def test_neither_errors_nor_results_that_raise_end_the_process(
    store: JobStore, caplog: pytest.LogCaptureFixture
) -> None:
    class Wordless(Exception):
        __str__ = __repr__ = Mute.__str__

    @worker(max_attempts=1)
    def perform(arguments: str) -> Any:
        if arguments == "result":
            return Unpacking(a=1)
        raise Mute if arguments == "discard" else Wordless

    jobs = [perform.add(store, what) for what in ("discard", "error", "result")]
    with caplog.at_level(logging.DEBUG, "quelmdb.runner"):
        counts = work(store, [perform])
    assert counts == Counts(failed=3)
    assert found(store, jobs[0]).error == "Mute (it has no text)"
    assert "Wordless" in (found(store, jobs[1]).error or "")


def test_a_job_may_complete_itself_together_with_its_follow_ups(
    store: JobStore, caplog: pytest.LogCaptureFixture
) -> None:
    @worker
    def second(arguments: Any) -> None: ...

    @worker
    def first(arguments: Any) -> None:
        with store.batch() as batch:
            batch.complete(current().job, "done")
            batch.insert(second.job())

    job = first.add(store)
    assert work(store, [first, second]) == Counts(completed=2)
    assert found(store, job).result == "done"
    assert not caplog.records
