"""A creation of an ephemeral store that ends anywhere has made all of it or nothing."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import quelmdb
from quelmdb import (
    DurabilityError,
    Job,
    StoreFullError,
    StoreNotFoundError,
    boot,
    directory,
    engine,
    layout,
)
from tests.children import ChildDiedError, in_child, in_children
from tests.durabilities import EPHEMERAL, FULL
from tests.ephemerals import durability_of, mark_of

pytest_plugins = ["tests.fixtures"]

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
    made = durability_of(path)
    other = "full" if made == "ephemeral" else "ephemeral"
    assert sorted(told) == sorted([made, made, f"not {other}", f"not {other}"])
    assert mark_of(path).exists() == (made == "ephemeral")
