"""`quelmdb demo`: indexes a tree of Python files with several processes.

This is the parent: it queues the files, looks after the processes and reports. What
they do is in `indexer`, the part that a runner's author wants to read.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Final

import click

import quelmdb
from quelmdb import JobStore, Status

from . import demo_report, indexer
from .common import answer_no
from .render import progress, say

MOST_PROCESSES: Final = 64
MOST_DEATHS: Final = 20  # of processes; then the demo goes on with those it has
INSERTED_AT_A_TIME: Final = 1_000
TICK: Final = 0.1  # seconds between looks at the processes

_SKIPPED: Final = frozenset(("__pycache__", "site-packages", "dist-packages"))


@click.command("demo")
@click.argument("path", required=False, type=click.Path(exists=True, file_okay=False))
@click.option("--store", metavar="DIR", help="Where; a new temporary directory if left out.")
@click.option(
    "--processes",
    type=click.IntRange(1, MOST_PROCESSES),
    help="How many work at the same time.  [default: one a processor]",
)
def command(path: str | None, store: str | None, processes: int | None) -> None:
    """Indexes the Python files under PATH: hashes, parses and counts definitions.

    Without PATH it takes the standard library of the Python that runs it. Each
    file is a job in a store; several processes claim, complete or fail them.
    Run again on the same store it queues only what is new, and works off what
    is left, whatever was killed before. Exits with 1 where files are left.

    \b
    Example:
      quelmdb demo
      quelmdb demo ~/src --store /tmp/src.qdb --processes 4
    """
    root = Path(path or sysconfig.get_path("stdlib")).resolve()
    where = store or os.path.join(tempfile.mkdtemp(prefix="quelmdb-demo-"), "jobs.qdb")
    crew = processes or min(processors(), MOST_PROCESSES)
    with quelmdb.open(where) as opened:
        new, known = enqueue(opened, root)
        demo_report.opening(root, where, new, known)
        if not new + known:
            raise click.ClickException(f"no Python files under {root}")
        before = finished(opened)
        started = time.perf_counter()
        try:
            with progress("indexing", len(opened.all(indexer.WORKER)), "files") as tell:
                supervise(opened, where, crew, lambda: tell(finished(opened)))
        except KeyboardInterrupt:
            demo_report.interrupted(where, root)
            raise
        seconds = time.perf_counter() - started
        demo_report.closing(opened, where, root, finished(opened) - before, seconds, crew)
        if len(opened.incomplete(indexer.WORKER)):
            answer_no()


def enqueue(store: JobStore, root: Path) -> tuple[int, int]:
    """Inserts a job for each file that the store has none for.

    Returns how many were inserted, and how many files it had jobs for.
    """
    known = known_files(store)
    new = (path for path in python_files(root) if path not in known)
    inserted = 0
    with progress("looking for files") as tell:
        while batch := [indexer.job_for(path, root) for path in islice(new, INSERTED_AT_A_TIME)]:
            store.insert_many(batch)
            inserted += len(batch)
            tell(inserted)
    return inserted, len(known)


def known_files(store: JobStore) -> set[Path]:
    """The files that the store has jobs for."""
    known = set()
    for job in store.all(indexer.WORKER):
        with suppress(KeyError, TypeError, quelmdb.DecodeError):  # somebody else's job
            known.add(indexer.path_of(job))
    return known


def python_files(root: Path) -> Iterator[Path]:
    """The Python files below `root`, without those that were installed there."""
    for directory, below, names in os.walk(root):
        below[:] = sorted(set(below) - _SKIPPED)
        for name in sorted(names):
            path = Path(directory, name)
            if path.suffix == ".py" and path.is_file():
                yield path


def processors() -> int:
    """How many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def finished(store: JobStore) -> int:
    """How many files are completed or failed."""
    counts = store.counts(indexer.WORKER)
    return counts[Status.COMPLETED] + counts[Status.FAILED]


def supervise(store: JobStore, where: str, size: int, tell: Callable[[], None]) -> None:
    """Lets `size` processes work until each finds nothing more to claim.

    One that dies is replaced, `MOST_DEATHS` times at most; the others claim what it
    held. (A file that kills every process is failed by the worker itself.)
    """
    size = min(size, len(store.incomplete(indexer.WORKER)))
    crew = [_start(where) for _ in range(size)]
    spare = MOST_DEATHS
    try:
        while crew:
            wait([process.sentinel for process in crew], timeout=TICK)
            tell()
            for process in [process for process in crew if not process.is_alive()]:
                crew.remove(process)
                if process.exitcode:
                    _tell_of_death(process)
                    if spare:
                        spare -= 1
                        crew.append(_start(where))
    finally:
        for process in crew:
            process.terminate()
        for process in crew:
            process.join()


def _start(where: str) -> SpawnProcess:
    """A new process at work. Spawned, not forked: a store must not pass through a fork."""
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=indexer.run_process, args=(where,), daemon=True)
    process.start()
    return process


def _tell_of_death(process: SpawnProcess) -> None:
    code = process.exitcode or 0
    reason = signal.strsignal(-code) if code < 0 else f"exit code {code}"
    say(f"process {process.pid} died ({reason}); what it held is back in the queue")
