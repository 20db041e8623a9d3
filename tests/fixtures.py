"""Fixtures of the tests of what can go wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import quelmdb


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """Where a test makes its store, which is checked when the test is over."""
    path = tmp_path / "jobs.qdb"
    yield path
    with quelmdb.open(path, create=False) as store:
        assert store.check() == []


@pytest.fixture
def store(path: Path) -> Iterator[quelmdb.Store]:
    with quelmdb.open(path) as store:
        yield store


@pytest.fixture
def long(request: pytest.FixtureRequest) -> bool:
    """Whether random tests are to run at length."""
    return bool(request.config.getoption("--long", default=False))
