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
from quelmdb import Job, Status, layout, recordlayout
from quelmdb.job import is_empty
from quelmdb.testing import ManualClock

DATA = Path(__file__).parent / "data"
FORMAT = Path(__file__).parents[1] / "docs" / "format.md"
VERSIONS = sorted(path for path in DATA.glob("store-v*") if path.is_dir())
TODAYS = DATA / "store-v1-options"

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
        with environment.begin() as transaction:
            names = [name for name, _ in transaction.cursor()]
        content = {}
        for name in names:
            database = environment.open_db(name, create=False)
            with environment.begin() as transaction:
                content[name] = list(transaction.cursor(database))
    content[layout.META] = [pair for pair in content[layout.META] if pair[0] != layout.UUID_KEY]
    content[layout.OWNERS] = [(key, b"") for key, _ in content[layout.OWNERS]]
    return content


def _described(version: Path) -> list[dict[str, str]]:
    """What its jobs were when it was made; fields that came later are left out."""
    jobs: list[dict[str, str]] = json.loads(version.with_suffix(".json").read_text("utf-8"))
    return jobs


def _describe(store: quelmdb.Store, like: list[dict[str, str]]) -> list[dict[str, str]]:
    """What its jobs are, in the fields of `like`, beside which they have nothing."""
    fields = like[0].keys()
    for job in store.all():
        assert {name for name, value in job.as_dict().items() if not is_empty(name, value)} <= (
            fields
        )
    return [{name: job[name] for name in fields} for job in _maker().describe(store)]


@pytest.fixture
def copy_of_version_1(tmp_path: Path) -> Path:
    return Path(shutil.copytree(DATA / "store-v1", tmp_path / "copy"))


@pytest.mark.parametrize("readonly", [False, True], ids=["to write", "to read"])
@pytest.mark.parametrize("version", VERSIONS, ids=lambda path: path.name)
def test_stores_of_every_version_open_with_every_job_in_them(
    version: Path, readonly: bool, tmp_path: Path
) -> None:
    copy = shutil.copytree(version, tmp_path / "copy")
    expected = _described(version)
    with quelmdb.open(copy, create=False, readonly=readonly) as store:
        assert _describe(store, expected) == expected
        assert store.check() == []


@pytest.mark.parametrize("version", VERSIONS, ids=lambda path: path.name)
def test_what_a_killed_process_held_is_claimable_in_an_old_store(
    version: Path, tmp_path: Path
) -> None:
    with quelmdb.open(shutil.copytree(version, tmp_path / "copy")) as store:
        held = {
            job.id
            for job in store.jobs(Status.STARTED)
            if job.owner and not store.cancel_requested(job)
        }
        assert len(held) == (1 if version.name == "store-v1" else 2)
        assert held <= {job.id for job in store.claim(limit=100)}
        assert store.check() == []


def test_a_store_of_before_there_were_options_gets_them_when_it_is_opened_to_write(
    copy_of_version_1: Path,
) -> None:
    before = _content(copy_of_version_1)
    assert (layout.FEATURES_KEY, b"") in before[layout.META]
    assert layout.BY_OPTION not in before
    quelmdb.open(copy_of_version_1).close()
    after = _content(copy_of_version_1)
    assert after.pop(layout.BY_OPTION) == []
    assert (layout.FEATURES_KEY, layout.OPTIONS_FEATURE) in after[layout.META]
    for content in (before, after):
        content[layout.META] = [
            pair for pair in content[layout.META] if pair[0] != layout.FEATURES_KEY
        ]
    assert after == before
    with quelmdb.open(copy_of_version_1) as store:
        old = next(job for job in store.jobs("queued"))
        store.update(old.replace(priority=7, unique_key="k", max_attempts=2))
        assert [job.id for job in store.claim()] == [old.id]
        with pytest.raises(quelmdb.DuplicateJobError):
            store.insert(Job("a", unique_key="k"))
        store.pause("a")
        assert store.paused() == ["a"]
        assert store.check() == []


def test_a_store_of_before_there_were_options_is_served_read_only_as_it_is(
    copy_of_version_1: Path,
) -> None:
    before = (copy_of_version_1 / "000001" / "data.mdb").read_bytes()
    with quelmdb.open(copy_of_version_1, readonly=True) as store:
        assert store.next_due() is None
        assert store.paused() == []
        (held,) = (job for job in store.jobs(Status.STARTED) if job.owner)
        assert not store.cancel_requested(held)
        assert store.check() == []
    assert (copy_of_version_1 / "000001" / "data.mdb").read_bytes() == before


def test_the_options_of_the_kept_store_are_served(tmp_path: Path) -> None:
    copy = shutil.copytree(TODAYS, tmp_path / "copy")
    with quelmdb.open(copy, readonly=True) as store:
        assert store.paused() == [None, "never heard of", "paused"]
        claimed = [job for job in store.jobs("started") if job.claim]
        (asked,) = (job for job in claimed if store.cancel_requested(job))
        assert asked.progress == (5, None, "goes on")
        scheduled = [job for job in store.jobs("scheduled") if job.run_at]
        assert store.next_due() == min(job.run_at for job in scheduled if job.run_at)
        flags = {recordlayout.flags_of(record) for _, record in _content(TODAYS)[layout.JOBS]}
        seen = {flag for flag in (1, 2, 4, 8, 16, 32) if any(flag & each for each in flags)}
        assert seen == {1, 2, 4, 8, 16, 32}
        kinds = {key[:1] for key, _ in _content(TODAYS)[layout.BY_OPTION]}
        assert kinds == {b"D", b"P", b"W", b"U", b"Z"}


def test_todays_code_writes_the_bytes_that_are_kept(tmp_path: Path) -> None:
    clock = ManualClock()
    with quelmdb.open(tmp_path / "new", clock=clock) as store:
        _maker().fill(store, clock)
        assert store.check() == []
    copy = shutil.copytree(TODAYS, tmp_path / "copy")
    assert _content(tmp_path / "new") == _content(copy)


def test_the_example_of_the_format_document_is_what_is_written(tmp_path: Path) -> None:
    clock = ManualClock()
    with quelmdb.open(tmp_path / "new", clock=clock) as store:
        store.insert(Job("mail.welcome", {"user": 7}))
        assert store.check() == []
    ((key, record),) = _content(tmp_path / "new")[layout.JOBS]
    example = FORMAT.read_text(encoding="utf-8").split("<!-- example -->")[1]
    written = re.findall(r"^([0-9a-f]{2}(?: [0-9a-f]{2})*)  ", example, re.MULTILINE)
    assert bytes.fromhex(" ".join(written)) == key + record


def test_a_generation_is_an_ordinary_lmdb_environment(tmp_path: Path) -> None:
    quelmdb.open(tmp_path / "new").close()
    assert set(_content(tmp_path / "new")) == {
        b"jobs",
        b"payloads",
        b"by_status",
        b"by_worker_status",
        b"workers",
        b"worker_names",
        b"owners",
        b"by_option",
        b"meta",
    }


def test_an_insert_with_all_parts_inline_stays_out_of_overflow_pages(tmp_path: Path) -> None:
    with quelmdb.open(tmp_path / "new") as store:
        for size in (
            recordlayout.INLINE_ARGUMENTS,
            recordlayout.INLINE_ARGUMENTS + 1,
            recordlayout.CHUNK * 3,
        ):
            store.insert(
                Job(
                    "w",
                    b"a" * (size - 3),
                    result=b"r" * (recordlayout.INLINE_EXTRA - 3),
                    error="e" * (recordlayout.INLINE_EXTRA - 3),
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
