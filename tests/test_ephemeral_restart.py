"""After a restart of the machine an ephemeral store is verified, and served or refused."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

import quelmdb
from quelmdb import CorruptStoreError, DurabilityError, Job, boot, engine, layout, opening
from tests import ephemerals
from tests.children import Child, in_children
from tests.damage import data_file, raw, used_bytes
from tests.durabilities import EPHEMERAL, FULL
from tests.ephemerals import mark_of, restart, size_of, state_of, writable_and_readonly

pytest_plugins = ["tests.fixtures"]
ephemeral, spoilt, verified = ephemerals.ephemeral, ephemerals.spoilt, ephemerals.verified


# --- After the end of the machine's run ---------------------------------------


def test_in_the_same_run_nothing_is_verified(ephemeral: Path, verified: list[str]) -> None:
    for readonly in (False, True):
        quelmdb.open(ephemeral, readonly=readonly).close()
    assert "verify" not in verified


def test_a_full_store_is_never_verified(path: Path, verified: list[str]) -> None:
    for readonly in (False, True):
        quelmdb.open(path, readonly=readonly).close()
    assert "verify" not in verified


def test_a_store_that_survived_a_restart_is_verified_once_and_served(
    ephemeral: Path, verified: list[str]
) -> None:
    restart(ephemeral)
    with quelmdb.open(ephemeral) as store:
        assert verified[:2] == ["verify", "open"]
        assert mark_of(ephemeral).read_bytes() == boot.boot_id()
        assert len(store.completed()) == 100
        store.complete_many(store.claim(limit=50))
    quelmdb.open(ephemeral).close()
    assert verified.count("verify") == 1


def test_a_reader_verifies_it_too_and_writes_nothing(ephemeral: Path, verified: list[str]) -> None:
    restart(ephemeral)
    before = state_of(ephemeral)
    for count in (1, 2):
        with quelmdb.open(ephemeral, readonly=True) as store:
            assert len(store.all()) == 1000
        assert verified.count("verify") == count
    assert verified[:2] == ["verify", "open"]
    assert state_of(ephemeral) == before


def _damage_a_page(path: Path) -> None:
    with data_file(path).open("r+b") as file:
        file.seek(used_bytes(path) // 4096 // 2 * 4096)
        file.write(b"\xa5" * 4096)


def _damage_everything(path: Path) -> None:
    size = size_of(path)
    data_file(path).write_bytes(bytes(size))


def _cut(path: Path) -> None:
    os.truncate(data_file(path), used_bytes(path) // 2)


def _empty(path: Path) -> None:
    os.truncate(data_file(path), 0)


def _lose_an_entry(path: Path) -> None:
    with raw(path, map_size=0) as content:
        key = layout.pack_number(layout.STATUS_CODES[quelmdb.Status.QUEUED])
        job = layout.pack_number(500)
        assert content.transaction.delete(key, job, db=content.databases.by_status)


@writable_and_readonly
@pytest.mark.parametrize(
    "damage", [_damage_a_page, _damage_everything, _cut, _empty, _lose_an_entry]
)
def test_a_store_that_did_not_survive_a_restart_is_refused_and_left_as_it_is(
    damage: Callable[[Path], None], readonly: bool, spoilt: Path, verified: list[str]
) -> None:
    damage(spoilt)
    restart(spoilt)
    before = state_of(spoilt)
    verified.clear()
    for _ in range(2):
        with pytest.raises(CorruptStoreError, match="delete the directory") as caught:
            quelmdb.open(spoilt, readonly=readonly)
        assert caught.value.path == str(spoilt)
        assert "did not survive" in str(caught.value)
    assert state_of(spoilt) == before
    if damage is not _lose_an_entry:
        assert "open" not in verified  # LMDB never saw it


def test_what_is_told_of_a_damaged_store_is_a_few_of_its_problems(spoilt: Path) -> None:
    with raw(spoilt, map_size=0) as content:
        for number in range(1, 6):
            content.transaction.delete(layout.pack_number(number), db=content.databases.jobs)
    restart(spoilt)
    with pytest.raises(CorruptStoreError, match=r"by_status.* and \d+ more; save what is left"):
        quelmdb.open(spoilt)


def test_where_the_store_is_refused_another_can_be_made_in_its_place(spoilt: Path) -> None:
    _damage_a_page(spoilt)
    restart(spoilt)
    with pytest.raises(CorruptStoreError):
        quelmdb.open(spoilt)
    shutil.rmtree(spoilt)
    with quelmdb.open(spoilt, **EPHEMERAL) as store:
        store.insert(Job("a"))
        assert store.check() == []


@writable_and_readonly
def test_a_cut_file_is_refused_in_the_same_run_too(readonly: bool, spoilt: Path) -> None:
    """LMDB would give it its old size again, with zeros for what is missing."""
    _cut(spoilt)
    before = state_of(spoilt)
    with pytest.raises(CorruptStoreError, match="incomplete"):
        quelmdb.open(spoilt, readonly=readonly)
    assert state_of(spoilt) == before


def test_a_mismatch_after_a_restart_is_still_one(ephemeral: Path) -> None:
    restart(ephemeral)
    with pytest.raises(DurabilityError):
        quelmdb.open(ephemeral, **FULL)
    assert len(quelmdb.open(ephemeral).all()) == 1000
    quelmdb.open(ephemeral).close()


def test_processes_that_open_it_after_a_restart_at_once_all_work(ephemeral: Path) -> None:
    def work(number: int) -> int:
        told: list[int] = []
        verify = engine.structural_problems

        def tell(generation: Path) -> list[str]:
            told.append(1)
            return verify(generation)

        pytest.MonkeyPatch().setattr(opening, "structural_problems", tell)
        with quelmdb.open(ephemeral) as store:
            for _ in range(50):
                store.insert(Job("b", number))
        return len(told)

    restart(ephemeral)
    assert sum(in_children(4, work, method="fork")) == 1
    with quelmdb.open(ephemeral) as store:
        assert len(store.all("b")) == 200


def test_writers_wait_while_a_reader_verifies(ephemeral: Path) -> None:
    """Else they would change the pages that it looks at."""

    def read(pipe: Connection) -> int:
        verify = engine.structural_problems

        def slowly(generation: Path) -> list[str]:
            pipe.send("begun")
            pipe.recv()
            return verify(generation)

        pytest.MonkeyPatch().setattr(opening, "structural_problems", slowly)
        with quelmdb.open(ephemeral, readonly=True) as store:
            return len(store.all())

    def write(pipe: Connection) -> int:
        with quelmdb.open(ephemeral) as store:
            return store.insert(Job("b")).id or 0

    restart(ephemeral)
    with Child(read) as reader:
        assert reader.receive() == "begun"
        with Child(write) as writer:
            assert not writer.pipe.poll(0.05)
            reader.send()
            assert reader.receive() == 1000
            assert writer.receive() == 1001


# --- Where the run of the machine is not known --------------------------------


@pytest.fixture
def unknown_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    missing = tmp_path / "no boot_id"
    monkeypatch.setattr(boot, "BOOT_ID", missing)
    return missing


@pytest.fixture
def nowhere(unknown_run: Path, ephemeral: Path) -> Iterator[Path]:
    """A store that was made where the run of the machine is not known."""
    assert mark_of(ephemeral).read_bytes() == b""
    yield ephemeral
    assert mark_of(ephemeral).read_bytes() == b""


def test_where_the_run_is_not_known_each_first_opener_verifies(
    nowhere: Path, verified: list[str]
) -> None:
    for count in (1, 2):
        with quelmdb.open(nowhere) as store, quelmdb.open(nowhere):
            assert verified.count("verify") == count
            store.insert(Job("a"))
    quelmdb.open(nowhere, readonly=True).close()
    assert verified.count("verify") == 3


def test_where_the_run_is_not_known_a_damaged_store_is_refused(
    spoilt: Path, unknown_run: Path
) -> None:
    _damage_a_page(spoilt)
    for readonly in (False, True):
        with pytest.raises(CorruptStoreError, match="delete the directory"):
            quelmdb.open(spoilt, readonly=readonly)


def test_where_the_run_is_not_known_nobody_verifies_what_others_write_to(nowhere: Path) -> None:
    """Pages change under the look, which would take that for damage."""

    def write(pipe: Connection) -> None:
        with quelmdb.open(nowhere) as store:
            pipe.send("open")
            while not pipe.poll():
                store.insert_many([Job("b", b"x" * 300)] * 50)
                store.destroy_many(list(store.all("b").ids())[:50])

    with Child(write) as one, Child(write) as other:
        one.receive()
        other.receive()
        for number in range(10):
            quelmdb.open(nowhere, readonly=number % 2 == 0).close()
        one.send()
        one.receive()
        for number in range(10):
            quelmdb.open(nowhere, readonly=number % 2 == 0).close()
        other.send()
        other.receive()
