"""Que's worker model in Python: workers in five lines, and processes that run them.

    from quelmdb.runner import Worker, worker

    class Welcome(Worker):
        def perform(self, arguments): ...

    Welcome.add(store, {"user": 7})

and `quelmdb run jobs.qdb mypackage.mail:Welcome`, or `run("jobs.qdb", [Welcome])`.

A job is run at least once: one whose process dies in the middle is run again. What a job
writes elsewhere can be fenced with `current().job.claim`. docs/runners.md has the rest.
"""

from quelmdb.runner.backoff import Backoff, exponential
from quelmdb.runner.finishing import Counts
from quelmdb.runner.performing import Cancelled, Discard, Retry, Running, TimedOut, current
from quelmdb.runner.supervisor import run, work
from quelmdb.runner.workers import TargetError, Worker, WorkerFunction, worker

__all__ = [
    "Backoff",
    "Cancelled",
    "Counts",
    "Discard",
    "Retry",
    "Running",
    "TargetError",
    "TimedOut",
    "Worker",
    "WorkerFunction",
    "current",
    "exponential",
    "run",
    "work",
    "worker",
]
