"""What a store promises of its writes: chosen when it is made, the same for all who open
it; and an ephemeral one after the end of the machine's run."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import lmdb
import pytest
from click.testing import CliRunner

import quelmdb
from quelmdb import (
    CorruptStoreError,
    DurabilityError,
    Job,
    ReadOnlyStoreError,
    StoreFullError,
    StoreNotFoundError,
    UnsupportedFileSystemError,
    boot,
    directory,
    engine,
    filesystem,
    layout,
    opening,
)
from quelmdb.durability import LARGEST_CAPACITY, SMALLEST_CAPACITY, Wanted, wanted
from quelmdb.filesystem import MIB
from tests.children import Child, ChildDiedError, in_child, in_children
from tests.damage import data_file, raw, used_bytes
from tools import app

pytest_plugins = ["tests.fixtures"]

CAPACITY = 4 * MIB
EPHEMERAL: dict[str, Any] = {"durability": "ephemeral", "capacity": CAPACITY}
FULL: dict[str, Any] = {"durability": "full"}
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


def _mark(path: Path) -> Path:
    return path / layout.BOOT_FILE


def _restart(path: Path) -> None:
    """As after a restart of the machine: the store was last opened before it."""
    assert _mark(path).read_bytes() == boot.boot_id()
    _mark(path).write_bytes(LAST_RUN)


def _state(path: Path) -> dict[str, bytes]:
    """The content of every file but that of LMDB's locks, which every reader writes to, and
    the number of the wake-up, which is another one for all who open."""
    return {
        str(file): file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file() and file.name not in (layout.LOCK_FILE, layout.WAKEUP_FILE)
    }


def _allocated(path: Path) -> int:
    return data_file(path).stat().st_blocks * 512


def _size(path: Path) -> int:
    return data_file(path).stat().st_size


def _durability(path: Path, **options: Any) -> str:
    with quelmdb.open(path, **options) as store:
        return store.info().durability


# --- What is chosen -----------------------------------------------------------


def test_a_store_is_full_where_nothing_else_is_asked_for(path: Path) -> None:
    assert _durability(path) == "full"
    assert not _mark(path).exists()


@pytest.mark.parametrize("chosen", [FULL, EPHEMERAL], ids=["full", "ephemeral"])
def test_what_is_chosen_is_recorded_and_taken_by_who_names_nothing(
    chosen: dict[str, Any], path: Path
) -> None:
    name = chosen["durability"]
    assert _durability(path, **chosen) == name
    assert _durability(path) == name
    assert _durability(path, readonly=True) == name
    assert in_child(_durability, path) == name
    with quelmdb.open(path) as one, quelmdb.open(path) as other:
        assert one.info().durability == other.info().durability == name
        assert in_child(_durability, path) == name
        other.insert(Job("a"))
        assert len(one.all()) == 1


@pytest.mark.parametrize("chosen", [FULL, EPHEMERAL], ids=["full", "ephemeral"])
def test_the_same_may_be_named_again(chosen: dict[str, Any], path: Path) -> None:
    for _ in range(2):
        with quelmdb.open(path, **chosen), quelmdb.open(path, **chosen) as store:
            store.insert(Job("a"))
        assert _durability(path, readonly=True, **chosen) == chosen["durability"]


def test_the_command_line_shows_it(ephemeral: Path, tmp_path: Path) -> None:
    quelmdb.open(tmp_path / "full.qdb").close()
    for path, name in ((ephemeral, "ephemeral"), (tmp_path / "full.qdb", "full")):
        result = CliRunner().invoke(app.commands, ["info", str(path)])
        assert result.exit_code == 0, result.stderr
        assert f"durability\t{name}" in result.stdout.splitlines()


# --- What is refused ----------------------------------------------------------

MISMATCHES: list[tuple[dict[str, Any], dict[str, Any], tuple[object, object], list[str]]] = [
    (FULL, {"durability": "ephemeral"}, ("ephemeral", "full"), ["'full'", "'ephemeral'"]),
    (FULL, EPHEMERAL, ("ephemeral", "full"), ["'full'", "'ephemeral'"]),
    (FULL, {"capacity": CAPACITY}, (CAPACITY, None), ["'full'", "4,194,304"]),
    (EPHEMERAL, FULL, ("full", "ephemeral"), ["'full'", "'ephemeral'"]),
    (
        EPHEMERAL,
        {"capacity": 2 * CAPACITY},
        (2 * CAPACITY, CAPACITY),
        ["4,194,304", "8,388,608"],
    ),
    (
        EPHEMERAL,
        {"durability": "ephemeral", "capacity": CAPACITY + 1},
        (CAPACITY + 2**16, CAPACITY),
        ["4,194,304", "4,259,840"],
    ),
]
every_mismatch = pytest.mark.parametrize(("chosen", "asked", "facts", "words"), MISMATCHES)


@every_mismatch
@writable_and_readonly
def test_a_mismatch_is_refused_and_changes_nothing(
    chosen: dict[str, Any],
    asked: dict[str, Any],
    facts: tuple[object, object],
    words: list[str],
    readonly: bool,
    path: Path,
) -> None:
    with quelmdb.open(path, **chosen) as store:
        store.insert(Job("a"))
    before = _state(path)
    with pytest.raises(DurabilityError) as caught:
        quelmdb.open(path, readonly=readonly, **asked)
    assert caught.value.path == str(path)
    assert (caught.value.expected, caught.value.found) == facts
    assert all(word in str(caught.value) for word in [str(path), *words])
    assert _state(path) == before
    with quelmdb.open(path) as store:
        store.insert(Job("a"))
        assert len(store.all()) == 2


@every_mismatch
def test_a_mismatch_where_the_store_is_open_already_leaves_its_users_alone(
    chosen: dict[str, Any],
    asked: dict[str, Any],
    facts: tuple[object, object],
    words: list[str],
    path: Path,
) -> None:
    with quelmdb.open(path, **chosen) as one:
        with quelmdb.open(path) as other:
            for _ in range(3):
                with pytest.raises(DurabilityError):
                    quelmdb.open(path, **asked)
            other.insert(Job("a"))
        one.insert(Job("a"))
        with pytest.raises(DurabilityError):
            quelmdb.open(path, **asked)
        one.insert(Job("a"))
    with quelmdb.open(path, readonly=True) as store:  # refused where it were still open
        assert len(store.all()) == 3


@pytest.mark.parametrize("name", ["", "weak", "FULL", b"full", 1, True])
def test_an_unknown_durability_is_refused(name: Any, tmp_path: Path) -> None:
    with pytest.raises(DurabilityError, match="known are 'full', 'ephemeral'") as caught:
        quelmdb.open(tmp_path / "jobs.qdb", durability=name)
    assert caught.value.found == name
    assert not (tmp_path / "jobs.qdb").exists()


@pytest.mark.parametrize("kind", ["btrfs", "zfs", "bcachefs", "fuse.zfs", "nilfs2"])
def test_a_copy_on_write_file_system_carries_full_stores_alone(
    kind: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = path.with_name("moved")
    quelmdb.open(moved, **EPHEMERAL).close()
    mounts = path.with_name("mountinfo")
    mounts.write_text(f"40 22 0:40 / {path.parent} rw shared:2 - {kind} source rw\n")
    monkeypatch.setattr(filesystem, "MOUNTS", mounts)
    with pytest.raises(UnsupportedFileSystemError, match="copies on write") as caught:
        quelmdb.open(path, **EPHEMERAL)
    assert caught.value.found == kind
    assert not path.exists()
    with pytest.raises(UnsupportedFileSystemError):
        quelmdb.open(moved)
    assert _durability(moved, readonly=True) == "ephemeral"
    assert _durability(path) == "full"


# --- Capacity -----------------------------------------------------------------


def test_the_capacity_is_1_gib_where_none_is_named() -> None:
    assert wanted("ephemeral", None).for_new() == ("ephemeral", 2**30)


def test_the_capacity_that_is_not_named_is_allocated(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quelmdb.durability.DEFAULT_CAPACITY", 2 * CAPACITY)
    quelmdb.open(path, durability="ephemeral").close()
    assert _size(path) == 2 * CAPACITY


@pytest.mark.parametrize(
    ("capacity", "rounded"),
    [
        (SMALLEST_CAPACITY, SMALLEST_CAPACITY),
        (CAPACITY + 1, CAPACITY + 2**16),
        (CAPACITY + 2**16, CAPACITY + 2**16),
    ],
)
def test_a_capacity_is_rounded_up_to_64_kib(capacity: int, rounded: int, path: Path) -> None:
    with quelmdb.open(path, durability="ephemeral", capacity=capacity) as store:
        assert store.info().file_bytes == _size(path) == rounded
    for same in (capacity, rounded, None):
        with quelmdb.open(path, durability="ephemeral", capacity=same) as store:
            store.insert(Job("a"))
        quelmdb.open(path, capacity=same).close()


def test_the_largest_capacity_is_a_tebibyte() -> None:
    assert wanted("ephemeral", LARGEST_CAPACITY) == Wanted("ephemeral", 2**40)


@pytest.mark.parametrize(
    "capacity",
    [0, -1, 1, SMALLEST_CAPACITY - 1, LARGEST_CAPACITY + 1, 2**63, True, 2.0**23, "8M", b"8"],
)
@pytest.mark.parametrize("durability", ["ephemeral", None])
def test_a_capacity_that_cannot_be_is_refused(
    durability: Any, capacity: Any, tmp_path: Path
) -> None:
    with pytest.raises(DurabilityError, match="between 4,194,304 and 1,099,511,627,776") as caught:
        quelmdb.open(tmp_path / "jobs.qdb", durability=durability, capacity=capacity)
    assert caught.value.found == capacity
    assert not (tmp_path / "jobs.qdb").exists()


@pytest.mark.parametrize("durability", ["full", None])
def test_a_full_store_is_not_made_with_a_capacity(durability: Any, tmp_path: Path) -> None:
    with pytest.raises(DurabilityError, match="only an ephemeral store has a capacity"):
        quelmdb.open(tmp_path / "jobs.qdb", durability=durability, capacity=CAPACITY)
    assert not (tmp_path / "jobs.qdb").exists()


# --- Its file -----------------------------------------------------------------


def test_all_of_the_capacity_is_allocated_when_the_store_is_made(path: Path) -> None:
    with quelmdb.open(path, **EPHEMERAL) as store:
        assert _size(path) == CAPACITY
        assert _allocated(path) >= CAPACITY
        store.insert_many(Job("a", b"x" * 200) for _ in range(1000))
    assert _size(path) == CAPACITY


@pytest.mark.parametrize("length", ["whole", "used part"])
def test_a_copy_with_holes_is_filled_when_it_is_opened(
    length: str, ephemeral: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.qdb"
    shutil.copytree(ephemeral, copy)
    content = data_file(ephemeral).read_bytes()[: used_bytes(ephemeral)]
    with data_file(copy).open("wb") as file:
        file.write(content)
        file.truncate(CAPACITY if length == "whole" else len(content))
    assert _allocated(copy) < CAPACITY
    with quelmdb.open(copy, readonly=True) as store:
        assert len(store.all()) == 1000
    with quelmdb.open(copy) as store:
        assert _size(copy) == CAPACITY
        assert _allocated(copy) >= CAPACITY
        store.insert_many(Job("a", b"x" * 200) for _ in range(1000))
        assert store.check() == []


@pytest.mark.parametrize("options", [{}, {"readonly": True}, EPHEMERAL], ids=str)
def test_a_second_process_never_resizes_it(options: dict[str, Any], ephemeral: Path) -> None:
    def work() -> None:
        with quelmdb.open(ephemeral, **options) as store:
            with suppress(ReadOnlyStoreError):
                store.insert(Job("b"))
            assert _size(ephemeral) == CAPACITY

    with quelmdb.open(ephemeral) as store:
        in_child(work)
        assert _size(ephemeral) == CAPACITY
        store.insert_many(Job("a", b"x" * 200) for _ in range(1000))


@pytest.mark.parametrize("asked", [FULL, {"capacity": 2 * CAPACITY}, {"capacity": 2**40}], ids=str)
def test_nor_does_one_that_asks_for_another_size(asked: dict[str, Any], ephemeral: Path) -> None:
    def work() -> None:
        with pytest.raises(DurabilityError):
            quelmdb.open(ephemeral, **asked)

    with quelmdb.open(ephemeral) as store:
        in_child(work)
        assert _size(ephemeral) == CAPACITY
        store.insert_many(Job("a", b"x" * 200) for _ in range(1000))


# --- Creation -----------------------------------------------------------------

STEPS: dict[str, tuple[Any, str]] = {
    "the mark": (boot, "record"),
    "the environment": (directory, "create_engine"),
    "the allocation": (engine, "allocate_all"),
    "the sync": (directory, "sync_directory"),
    "the new name": (Path, "rename"),
}
every_step = pytest.mark.parametrize(
    ("step", "when"),
    [(step, when) for step in STEPS for when in ("before", "after")][:-1],
)


def _interrupt(patch: pytest.MonkeyPatch, step: str, when: str, how: Callable[[], object]) -> None:
    """Runs `how` before or after a step of a creation."""
    place, name = STEPS[step]
    does = getattr(place, name)

    def interrupted(*arguments: Any, **options: Any) -> Any:
        if when == "before":
            how()
        result = does(*arguments, **options)
        how()
        return result

    patch.setattr(place, name, interrupted)


@every_step
@pytest.mark.parametrize("then", [FULL, EPHEMERAL], ids=["full", "ephemeral"])
def test_a_creator_that_is_killed_leaves_nothing_half_made(
    step: str, when: str, then: dict[str, Any], path: Path
) -> None:
    def die() -> None:
        _interrupt(pytest.MonkeyPatch(), step, when, lambda: os._exit(9))
        quelmdb.open(path, **EPHEMERAL)

    with pytest.raises(ChildDiedError) as caught:
        in_child(die)
    assert caught.value.exit_code == 9
    looking: list[dict[str, Any]] = [{"create": False}, {"readonly": True}]
    for options in looking:
        with pytest.raises(StoreNotFoundError):
            quelmdb.open(path, **options)
    with quelmdb.open(path, **then) as store:
        assert store.info().durability == then["durability"]
        store.insert(Job("a"))
    names = {entry.name for entry in path.iterdir()}
    marks = {layout.BOOT_FILE} if then is EPHEMERAL else set()
    assert (
        names
        == {layout.generation_name(layout.FIRST_GENERATION), layout.OWNERS_FILE, layout.WAKEUP_FILE}
        | marks
    )


def test_a_creator_that_is_killed_once_the_store_has_its_name_has_made_it(path: Path) -> None:
    def die() -> None:
        _interrupt(pytest.MonkeyPatch(), "the new name", "after", lambda: os._exit(9))
        quelmdb.open(path, **EPHEMERAL)

    with pytest.raises(ChildDiedError):
        in_child(die)
    with pytest.raises(DurabilityError):
        quelmdb.open(path, **FULL)
    with quelmdb.open(path) as store:
        assert store.info().durability == "ephemeral"
        store.insert(Job("a"))


@every_step
def test_a_creation_that_fails_leaves_nothing_behind(
    step: str, when: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        _interrupt(patch, step, when, fail)
        with pytest.raises(StoreFullError, match="No space left"):
            quelmdb.open(path, **EPHEMERAL)
    assert [entry.name for entry in path.iterdir()] == [layout.OWNERS_FILE]
    with quelmdb.open(path, **FULL) as store:
        store.insert(Job("a"))


def test_an_interrupt_behind_the_new_name_leaves_a_whole_store(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        _interrupt(patch, "the new name", "after", interrupt)
        with pytest.raises(KeyboardInterrupt):
            quelmdb.open(path, **EPHEMERAL)
    with quelmdb.open(path, **EPHEMERAL) as store:
        store.insert(Job("a"))


def test_of_creators_that_want_different_stores_one_has_its_way(path: Path) -> None:
    def create(number: int) -> str:
        asked = (FULL, EPHEMERAL)[number % 2]
        try:
            with quelmdb.open(path, **asked) as store:
                store.insert(Job("a"))
                return store.info().durability
        except DurabilityError as error:
            return f"not {error.expected}"

    told = in_children(4, create, method="fork")
    made = _durability(path)
    other = "full" if made == "ephemeral" else "ephemeral"
    assert sorted(told) == sorted([made, made, f"not {other}", f"not {other}"])
    assert _mark(path).exists() == (made == "ephemeral")


# --- A process that dies ------------------------------------------------------


def test_what_a_killed_process_had_acknowledged_is_there(path: Path) -> None:
    def work(pipe: Connection) -> None:
        with quelmdb.open(path, **EPHEMERAL) as store:
            while True:
                inserted = store.insert(Job("a", b"x" * 300)).id
                (job,) = store.claim("a")
                pipe.send((inserted, store.complete(job).id))

    with Child(work) as child:
        told = [child.receive() for _ in range(200)]
        child.kill()
        while child.pipe.poll():
            with suppress(EOFError):
                told.append(child.pipe.recv())
                continue
            break
    with quelmdb.open(path) as store:
        assert {inserted for inserted, _ in told} <= set(store.all().ids())
        assert {completed for _, completed in told} <= set(store.completed().ids())
        assert len(told) >= 200


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
    _restart(ephemeral)
    with quelmdb.open(ephemeral) as store:
        assert verified[:2] == ["verify", "open"]
        assert _mark(ephemeral).read_bytes() == boot.boot_id()
        assert len(store.completed()) == 100
        store.complete_many(store.claim(limit=50))
    quelmdb.open(ephemeral).close()
    assert verified.count("verify") == 1


def test_a_reader_verifies_it_too_and_writes_nothing(ephemeral: Path, verified: list[str]) -> None:
    _restart(ephemeral)
    before = _state(ephemeral)
    for count in (1, 2):
        with quelmdb.open(ephemeral, readonly=True) as store:
            assert len(store.all()) == 1000
        assert verified.count("verify") == count
    assert verified[:2] == ["verify", "open"]
    assert _state(ephemeral) == before


def _damage_a_page(path: Path) -> None:
    with data_file(path).open("r+b") as file:
        file.seek(used_bytes(path) // 4096 // 2 * 4096)
        file.write(b"\xa5" * 4096)


def _damage_everything(path: Path) -> None:
    size = _size(path)
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


def _lose_the_identity(path: Path) -> None:
    with raw(path, map_size=0) as content:
        content.transaction.delete(layout.IDENTITY[0], db=content.databases.meta)


@writable_and_readonly
@pytest.mark.parametrize(
    "damage", [_damage_a_page, _damage_everything, _cut, _empty, _lose_an_entry]
)
def test_a_store_that_did_not_survive_a_restart_is_refused_and_left_as_it_is(
    damage: Callable[[Path], None], readonly: bool, spoilt: Path, verified: list[str]
) -> None:
    damage(spoilt)
    _restart(spoilt)
    before = _state(spoilt)
    verified.clear()
    for _ in range(2):
        with pytest.raises(CorruptStoreError, match="delete the directory") as caught:
            quelmdb.open(spoilt, readonly=readonly)
        assert caught.value.path == str(spoilt)
        assert "did not survive" in str(caught.value)
    assert _state(spoilt) == before
    if damage is not _lose_an_entry:
        assert "open" not in verified  # LMDB never saw it


def test_what_is_told_of_a_damaged_store_is_a_few_of_its_problems(spoilt: Path) -> None:
    with raw(spoilt, map_size=0) as content:
        for number in range(1, 6):
            content.transaction.delete(layout.pack_number(number), db=content.databases.jobs)
    _restart(spoilt)
    with pytest.raises(CorruptStoreError, match=r"by_status.* and \d+ more; delete the directory"):
        quelmdb.open(spoilt)


def test_where_the_store_is_refused_another_can_be_made_in_its_place(spoilt: Path) -> None:
    _damage_a_page(spoilt)
    _restart(spoilt)
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
    before = _state(spoilt)
    with pytest.raises(CorruptStoreError, match="incomplete"):
        quelmdb.open(spoilt, readonly=readonly)
    assert _state(spoilt) == before


def test_a_mismatch_after_a_restart_is_still_one(ephemeral: Path) -> None:
    _restart(ephemeral)
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

    _restart(ephemeral)
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

    _restart(ephemeral)
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
    assert _mark(ephemeral).read_bytes() == b""
    yield ephemeral
    assert _mark(ephemeral).read_bytes() == b""


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


# --- The mark -----------------------------------------------------------------


@writable_and_readonly
def test_an_ephemeral_store_without_its_mark_is_a_clear_error(
    readonly: bool, ephemeral: Path, verified: list[str]
) -> None:
    _mark(ephemeral).unlink()
    before = _state(ephemeral)
    with pytest.raises(CorruptStoreError, match="make an empty one") as caught:
        quelmdb.open(ephemeral, readonly=readonly)
    assert (caught.value.path, caught.value.found) == (str(ephemeral), "ephemeral")
    assert _state(ephemeral) == before
    _mark(ephemeral).touch()
    verified.clear()
    assert _durability(ephemeral) == "ephemeral"
    assert verified[:2] == ["verify", "open"]


@writable_and_readonly
@pytest.mark.parametrize("run", ["this", "last"])
def test_a_mark_beside_a_full_store_is_a_clear_error(run: str, readonly: bool, path: Path) -> None:
    with quelmdb.open(path) as store:
        store.insert(Job("a"))
    _mark(path).write_bytes(boot.boot_id() if run == "this" else LAST_RUN)
    before = _state(path)
    with pytest.raises(CorruptStoreError, match="delete it") as caught:
        quelmdb.open(path, readonly=readonly)
    assert (caught.value.path, caught.value.found) == (str(path), "full")
    assert _state(path) == before  # LMDB would have made it as large as its map
    _mark(path).unlink()
    assert _durability(path) == "full"


def test_a_mark_alone_is_no_store(path: Path) -> None:
    path.mkdir()
    boot.record(_mark(path))
    with pytest.raises(StoreNotFoundError):
        quelmdb.open(path, create=False)
    assert _durability(path) == "full"
    assert not _mark(path).exists()


def test_an_ephemeral_store_without_identity_is_refused_before_it_is_written_to(
    spoilt: Path,
) -> None:
    _lose_the_identity(spoilt)
    before = _state(spoilt)
    with pytest.raises(CorruptStoreError, match="no identity"):
        quelmdb.open(spoilt)
    assert _state(spoilt) == before


def test_a_durability_that_nobody_knows_is_refused(spoilt: Path) -> None:
    with raw(spoilt, map_size=0) as content:
        content.transaction.put(layout.DURABILITY_KEY, b"weak", db=content.databases.meta)
    with pytest.raises(quelmdb.UnsupportedFormatError, match="'weak'"):
        quelmdb.open(spoilt)
