"""A store and its mark belong together: each without the other is refused, and unchanged."""

from __future__ import annotations

from pathlib import Path

import pytest

import quelmdb
from quelmdb import CorruptStoreError, Job, StoreNotFoundError, boot, layout
from tests import ephemerals
from tests.damage import raw
from tests.ephemerals import LAST_RUN, durability_of, mark_of, state_of, writable_and_readonly

pytest_plugins = ["tests.fixtures"]
ephemeral, spoilt, verified = ephemerals.ephemeral, ephemerals.spoilt, ephemerals.verified


# --- After the end of the machine's run ---------------------------------------


def _lose_the_identity(path: Path) -> None:
    with raw(path, map_size=0) as content:
        content.transaction.delete(layout.IDENTITY[0], db=content.databases.meta)


# --- The mark -----------------------------------------------------------------


@writable_and_readonly
def test_an_ephemeral_store_without_its_mark_is_a_clear_error(
    readonly: bool, ephemeral: Path, verified: list[str]
) -> None:
    mark_of(ephemeral).unlink()
    before = state_of(ephemeral)
    with pytest.raises(CorruptStoreError, match="make an empty one") as caught:
        quelmdb.open(ephemeral, readonly=readonly)
    assert (caught.value.path, caught.value.found) == (str(ephemeral), "ephemeral")
    assert state_of(ephemeral) == before
    mark_of(ephemeral).touch()
    verified.clear()
    assert durability_of(ephemeral) == "ephemeral"
    assert verified[:2] == ["verify", "open"]


@writable_and_readonly
@pytest.mark.parametrize("run", ["this", "last"])
def test_a_mark_beside_a_full_store_is_a_clear_error(run: str, readonly: bool, path: Path) -> None:
    with quelmdb.open(path) as store:
        store.insert(Job("a"))
    mark_of(path).write_bytes(boot.boot_id() if run == "this" else LAST_RUN)
    before = state_of(path)
    with pytest.raises(CorruptStoreError, match="delete it") as caught:
        quelmdb.open(path, readonly=readonly)
    assert (caught.value.path, caught.value.found) == (str(path), "full")
    assert state_of(path) == before  # LMDB would have made it as large as its map
    mark_of(path).unlink()
    assert durability_of(path) == "full"


def test_a_mark_alone_is_no_store(path: Path) -> None:
    path.mkdir()
    boot.record(mark_of(path))
    with pytest.raises(StoreNotFoundError):
        quelmdb.open(path, create=False)
    assert durability_of(path) == "full"
    assert not mark_of(path).exists()


def test_an_ephemeral_store_without_identity_is_refused_before_it_is_written_to(
    spoilt: Path,
) -> None:
    _lose_the_identity(spoilt)
    before = state_of(spoilt)
    with pytest.raises(CorruptStoreError, match="no identity"):
        quelmdb.open(spoilt)
    assert state_of(spoilt) == before


def test_a_durability_that_nobody_knows_is_refused(spoilt: Path) -> None:
    with raw(spoilt, map_size=0) as content:
        content.transaction.put(layout.DURABILITY_KEY, b"weak", db=content.databases.meta)
    with pytest.raises(quelmdb.UnsupportedFormatError, match="'weak'"):
        quelmdb.open(spoilt)
