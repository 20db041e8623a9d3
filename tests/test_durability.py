"""What a store promises of its writes is chosen when it is made, the same for all who open it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import quelmdb
from quelmdb import DurabilityError, Job, UnsupportedFileSystemError, filesystem
from tests import ephemerals
from tests.children import in_child
from tests.durabilities import CAPACITY, EPHEMERAL, FULL, by_durability
from tests.ephemerals import durability_of, mark_of, state_of, writable_and_readonly
from tools import app

pytest_plugins = ["tests.fixtures"]
ephemeral = ephemerals.ephemeral


# --- What is chosen -----------------------------------------------------------


def test_a_store_is_full_where_nothing_else_is_asked_for(path: Path) -> None:
    assert durability_of(path) == "full"
    assert not mark_of(path).exists()


@by_durability()
def test_what_is_chosen_is_recorded_and_taken_by_who_names_nothing(
    options: dict[str, Any], path: Path
) -> None:
    name = options["durability"]
    assert durability_of(path, **options) == name
    assert durability_of(path) == name
    assert durability_of(path, readonly=True) == name
    assert in_child(durability_of, path) == name
    with quelmdb.open(path) as one, quelmdb.open(path) as other:
        assert one.info().durability == other.info().durability == name
        assert in_child(durability_of, path) == name
        other.insert(Job("a"))
        assert len(one.all()) == 1


@by_durability()
def test_the_same_may_be_named_again(options: dict[str, Any], path: Path) -> None:
    for _ in range(2):
        with quelmdb.open(path, **options), quelmdb.open(path, **options) as store:
            store.insert(Job("a"))
        assert durability_of(path, readonly=True, **options) == options["durability"]


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
    before = state_of(path)
    with pytest.raises(DurabilityError) as caught:
        quelmdb.open(path, readonly=readonly, **asked)
    assert caught.value.path == str(path)
    assert (caught.value.expected, caught.value.found) == facts
    assert all(word in str(caught.value) for word in [str(path), *words])
    assert state_of(path) == before
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
    assert durability_of(moved, readonly=True) == "ephemeral"
    assert durability_of(path) == "full"
