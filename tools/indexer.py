"""The demo's worker, and the example to read first: a runner on quelmdb's public API.

A job is a Python file. Any number of processes call `work` on the same store; each
claims some jobs, indexes the files, and finishes them in one transaction. When a
process dies, whatever it held is claimable again at once.
"""

from __future__ import annotations

import ast
import hashlib
import os
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import Any, Final

import quelmdb
from quelmdb import Job, JobStore
from quelmdb.writes import Batch

WORKER: Final = "demo.index"
AT_A_TIME: Final = 16
MOST_ATTEMPTS: Final = 5


def job_for(path: Path, root: Path) -> Job:
    """The job of indexing a file below `root`."""
    arguments = {"path": portable(path.relative_to(root)), "root": portable(root)}
    return Job(worker=WORKER, arguments=arguments)


def path_of(job: Job) -> Path:
    """The file that a job is about."""
    return Path(os.fsdecode(job.arguments["root"]), os.fsdecode(job.arguments["path"]))


def work(store: JobStore) -> int:
    """Works until nothing is queued, and returns how many jobs that were."""
    finished = 0
    while jobs := claim(store):
        with store.batch() as batch:  # all of these are finished, or none
            for job in jobs:
                finish(batch, job)
        finished += len(jobs)
    return finished


def claim(store: JobStore) -> list[Job]:
    """The next jobs. One that was claimed before comes alone: its process died, and
    if it dies again that shall cost no other job an attempt."""
    jobs = store.claim(WORKER, limit=AT_A_TIME)
    if any(job.attempt > 1 for job in jobs):
        with store.batch() as batch:
            for job in jobs[1:]:
                batch.release(job)
        del jobs[1:]
    return jobs


def finish(batch: Batch, job: Job) -> None:
    """Does one job: it is completed with a result, or failed with the reason."""
    if job.attempt > MOST_ATTEMPTS:
        batch.fail(job, f"{job.attempt - 1} processes died while they had it")
        return
    try:
        batch.complete(job, index(path_of(job)))
    except Exception as error:
        batch.fail(job, f"{type(error).__name__}: {error}")


def index(path: Path) -> dict[str, Any]:
    """Hashes a file, parses it, and counts what it defines. Raises what `ast.parse` does."""
    started = time.perf_counter()
    source = path.read_bytes()
    nodes = list(ast.walk(ast.parse(source, filename=path.name)))
    return {
        "sha256": hashlib.sha256(source).hexdigest(),
        "lines": source.count(b"\n"),
        "functions": sum(isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef)) for n in nodes),
        "classes": sum(isinstance(n, ast.ClassDef) for n in nodes),
        "seconds": time.perf_counter() - started,
    }


def portable(path: Path) -> str | bytes:
    """The path as text, or as bytes where its name is no text."""
    name = os.fsencode(path)
    try:
        return name.decode()
    except UnicodeDecodeError:
        return name


def run_process(store_path: str) -> None:
    """What a worker process runs: opens the store for itself, and works."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends us
    warnings.simplefilter("ignore")  # that parsing raises about the files
    try:
        with quelmdb.open(store_path, create=False) as store:
            work(store)
    except quelmdb.QuelmdbError as error:
        sys.exit(f"quelmdb demo: process {os.getpid()}: {error}")
