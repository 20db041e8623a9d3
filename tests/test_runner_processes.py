"""Processes that run jobs: they are replaced when they die, and stop in order."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import quelmdb
from quelmdb import Job, Status
from tests.jobs_for_runner import (
    Endless,
    Exiting,
    Gated,
    Killer,
    KillerOnce,
    Noop,
    again,
    slow_answer,
)
from tests.runners import ROOT, Pipes, Runner, eventually, is_alive

pytest_plugins = ["tests.fixtures"]

JOBS = "tests.jobs_for_runner"


@pytest.fixture
def pipes(tmp_path: Path) -> Iterator[Pipes]:
    made = Pipes(tmp_path)
    yield made
    made.close()


@pytest.fixture
def store(path: Path) -> Iterator[quelmdb.Store]:
    with quelmdb.open(path, durability="ephemeral", capacity=16 * 2**20) as store:
        yield store


def found(store: quelmdb.Store, job: Job) -> Job:
    stored = store.find(job)
    assert stored is not None
    return stored


def test_processes_and_threads_drain_a_store(store: quelmdb.Store) -> None:
    store.insert_many(Noop.job(n) for n in range(3000))
    job = again.add(store, {})
    with Runner(
        Path(store.path), JOBS, processes=2, threads=2, until_empty=True, log_level="INFO"
    ) as runner:
        code, log = runner.end()
    assert code == 0, log
    assert store.counts() == {**dict.fromkeys(Status, 0), Status.COMPLETED: 3001}
    assert found(store, job).result == "third"
    assert "3,003 jobs in" in log
    assert "2 retried" in log


def test_a_job_that_kills_its_process_three_times_fails_and_costs_no_other_job_an_attempt(
    store: quelmdb.Store,
) -> None:
    before = store.insert_many(Noop.job() for _ in range(30))
    killers = [Killer.add(store), Exiting.add(store)]
    after = store.insert_many(Noop.job() for _ in range(30))
    with Runner(Path(store.path), JOBS, until_empty=True) as runner:
        code, log = runner.end()
    assert code == 0, log
    for killer in killers:
        job = found(store, killer)
        assert (job.status, job.attempt) == (Status.FAILED, 4)
        assert "not run again: 3 processes died while they held it" in (job.error or "")
        assert [failure.died for failure in job.failures] == [True, True, True, False]
    assert log.count("died (Killed)") == 3
    assert log.count("died (exit code 7)") == 3
    neighbours = [found(store, job) for job in [*before, *after]]
    assert {job.status for job in neighbours} == {Status.COMPLETED}
    assert max(job.attempt for job in neighbours) <= 2


def test_a_job_that_ends_its_process_as_if_in_order_is_noticed(store: quelmdb.Store) -> None:
    jobs = [Exiting.add(store, code) for code in (0, 75)]
    with Runner(Path(store.path), JOBS, until_empty=True) as runner:
        code, log = runner.end()
    assert code == 0, log
    assert [found(store, job).status for job in jobs] == [Status.FAILED] * 2
    assert log.count("died (exit code 0)") == 3
    assert log.count("died (exit code 75)") == 3


def test_with_one_attempt_a_death_is_the_end(store: quelmdb.Store) -> None:
    job = KillerOnce.add(store)
    with Runner(Path(store.path), JOBS, until_empty=True) as runner:
        assert runner.end()[0] == 0
    assert found(store, job).status is Status.FAILED
    assert found(store, job).attempt == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_running_jobs_end_and_releases_the_others(
    store: quelmdb.Store, pipes: Pipes, number: signal.Signals
) -> None:
    jobs = [Gated.add(store, pipes.arguments) for _ in range(4)]
    with Runner(Path(store.path), JOBS, threads=2) as runner:
        begun = {pipes.hear().job, pipes.hear().job}
        if number == signal.SIGINT:
            runner.ctrl_c()
        else:
            runner.signal(number)
        runner.logs("begins no more jobs")
        pipes.let_through(2)
        code, log = runner.end()
    assert code == 0, log
    assert "Traceback" not in log
    for job in jobs:
        is_through = job.id in begun
        after = found(store, job)
        assert after.status == (Status.COMPLETED if is_through else Status.QUEUED)
        assert after.attempt == is_through


def test_a_second_signal_gives_back_what_runs_without_a_lost_attempt(
    store: quelmdb.Store, pipes: Pipes
) -> None:
    jobs = [
        Gated.add(store, pipes.arguments),
        slow_answer.add(store, {**pipes.arguments, "number": 7}),
    ]
    with Runner(Path(store.path), JOBS, threads=2) as runner:
        assert {pipes.hear().job, pipes.hear().job} == {job.id for job in jobs}
        eventually(lambda: store.counts()[Status.COMPLETED] == 1)
        runner.ctrl_c()
        runner.logs("begins no more jobs")
        runner.ctrl_c()
        code, log = runner.end()
    assert code == 1
    assert "Traceback" not in log
    job = found(store, jobs[0])
    assert (job.status, job.attempt, job.failures) == (Status.QUEUED, 0, ())


@pytest.mark.parametrize("until_empty", [False, True])
def test_a_process_that_is_told_to_stop_finishes_and_is_replaced(
    store: quelmdb.Store, pipes: Pipes, until_empty: bool
) -> None:
    for _ in range(2):
        Gated.add(store, pipes.arguments)
    with Runner(Path(store.path), JOBS, until_empty=until_empty) as runner:
        first = pipes.hear()
        os.kill(first.pid, signal.SIGTERM)
        runner.logs("begins no more jobs")
        pipes.let_through()
        assert pipes.hear() == first._replace(what="ended")
        second = pipes.hear()
        assert second.pid != first.pid
        pipes.let_through()
        eventually(lambda: store.counts()[Status.COMPLETED] == 2)
        if not until_empty:
            runner.signal(signal.SIGTERM)
        code, log = runner.end()
    assert (code, "died" in log) == (0, False)
    assert {job.attempt for job in store.all()} == {1}


def test_a_process_that_is_killed_is_replaced_and_its_jobs_are_run_again(
    store: quelmdb.Store, pipes: Pipes
) -> None:
    job = Gated.add(store, pipes.arguments)
    with Runner(Path(store.path), JOBS, until_empty=True) as runner:
        first = pipes.hear()
        os.kill(first.pid, signal.SIGKILL)
        second = pipes.hear()
        assert second.pid != first.pid
        pipes.let_through()
        code, log = runner.end()
    assert code == 0
    assert f"process {first.pid} died (Killed)" in log
    done = found(store, job)
    assert (done.status, done.attempt, len(done.failures)) == (Status.COMPLETED, 2, 1)


def test_without_its_supervisor_a_process_finishes_and_ends(
    store: quelmdb.Store, pipes: Pipes
) -> None:
    jobs = [Gated.add(store, pipes.arguments) for _ in range(2)]
    with Runner(Path(store.path), JOBS) as runner:
        begun = pipes.hear()
        runner.signal(signal.SIGKILL)
        runner.logs("begins no more jobs")
        pipes.let_through()
        eventually(lambda: not is_alive(begun.pid))
    assert [found(store, job).status for job in jobs] == [Status.COMPLETED, Status.QUEUED]


def test_a_thread_that_cannot_be_stopped_fails_its_job_and_its_process_is_replaced(
    store: quelmdb.Store, pipes: Pipes
) -> None:
    endless = Endless.add(store, pipes.arguments)
    gated = [Gated.add(store, pipes.arguments) for _ in range(2)]
    with Runner(Path(store.path), JOBS, threads=2) as runner:
        said = [pipes.hear(), pipes.hear()]
        assert {one.job for one in said} == {endless.id, gated[0].id}
        successor = pipes.hear()  # at work before the other one has ended
        assert (successor.what, successor.job) == ("begun", gated[1].id)
        assert successor.pid != said[0].pid
        assert found(store, endless).status is Status.STARTED
        pipes.let_through(2)
        eventually(lambda: found(store, endless).status is Status.FAILED)
        runner.signal(signal.SIGTERM)
        code, log = runner.end()
    assert code == 0, log
    assert "died" not in log
    assert not is_alive(said[0].pid)
    assert "timed out: it took longer than 0.1 s" in (found(store, endless).error or "")
    assert [found(store, job).status for job in gated] == [Status.COMPLETED] * 2
    assert {job.attempt for job in store.all()} == {1}


def test_a_job_is_begun_soon_after_it_was_added(store: quelmdb.Store, pipes: Pipes) -> None:
    with Runner(Path(store.path), JOBS) as runner:
        slow_answer.add(store, {**pipes.arguments, "number": 0})
        pipes.hear()
        eventually(lambda: store.counts()[Status.COMPLETED] == 1)
        times = []
        for number in range(1, 30):
            began = time.perf_counter()
            slow_answer.add(store, {**pipes.arguments, "number": number})
            pipes.hear()
            times.append(time.perf_counter() - began)
        runner.signal(signal.SIGTERM)
        assert runner.end()[0] == 0
    print(f"added to begun: median {sorted(times)[15] * 1000:.2f} ms")
    assert sorted(times)[15] < 0.02
    assert [job.result for job in store.completed(slow_answer)] == list(range(30))


def test_processes_that_cannot_start_are_given_up(store: quelmdb.Store, tmp_path: Path) -> None:
    (tmp_path / "once.py").write_text(
        "import multiprocessing\nfrom quelmdb.runner import worker\n"
        "assert multiprocessing.parent_process() is None\n"
        "@worker\ndef perform(arguments): ...\n"
    )
    code = (
        "import sys; sys.path.insert(0, sys.argv[2]); from quelmdb.runner import run;"
        "sys.exit(run(sys.argv[1], ['once']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, store.path, tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "once cannot be imported: AssertionError" in done.stderr
    assert "could not even start: giving up" in done.stderr


# --- The command --------------------------------------------------------------


def command(*words: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tools", "run", *words],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_command_finds_workers_in_the_current_directory(
    store: quelmdb.Store, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(
        "from quelmdb.runner import worker\n@worker\ndef twice(number): return 2 * number\n"
    )
    job = store.insert(Job("mine:twice", 4))
    done = command(store.path, "mine:twice", "--until-empty", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert found(store, job).result == 8
    assert "1 jobs in" in done.stderr


def test_the_command_says_in_one_line_what_cannot_be_run(store: quelmdb.Store) -> None:
    for words, says in (
        ((store.path, "nowhere:x"), "there is no module nowhere"),
        ((f"{store.path}-not", JOBS), "not"),
        ((store.path, JOBS, "--threads", "0"), "0"),
    ):
        done = command(*words)
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert says in done.stderr
