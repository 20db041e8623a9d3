"""Stores for tests of the command line, and how to call that."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import quelmdb
from quelmdb import Job
from tools import app

ROOT = Path(__file__).parents[1]
QUELMDB = [sys.executable, "-m", "tools"]
HOSTILE = "evil\x1b[31m\t\nname\u202e [bold]"

_DAY = 86_400_000_000  # microseconds


def fill(path: Path) -> None:
    """A store with a job in each of several states."""
    with quelmdb.open(path) as store:
        for worker in ("mail.welcome", None, HOSTILE):
            store.insert_many(Job(worker, {"user": n}) for n in range(2))
        first, second = store.claim("mail.welcome", limit=2)
        store.complete(first, {"sent": True})
        store.fail(second, "SMTPError: no such host\nsecond line")
        store.insert(Job("big", {"text": "x" * 100_000, "rest": list(range(1000))}))
        store.insert(Job("started", status="started"))


@pytest.fixture
def path(tmp_path: Path) -> Iterator[str]:
    path = tmp_path / "jobs.qdb"
    fill(path)
    yield str(path)
    with quelmdb.open(path) as store:
        assert store.check() == []


@pytest.fixture
def empty(tmp_path: Path) -> str:
    path = tmp_path / "empty.qdb"
    quelmdb.open(path).close()
    return str(path)


@pytest.fixture
def of_many_statuses(tmp_path: Path) -> Iterator[str]:
    """1 and 2 are completed, 3 and 4 failed, all long ago; 5 and 6 failed, 7 and 8 queued,
    9 cancelled, and 10, without a worker, failed, just now."""
    path = tmp_path / "jobs.qdb"
    with quelmdb.open(path, clock=lambda: 20_000 * _DAY) as store:
        store.insert_many([Job("mail")] * 8)
        jobs = store.claim("mail", limit=4)
        store.complete_many(jobs[:2])
        for job in jobs[2:]:
            store.fail(job, "no luck")
    with quelmdb.open(path) as store:
        store.update_many(Job("mail", id=job_id, status="failed") for job_id in (5, 6))
        store.insert_many([Job("other", status="cancelled"), Job(None, status="failed")])
    yield str(path)
    with quelmdb.open(path) as store:
        assert store.check() == []


def invoke(*arguments: str, **options: Any) -> Result:
    """In this process."""
    return CliRunner().invoke(app.commands, arguments, **options)


def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """In a process of its own."""
    return subprocess.run(
        [*QUELMDB, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **options,
    )


def done(*arguments: str, code: int = 0) -> dict[str, Any]:
    """What it says that it did."""
    result = invoke(*arguments, "--json")
    assert result.exit_code == code, result.stderr
    facts: dict[str, Any] = json.loads(result.stdout)
    return facts


def ids(path: str, *statuses: str) -> list[int]:
    with quelmdb.open(path, readonly=True) as store:
        return list(store.jobs(*statuses).ids())


def hold_snapshot(pipe: Connection, path: str) -> None:
    """Run in a child: until it is killed."""
    with quelmdb.open(path, readonly=True) as store, store.snapshot():
        pipe.send(None)
        pipe.recv()
