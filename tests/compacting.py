"""Stores to be compacted, of both durabilities."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import quelmdb
from quelmdb import Job
from quelmdb.filesystem import MIB
from tests.durabilities import full_and_ephemeral

CAPACITY = 8 * MIB

_DURABILITIES = full_and_ephemeral(CAPACITY)


@pytest.fixture(params=_DURABILITIES)
def store(request: pytest.FixtureRequest, path: Path) -> Iterator[quelmdb.Store]:
    with quelmdb.open(path, **_DURABILITIES[request.param]) as store:
        yield store


def generations(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir() if entry.is_dir())


def fill(store: quelmdb.Store, count: int = 5_000) -> None:
    """Jobs of every kind, and a file that is mostly holes."""
    store.insert_many(Job("a", {"n": n}) for n in range(count))
    store.insert(Job("b", b"x" * 50_000, priority=3, unique_key="k", max_attempts=2))
    store.pause("c")
    completed, failed = store.claim("a", limit=2)
    store.complete(completed, {"big": b"y" * 10_000})
    store.fail(failed, ValueError("z" * 5_000))
    store.destroy_many(range(100, count))
