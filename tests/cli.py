"""A store for tests of the command line, and how to call that."""

from __future__ import annotations

import sys
from pathlib import Path

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
