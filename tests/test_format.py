"""The bytes on disk: they are what docs/format.md says, and they do not change unseen."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from pathlib import Path
from types import ModuleType

import lmdb
import pytest

import quelmdb
from quelmdb import Job, Status, layout
from quelmdb.testing import ManualClock

DATA = Path(__file__).parent / "data"
FORMAT = Path(__file__).parents[1] / "docs" / "format.md"
VERSIONS = sorted(path for path in DATA.glob("store-v*") if path.is_dir())

Content = dict[bytes, list[tuple[bytes, bytes]]]


def _maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_store", DATA / "make_store.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _content(store: Path) -> Content:
    """Every key and value of every sub-database, as LMDB has them. What differs from
    run to run (the uuid, and who an owner was) is left out."""
    with lmdb.open(str(store / "000001"), max_dbs=16, readonly=True, lock=False) as environment:
        names = [name for name, _ in environment.begin().cursor()]
        content = {}
        for name in names:
            database = environment.open_db(name, create=False)
            with environment.begin() as transaction:
                content[name] = list(transaction.cursor(database))
    content[layout.META] = [pair for pair in content[layout.META] if pair[0] != layout.UUID_KEY]
    content[layout.OWNERS] = [(key, b"") for key, _ in content[layout.OWNERS]]
    return content


@pytest.fixture
def copy_of_version_1(tmp_path: Path) -> Path:
    return Path(shutil.copytree(DATA / "store-v1", tmp_path / "copy"))


@pytest.mark.parametrize("version", VERSIONS, ids=lambda path: path.name)
def test_stores_of_every_version_open_with_every_job_in_them(version: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(version, tmp_path / "copy")
    expected = json.loads(version.with_suffix(".json").read_text(encoding="utf-8"))
    with quelmdb.open(copy, create=False) as store:
        assert _maker().describe(store) == expected
        assert store.check() == []


def test_what_a_killed_process_held_is_claimable_in_an_old_store(copy_of_version_1: Path) -> None:
    with quelmdb.open(copy_of_version_1) as store:
        (held,) = (job for job in store.jobs(Status.STARTED) if job.owner)
        assert held.id in {job.id for job in store.claim(limit=100)}
        assert store.check() == []


def test_todays_code_writes_the_bytes_of_version_1(tmp_path: Path, copy_of_version_1: Path) -> None:
    clock = ManualClock()
    with quelmdb.open(tmp_path / "new", clock=clock) as store:
        _maker().fill(store, clock)
        assert store.check() == []
    assert _content(tmp_path / "new") == _content(copy_of_version_1)


def test_the_example_of_the_format_document_is_what_is_written(tmp_path: Path) -> None:
    clock = ManualClock()
    with quelmdb.open(tmp_path / "new", clock=clock) as store:
        store.insert(Job("mail.welcome", {"user": 7}))
        assert store.check() == []
    ((key, record),) = _content(tmp_path / "new")[layout.JOBS]
    example = FORMAT.read_text(encoding="utf-8").split("<!-- example -->")[1]
    written = re.findall(r"^([0-9a-f]{2}(?: [0-9a-f]{2})*)  ", example, re.MULTILINE)
    assert bytes.fromhex(" ".join(written)) == key + record


def test_a_generation_is_an_ordinary_lmdb_environment(copy_of_version_1: Path) -> None:
    assert set(_content(copy_of_version_1)) == {
        b"jobs",
        b"payloads",
        b"by_status",
        b"by_worker_status",
        b"workers",
        b"worker_names",
        b"owners",
        b"meta",
    }


def test_an_insert_with_all_parts_inline_stays_out_of_overflow_pages(tmp_path: Path) -> None:
    with quelmdb.open(tmp_path / "new") as store:
        for size in (layout.INLINE_ARGUMENTS, layout.INLINE_ARGUMENTS + 1, layout.CHUNK * 3):
            store.insert(
                Job(
                    "w",
                    b"a" * (size - 3),
                    result=b"r" * (layout.INLINE_EXTRA - 3),
                    error="e" * (layout.INLINE_EXTRA - 3),
                )
            )
        assert store.check() == []
    with lmdb.open(str(tmp_path / "new" / "000001"), max_dbs=16, readonly=True) as environment:
        for name in (layout.JOBS, layout.PAYLOADS):
            database = environment.open_db(name, create=False)
            with environment.begin() as transaction:
                assert transaction.stat(database)["overflow_pages"] == 0


def test_status_codes_never_change() -> None:
    assert [status.value for status in layout.STATUSES] == [
        "scheduled",
        "queued",
        "started",
        "completed",
        "failed",
        "cancelled",
    ]
