"""Paths, stores and rights that cannot be served: each has its error, and nothing is touched."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import quelmdb
from quelmdb import (
    CorruptStoreError,
    DurabilityError,
    Job,
    NotAStoreError,
    QuelmdbError,
    ReadOnlyStoreError,
    StoreError,
    StoreNotFoundError,
    StorePermissionError,
    UnsupportedFormatError,
    layout,
)
from tests.children import in_child
from tests.damage import data_file, put_meta
from tests.mounts import enter_private_mounts, mount_read_only, needs_mounts, needs_root
from tests.uses import STORE_READS, WRITES

pytest_plugins = ["tests.fixtures"]

OPTIONS: list[dict[str, Any]] = [{}, {"create": False}, {"readonly": True}]
every_way = pytest.mark.parametrize("options", OPTIONS, ids=["", "create=False", "readonly"])


def _tree(path: Path) -> dict[str, bytes | None]:
    """Every name below a directory, with the content of what is a file."""
    return {
        str(entry.relative_to(path)): entry.read_bytes() if entry.is_file() else None
        for entry in path.rglob("*")
    }


# --- Paths --------------------------------------------------------------------


@every_way
def test_a_file_is_no_store(options: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "jobs.qdb"
    path.write_text("a file")
    with pytest.raises(NotAStoreError, match="is a file") as caught:
        quelmdb.open(path, **options)
    assert caught.value.path == str(path)
    assert path.read_text() == "a file"


@every_way
def test_a_path_below_a_file_is_no_store(options: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises((NotAStoreError, StoreNotFoundError)):
        quelmdb.open(tmp_path / "file" / "jobs.qdb", **options)


@every_way
@pytest.mark.parametrize(
    "name",
    ["file", ".hidden", "data.mdb", "photos/data.mdb", "000001/photo", "000001", "000002"],
)
def test_a_directory_that_is_no_store_is_left_untouched(
    name: str, options: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "directory"
    (path / name).parent.mkdir(parents=True)
    (path / name).write_text("mine")
    before = _tree(path)
    with pytest.raises((NotAStoreError, StoreNotFoundError)) as caught:
        quelmdb.open(path, **options)
    assert caught.value.path == str(path)
    assert _tree(path) == before


@every_way
def test_a_missing_parent_is_not_created(options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(StoreNotFoundError):
        quelmdb.open(tmp_path / "a" / "b" / "jobs.qdb", **options)
    assert _tree(tmp_path) == {}


@pytest.mark.parametrize("options", OPTIONS[1:], ids=["create=False", "readonly"])
def test_what_is_not_there_is_not_created_unasked(options: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "jobs.qdb"
    with pytest.raises(StoreNotFoundError, match="no store"):
        quelmdb.open(path, **options)
    assert not path.exists()
    path.mkdir()
    with pytest.raises(StoreNotFoundError, match="no store"):
        quelmdb.open(path, **options)
    assert _tree(path) == {}


def test_a_dangling_symlink_is_not_followed_by_a_creation(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(StoreError):
        quelmdb.open(tmp_path / "link")
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("path", ["", "\0", "a\0b", "x" * 300, 7, None, b"\0"])
def test_a_path_that_no_file_can_have_is_an_error(path: Any) -> None:
    with pytest.raises((QuelmdbError, TypeError, ValueError)):
        quelmdb.open(path)


def test_what_is_created_is_private(path: Path) -> None:
    with quelmdb.open(path) as store:
        store.insert(Job("a"))
    modes = {entry: stat.S_IMODE(entry.stat().st_mode) for entry in (path, *path.rglob("*"))}
    assert all(mode == (0o700 if entry.is_dir() else 0o600) for entry, mode in modes.items())


def test_an_unknown_durability_is_refused(tmp_path: Path) -> None:
    durability: Any = "weak"
    with pytest.raises(DurabilityError, match="'weak'"):
        quelmdb.open(tmp_path / "jobs.qdb", durability=durability)
    assert _tree(tmp_path) == {}


# --- Formats ------------------------------------------------------------------


@pytest.fixture
def closed(tmp_path: Path) -> Path:
    """A store with a job in it, closed."""
    with quelmdb.open(tmp_path / "jobs.qdb") as store:
        store.insert(Job("a"))
    return tmp_path / "jobs.qdb"


@every_way
@pytest.mark.parametrize(
    ("key", "value", "expected", "found"),
    [
        (layout.FORMAT_KEY, layout.pack_number(2), 1, 2),
        (layout.FORMAT_KEY, layout.pack_number(0), 1, 0),
        (layout.FEATURES_KEY, b"priorities", "options", "priorities"),
        (layout.FEATURES_KEY, b"options\npriorities", "options", "options\npriorities"),
        (layout.BYTE_ORDER[0], b"middle", layout.BYTE_ORDER[1].decode(), "middle"),
        (layout.DURABILITY_KEY, b"weak", ("full", "ephemeral"), "weak"),
    ],
)
def test_another_format_is_refused(
    key: bytes,
    value: bytes,
    expected: object,
    found: object,
    options: dict[str, Any],
    closed: Path,
) -> None:
    put_meta(closed, key, value)
    before = data_file(closed).read_bytes()
    with pytest.raises(UnsupportedFormatError) as caught:
        quelmdb.open(closed, **options)
    assert (caught.value.path, caught.value.expected, caught.value.found) == (
        str(closed),
        expected,
        found,
    )
    assert data_file(closed).read_bytes() == before


def test_a_feature_that_is_needed_for_writing_leaves_reading(closed: Path) -> None:
    put_meta(closed, layout.WRITE_FEATURES_KEY, b"priorities")
    with pytest.raises(UnsupportedFormatError, match="'priorities'"):
        quelmdb.open(closed)
    with quelmdb.open(closed, readonly=True) as store:
        assert len(store.all()) == 1


@every_way
@pytest.mark.parametrize("value", [None, b"", b"sqlite", b"quelmdb2"])
def test_without_its_identity_it_is_no_store(
    value: bytes | None, options: dict[str, Any], closed: Path
) -> None:
    put_meta(closed, layout.IDENTITY[0], value)
    with pytest.raises(CorruptStoreError, match="identity"):
        quelmdb.open(closed, **options)


_META = [layout.FORMAT_KEY, layout.BYTE_ORDER[0], layout.DURABILITY_KEY, layout.UUID_KEY]
_COUNTERS = [layout.NEXT_ID, layout.NEXT_CLAIM, layout.NEXT_OWNER, layout.NEXT_WORKER]


@pytest.mark.parametrize("value", [None, b"", b"\xff\xfe", b"x" * 9], ids=repr)
@pytest.mark.parametrize("key", _META + _COUNTERS, ids=bytes.decode)
def test_damaged_meta_raises_no_error_but_ours_and_is_found(
    key: bytes, value: bytes | None, closed: Path
) -> None:
    put_meta(closed, key, value)
    try:
        with quelmdb.open(closed) as store:
            for use in (*STORE_READS.values(), *WRITES.values()):
                with suppress(QuelmdbError):
                    use(store)
            assert store.check() != []
    except (CorruptStoreError, UnsupportedFormatError):
        pass


# --- Rights -------------------------------------------------------------------


@pytest.fixture
def open_to_all() -> Iterator[Path]:
    """A directory that every user can reach."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


def _as_nobody(open_store: Callable[[], object]) -> None:
    def work() -> None:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        with pytest.raises(StorePermissionError) as caught:
            open_store()
        assert caught.value.path is not None

    in_child(work)


@needs_root
@every_way
def test_without_permission_for_the_directory_it_is_refused(
    options: dict[str, Any], open_to_all: Path
) -> None:
    path = open_to_all / "jobs.qdb"
    quelmdb.open(path).close()
    _as_nobody(lambda: quelmdb.open(path, **options))


@needs_root
@every_way
@pytest.mark.parametrize("name", ["owners.lock", "000001", "000001/data.mdb", "000001/lock.mdb"])
def test_without_permission_for_a_file_it_is_refused(
    name: str, options: dict[str, Any], open_to_all: Path
) -> None:
    path = open_to_all / "jobs.qdb"
    quelmdb.open(path).close()
    for entry in (path, *path.rglob("*")):
        entry.chmod(0o777)
    (path / name).chmod(0o700)
    _as_nobody(lambda: quelmdb.open(path, **options))


@needs_root
def test_without_permission_for_the_parent_no_store_is_created(open_to_all: Path) -> None:
    _as_nobody(lambda: quelmdb.open(open_to_all / "jobs.qdb"))
    (open_to_all / "empty").mkdir(0o755)
    _as_nobody(lambda: quelmdb.open(open_to_all / "empty"))
    assert _tree(open_to_all) == {"empty": None}


# --- Reading only -------------------------------------------------------------


def _digest(path: Path) -> str:
    return hashlib.sha256(data_file(path).read_bytes()).hexdigest()


@pytest.mark.parametrize("write", WRITES)
def test_reading_only_refuses_every_write(write: str, closed: Path) -> None:
    before = _digest(closed)
    with quelmdb.open(closed, readonly=True) as store:
        with pytest.raises(ReadOnlyStoreError):
            WRITES[write](store)
        assert store.check() == []
        assert len(store.all()) == 1
    assert _digest(closed) == before


def test_looking_changes_no_byte(closed: Path) -> None:
    before = _digest(closed), data_file(closed).stat().st_mtime_ns
    for _ in range(2):
        with quelmdb.open(closed, readonly=True) as store:
            for look in STORE_READS.values():
                look(store)
    assert (_digest(closed), data_file(closed).stat().st_mtime_ns) == before


@needs_mounts
def test_a_read_only_file_system_can_be_looked_at_and_not_written(closed: Path) -> None:
    def work() -> None:
        enter_private_mounts()
        mount_read_only(closed)
        for options in ({}, {"create": False}):
            with pytest.raises(ReadOnlyStoreError, match="readonly=True"):
                quelmdb.open(closed, **options)  # type: ignore[arg-type]
        with quelmdb.open(closed, readonly=True) as store:
            for look in STORE_READS.values():
                look(store)
            assert [job.worker for job in store.all()] == ["a"]
            for write in WRITES.values():
                with pytest.raises(ReadOnlyStoreError):
                    write(store)
            assert store.check() == []

    in_child(work)


@needs_mounts
def test_creation_on_a_read_only_file_system_is_refused(tmp_path: Path) -> None:
    def work() -> None:
        enter_private_mounts()
        (tmp_path / "empty").mkdir()
        mount_read_only(tmp_path)
        for name in ("absent", "empty"):
            with pytest.raises(ReadOnlyStoreError):
                quelmdb.open(tmp_path / name)

    in_child(work)
