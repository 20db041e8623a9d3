"""Files that are no data file of a store, or a part of one: an error, and nothing is changed."""

from __future__ import annotations

import random
import sys
from array import array
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final

import lmdb
import pytest

import quelmdb
from quelmdb import CorruptStoreError, Job, StoreNotFoundError, layout
from tests.children import in_child
from tests.damage import damaged_copy, data_file
from tests.faults.figures import Tell
from tests.faults.specimens import pages_in_use

pytest_plugins = ["tests.fixtures"]

_PAGE: Final = 4096


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("damage") / "jobs.qdb"
    with quelmdb.open(path) as store:
        store.insert_many(Job(f"worker {n % 5}", {"n": n}) for n in range(100))
        store.complete_many(store.claim(limit=20))
        store.insert_many(Job("big", bytes(range(256)) * 30) for _ in range(5))
        store.destroy_many(range(20, 30))
        assert store.check() == []
    return path


# --- Files that are none ------------------------------------------------------


def _empty(data: bytearray) -> None:
    data.clear()


def _zeros(data: bytearray) -> None:
    data[:] = bytes(len(data))


def _noise(data: bytearray) -> None:
    data[:] = random.Random(1).randbytes(len(data))


def _text(data: bytearray) -> None:
    data[:] = b"SQLite format 3\0" * 1000


def _no_metas(data: bytearray) -> None:
    data[: 2 * _PAGE] = bytes(2 * _PAGE)


@pytest.mark.parametrize("readonly", [False, True])
@pytest.mark.parametrize("damage", [_empty, _zeros, _noise, _text, _no_metas])
def test_a_file_that_is_no_data_file_is_an_error(
    damage: Callable[[bytearray], None], readonly: bool, closed: Path, tmp_path: Path
) -> None:
    copy = damaged_copy(closed, tmp_path / "copy", damage)
    (copy / "owners.lock").touch()
    before = data_file(copy).read_bytes()
    with pytest.raises(CorruptStoreError) as caught:
        in_child(lambda: quelmdb.open(copy, readonly=readonly))
    assert str(copy) in (caught.value.path or "")
    assert data_file(copy).read_bytes() == before


def test_an_environment_of_others_is_no_store(tmp_path: Path) -> None:
    """With a database called meta, too."""
    for names in ([], [b"jobs"], [b"meta"]):
        path = tmp_path / f"{len(names)}{names}"
        (path / "000001").mkdir(parents=True)
        with lmdb.open(str(path / "000001"), max_dbs=9, lib_version=0) as environment:
            for name in names:
                environment.open_db(name)
        with pytest.raises(CorruptStoreError):
            quelmdb.open(path)


def test_a_store_without_its_data_file_is_never_made_anew(path: Path) -> None:
    quelmdb.open(path).close()
    content = data_file(path).read_bytes()
    data_file(path).unlink()
    for _ in range(2):
        with pytest.raises((quelmdb.NotAStoreError, StoreNotFoundError)):
            quelmdb.open(path)
    assert not data_file(path).exists()
    data_file(path).write_bytes(content)


def test_a_store_that_has_lost_a_database_is_damaged(path: Path, tmp_path: Path) -> None:
    """That of options too, without which older stores can be read."""
    quelmdb.open(path).close()
    for name in (layout.JOBS, layout.BY_STATUS, layout.BY_OPTION):
        copy = damaged_copy(path, tmp_path / name.decode(), partial(_forget, name))
        (copy / layout.OWNERS_FILE).touch()
        with pytest.raises(CorruptStoreError):
            quelmdb.open(copy)


def _forget(name: bytes, data: bytearray) -> None:
    """Calls it by another name, as a flipped bit might, wherever it stands."""
    data[:] = data.replace(name, bytes([name[0] ^ 1]) + name[1:])


# --- Truncation ---------------------------------------------------------------


def test_a_truncated_file_is_an_error_at_every_size(
    closed: Path, tmp_path: Path, long: bool, figure: Tell
) -> None:
    whole = (pages_in_use(closed)[-1] + 1) * _PAGE  # those behind are free, and not missed
    sizes = {0, 1, 100, 152, *range(_PAGE, whole, _PAGE if long else 7 * _PAGE)}
    sizes |= {size + by for size in sizes for by in (-1, 1) if size} | {whole - 1}

    def open_and_read(size: int, readonly: bool) -> None:
        copy = damaged_copy(
            closed, tmp_path / "copy", lambda data: data.__delitem__(slice(size, None))
        )
        with quelmdb.open(copy, readonly=readonly) as store:
            list(store.all())

    for size in sorted(sizes):
        for readonly in (False, True):
            with pytest.raises(CorruptStoreError):
                in_child(open_and_read, size, readonly)
    in_child(open_and_read, whole, False)
    figure(f"{len(sizes):,} sizes, opened to be read and to be written: each an error, no SIGBUS")


# --- Order --------------------------------------------------------------------

_LEAF2: Final = 0x22  # the kind of a page with the ids of one key, and nothing else


def _turn_round(data: bytearray) -> None:
    """Has the ids of each such page stand the other way round."""
    for start in range(0, len(data), _PAGE):
        page = data[start : start + _PAGE]
        if int.from_bytes(page[10:12], sys.byteorder) == _LEAF2:
            end = 16 + (int.from_bytes(page[12:14], sys.byteorder) - 16) // 2 * 8
            ids = memoryview(page)[16:end].cast("Q").tolist()
            data[start + 16 : start + end] = array("Q", ids[::-1]).tobytes()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("reverse", [False, True])
def test_indexes_that_are_not_in_order_end_every_listing(reverse: bool, tmp_path: Path) -> None:
    """In an error, or with some of the jobs: `check` tells of it."""
    path = tmp_path / "jobs.qdb"
    statuses = ("completed", "failed", "queued")
    with quelmdb.open(path) as store:
        store.insert_many(Job("a", n, status=statuses[n % 3]) for n in range(12_000))
    copy = damaged_copy(path, tmp_path / "copy", _turn_round)
    with quelmdb.open(copy) as store:
        assert store.check() != []
        for chosen in (statuses, statuses[:2], statuses[:1]):
            for after in (None, 7_500):
                view = store.jobs(*chosen, worker="a", reverse=reverse, after=after)
                for listing in (view, view.ids()):
                    with suppress(CorruptStoreError):
                        assert len(list(islice(listing, 20_000))) < 20_000
