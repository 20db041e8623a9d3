"""A generation that is being opened: what it refuses, and that an interrupt leaves nothing open."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import lmdb
import pytest

import quelmdb
from quelmdb import CorruptStoreError, Job, StoreNotFoundError, environment, layout
from quelmdb.engine import Engine, open_engine
from quelmdb.environment import Environment
from tests.children import in_child
from tests.damage import data_file, used_bytes


def test_what_is_written_to_a_store_that_was_deleted_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "_LOOK_SECONDS", 0.0)
    path = tmp_path / "jobs.qdb"
    with quelmdb.open(path) as store:
        store.insert(Job("a"))
        shutil.rmtree(path)
        for write in (lambda: store.insert(Job("a")), lambda: store.claim("a")):
            with pytest.raises(StoreNotFoundError, match="it is gone"):
                write()


@pytest.mark.parametrize("readonly", [False, True])
def test_an_interrupt_at_any_line_of_opening_leaves_no_engine_open(
    readonly: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "jobs.qdb"
    quelmdb.open(path).close()
    directory = path / layout.generation_name(layout.FIRST_GENERATION)
    engines: list[Engine] = []

    def opened(*args: Any, **options: Any) -> Engine:
        engines.append(open_engine(*args, **options))
        return engines[-1]

    monkeypatch.setattr(environment, "open_engine", opened)
    for lines in range(1, 100):
        left = lines

        def interrupt(frame: FrameType, event: str, arg: object) -> Any:
            nonlocal left
            if frame.f_code is not Environment.__init__.__code__:
                return None
            if event == "line" and engines:
                left -= 1
                if left == 0:
                    raise KeyboardInterrupt
            return interrupt

        engines.clear()
        sys.settrace(interrupt)
        try:
            Environment(directory, ephemeral=False, readonly=readonly, check=lambda meta: None)
        except KeyboardInterrupt:
            sys.settrace(None)
            (engine,) = engines
            with pytest.raises(lmdb.Error, match="closed"):
                engine.info()
        else:
            sys.settrace(None)
            engines[0].close()
            break
    assert 5 < lines < 99


def _destroy_without_room(path: Path, rng: random.Random) -> None:
    """As on a disk that has no space for the reserve."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    size = data_file(path).stat().st_size + 2**20
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    with quelmdb.open(path) as store:
        ids = list(store.all().ids())
        first = rng.randrange(len(ids))
        store.destroy_many(ids[first : first + rng.randrange(400)])


def test_a_file_that_lacks_only_pages_that_are_free_is_complete(tmp_path: Path) -> None:
    """LMDB does not write what it takes and frees in one transaction: such pages, behind the
    last one that was written, are counted, and are in no file that could not be extended."""
    short = 0
    for seed in range(30):
        rng = random.Random(seed)
        path, copy = tmp_path / f"{seed}", tmp_path / f"{seed}.copy"
        with quelmdb.open(path) as store:
            store.insert_many(
                Job(f"a{n % 9}", rng.randbytes(rng.choice((5, 500, 900, 3000))), priority=n % 2)
                for n in range(rng.randrange(50, 1000))
            )
            store.backup(copy)
        in_child(_destroy_without_room, copy, rng)
        missing = used_bytes(copy) - data_file(copy).stat().st_size
        with quelmdb.open(copy, readonly=True) as store:
            jobs = list(store.all())
            assert store.check() == []
        if missing > 0:
            short += 1
            cut = shutil.copytree(copy, tmp_path / f"{seed}.cut")
            os.truncate(data_file(cut), data_file(cut).stat().st_size - 4096)
            with pytest.raises(CorruptStoreError, match="incomplete"):
                quelmdb.open(cut)
        with quelmdb.open(copy) as store:
            store.insert_many(Job("c", n) for n in range(1000))
            assert list(store.all())[: len(jobs)] == jobs
            assert store.check() == []
    assert short
