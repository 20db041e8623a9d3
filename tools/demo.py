"""`quelmdb demo`: indexes a tree of Python files with several processes.

It queues the files, lets `quelmdb.runner` work on them, and reports. What is done with a
file is in `indexer`, the part that a runner's author wants to read.
"""

from __future__ import annotations

import os
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Final

import click

import quelmdb
from quelmdb import JobStore, Status, runner

from . import demo_report, indexer
from .common import answer_no
from .render import progress

MOST_PROCESSES: Final = 64
INSERTED_AT_A_TIME: Final = 1_000
TICK: Final = 0.1  # seconds between looks at the counts

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
        try:
            new, known = enqueue(opened, root)
            demo_report.opening(root, where, new, known)
            if not new + known:
                raise click.ClickException(f"no Python files under {root}")
            before = finished(opened)
            started = time.perf_counter()
            work_off(opened, where, crew)
        except KeyboardInterrupt:
            demo_report.interrupted(where, root)
            raise
        seconds = time.perf_counter() - started
        demo_report.closing(opened, where, root, finished(opened) - before, seconds, crew)
        if left(opened):
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
            known.add(indexer.path_of(job.arguments))
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


def left(store: JobStore) -> int:
    """How many files are neither."""
    return len(store.incomplete(indexer.WORKER))


def work_off(store: JobStore, where: str, crew: int) -> None:
    """Lets at most `crew` processes work until no file is left, or they cannot go on.

    Ctrl-C, and SIGTERM, let them finish the files that they are at, and end in
    `KeyboardInterrupt`.
    """
    crew = min(crew, left(store))
    if not crew:
        return
    with (
        progress("indexing", len(store.all(indexer.WORKER)), "files") as tell,
        _telling(store, tell),
    ):
        # What it warns of, such as processes that died, goes to stderr as it is: nobody has
        # told Python's logging otherwise.
        code = runner.run(where, [indexer.Index], processes=crew, until_empty=True)
    was_stopped = code == 0 and indexer.WORKER not in store.paused()
    if was_stopped and left(store):
        raise KeyboardInterrupt


@contextmanager
def _telling(store: JobStore, tell: Callable[[int], None]) -> Iterator[None]:
    """Tells how many files are finished, again and again, from a thread of its own."""
    is_over = threading.Event()

    def repeat() -> None:
        while not is_over.wait(TICK):
            tell(finished(store))

    thread = threading.Thread(target=repeat, name="progress")
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
