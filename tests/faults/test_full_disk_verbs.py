"""A disk, or a capacity, that ends at any page of any verb: it is an error that says so, all
is as it was, and where there is space again the same verb succeeds."""

from __future__ import annotations

import math
import resource
import shutil
from pathlib import Path

import pytest

import quelmdb
from quelmdb import Job, Store, StoreFullError
from tests.children import in_child
from tests.durabilities import DURABILITIES, EPHEMERAL
from tests.faults.every_verb import VERBS, Verb, all_of, assert_none_lost, prepared, seed
from tests.faults.figures import Tell
from tests.faults.seeds import seeded
from tests.faults.smalldisk import (
    PAGE,
    Ballast,
    assert_tells,
    burn,
    fill_to,
    limit_file_size,
    run_on_disk,
)
from tests.mounts import needs_mounts

pytest_plugins = ["tests.fixtures"]

_KEPT: int = 1600  # pages, enough for a full store to let inserts in: they find them taken
_MOST: int = 400  # pages that a verb takes, at most
_STEP: int = 4  # pages, of the short form


Stored = tuple[list[Job], list[str | None]]


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for the snapshots that keep pages here."""
    monkeypatch.setattr("quelmdb.transactions._PATIENCE_SECONDS", 0.0)


def _fails(
    store: Store, verb: Verb, jobs: list[Job], before: Stored, *, check: bool = True
) -> bool:
    """Whether there is no room for the verb, of which nothing is to be found then."""
    try:
        verb.act(store, jobs)
    except StoreFullError as error:
        assert_tells(
            error, store.path, "full" if store.info().durability == "ephemeral" else "space"
        )
        if verb.steps:  # the first may have been made
            assert_none_lost(before[0], store.all())
        else:
            assert all_of(store) == before
        if check:
            assert store.check() == []
        return True
    return False


def _refused_on_a_disk(path: Path, verb: Verb, step: int) -> int:
    """Gives the disk page by page until the verb succeeds, and returns how many times it did
    not. What LMDB has written of one that failed keeps its place behind the used part of the
    file: each try gets further."""
    with quelmdb.open(path) as store:
        jobs = prepared(store, verb)
        ballast = Ballast(path)
        with burn(store, _KEPT):
            before = all_of(store)
            ballast.leave(0)
            refused = 0
            while _fails(store, verb, jobs, before, check=step == 1):
                refused += 1
                assert refused < _MOST
                ballast.give(step)
            assert store.check() == []
            ballast.remove()
    return refused


def _refused_in_a_file(path: Path, verb: Verb, step: int) -> int:
    """Tries the verb with more and more pages that can be used, until it succeeds, and returns
    how many times it did not. When the snapshot that keeps the others has ended, it does."""
    refused = 0
    for left in range(0, _MOST, step):
        copy = shutil.copytree(path, path.with_name("copy.qdb"))
        with quelmdb.open(copy) as store:
            jobs = prepared(store, verb)
            with burn(store, 400):
                fill_to(store, left)
                before = all_of(store)
                if not _fails(store, verb, jobs, before, check=step == 1):
                    break
            assert not _fails(store, verb, jobs, before)
            assert store.check() == []
        refused += 1
        shutil.rmtree(copy)
    return refused


@needs_mounts
@pytest.mark.parametrize("durability", DURABILITIES)
def test_a_disk_or_a_capacity_that_ends_at_any_page_of_a_verb_leaves_all_as_it_was(
    durability: str, long: bool, tmp_path: Path, figure: Tell
) -> None:
    tried = _refused_on_a_disk if durability == "full" else _refused_in_a_file

    def test(path: Path) -> int:
        seed(path, **DURABILITIES[durability])
        refused = 0
        for name, verb in VERBS.items():
            copy = shutil.copytree(path, path.with_name("a verb.qdb"))
            try:
                refusals = tried(copy, verb, 1 if long else _STEP)
                assert refusals
            except BaseException as error:
                error.add_note(f"in {name}")
                raise
            refused += refusals
            shutil.rmtree(path.parent / "copy.qdb", ignore_errors=True)
            shutil.rmtree(copy)
        return refused

    refused = run_on_disk(tmp_path, 32, test)
    figure(f"{durability}: {len(VERBS)} verbs, refused at {refused} pages and made with one more")


@needs_mounts
def test_a_limit_of_file_size_that_ends_at_any_byte_of_a_verb_is_as_a_full_disk(
    long: bool, tmp_path: Path, figure: Tell
) -> None:
    """RLIMIT_FSIZE, `ulimit -f`. LMDB is told of a short write by an I/O error."""
    rng = seeded()

    def test(path: Path) -> int:
        seed(path)
        copy = path.with_name("copy.qdb")
        refused = 0
        for name, verb in VERBS.items():
            shutil.copytree(path, copy)
            with quelmdb.open(copy) as store:
                jobs = prepared(store, verb)
                with burn(store, _KEPT):
                    before = all_of(store)
                    used = store.info().used_bytes
                    for limit in range(used, used + 3 * PAGE, 64 if long else PAGE // 2):
                        limit_file_size(limit + rng.choice((0, 1, 63)))
                        try:
                            assert _fails(store, verb, jobs, before, check=long), name
                        finally:
                            limit_file_size(resource.RLIM_INFINITY)
                        refused += 1
                    assert not _fails(store, verb, jobs, before), name
                    assert store.check() == []
            shutil.rmtree(copy)
        return refused

    refused = run_on_disk(tmp_path, 32, test)
    figure(f"{len(VERBS)} verbs refused under {refused} limits of the size of a file")


@needs_mounts
def test_a_claim_that_cannot_rescue_any_more_hands_over_what_it_has(
    long: bool, tmp_path: Path, figure: Tell
) -> None:
    """Its first transaction claims; in the second one, which takes back what a process held
    that has died meanwhile, the disk may be full. What was claimed must be with somebody."""

    def die_holding(path: Path) -> None:
        with quelmdb.open(path) as store:
            assert len(store.claim("worker 2", limit=5)) == 5

    def test(path: Path) -> tuple[int, int]:
        seed(path, **EPHEMERAL)
        left, refused, handed_over = 0, 0, 0
        while True:
            copy = shutil.copytree(path, path.with_name("copy.qdb"))
            with quelmdb.open(copy) as store:
                store.rescue()
                store._claims._next_rescue = math.inf  # it has just been done
                in_child(die_holding, copy)
                with burn(store, 400):
                    fill_to(store, left)
                    try:
                        claimed = store.claim(limit=100)
                    except StoreFullError:
                        claimed = []
                        refused += 1
                    started = list(store.jobs("started"))
                    own = {job.id for job in started if job.owner == _own(store)}
                    assert own == {job.id for job in claimed}
                done = len(started) == len(claimed) > 0
                handed_over += bool(claimed) and not done
                assert store.check() == []
            shutil.rmtree(copy)
            if done:
                return refused, handed_over
            left += 1 if long else 2
            assert left < _MOST

    refused, handed_over = run_on_disk(tmp_path, 32, test)
    assert handed_over
    figure(f"of {refused + handed_over} claims {handed_over} had no room to rescue")


def _own(store: Store) -> int | None:
    return store._opened.owners.own
