"""Ephemeral stores in tests: whole, spoilt, as after a restart, and what stands in their files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb
import pytest

import quelmdb
from quelmdb import Job, boot, engine, layout, opening
from tests.damage import data_file
from tests.durabilities import EPHEMERAL

LAST_RUN = b"00000000-0000-4000-8000-000000000000"

writable_and_readonly = pytest.mark.parametrize("readonly", [False, True])


@pytest.fixture
def ephemeral(path: Path) -> Path:
    """An ephemeral store with jobs in it, closed."""
    with quelmdb.open(path, **EPHEMERAL) as store:
        store.insert_many(Job("a", b"x" * 200) for _ in range(1000))
        store.complete_many(store.claim(limit=100))
    return path


@pytest.fixture
def spoilt(tmp_path: Path) -> Path:
    """The same, for tests that leave it as nobody can open it."""
    path = tmp_path / "spoilt.qdb"
    with quelmdb.open(path, **EPHEMERAL) as store:
        store.insert_many(Job("a", b"x" * 200) for _ in range(1000))
    return path


@pytest.fixture
def verified(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Tells, in their order, when pages were verified and when LMDB opened a file."""
    told: list[str] = []

    def tells(what: str, does: Callable[..., Any]) -> Callable[..., Any]:
        def tell(*arguments: Any, **options: Any) -> Any:
            told.append(what)
            return does(*arguments, **options)

        return tell

    monkeypatch.setattr(lmdb, "open", tells("open", lmdb.open))
    verify = tells("verify", engine.structural_problems)
    monkeypatch.setattr(opening, "structural_problems", verify)
    return told


def mark_of(path: Path) -> Path:
    return path / layout.BOOT_FILE


def restart(path: Path) -> None:
    """As after a restart of the machine: the store was last opened before it."""
    assert mark_of(path).read_bytes() == boot.boot_id()
    mark_of(path).write_bytes(LAST_RUN)


def state_of(path: Path) -> dict[str, bytes]:
    """The content of every file but that of LMDB's locks, which every reader writes to, and
    the number of the wake-up, which is another one for all who open."""
    return {
        str(file): file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file() and file.name not in (layout.LOCK_FILE, layout.WAKEUP_FILE)
    }


def allocated(path: Path) -> int:
    return data_file(path).stat().st_blocks * 512


def size_of(path: Path) -> int:
    return data_file(path).stat().st_size


def durability_of(path: Path, **options: Any) -> str:
    with quelmdb.open(path, **options) as store:
        return store.info().durability
