"""Stores for tests of the command line, and how to call that."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import quelmdb
from quelmdb import Job

ROOT = Path(__file__).parents[1]
QUELMDB = [sys.executable, "-m", "tools"]
HOSTILE = "evil\x1b[31m\t\nname\u202e [bold]"


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
