"""Jobs that are run in the process of the test, on either store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import quelmdb
from quelmdb import Job, JobStore, MemoryStore
from quelmdb.runner import exponential, work

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
