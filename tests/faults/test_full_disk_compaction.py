"""What needs as much space again, on a disk that ends at any page of it: an error that says so,
the store as it was, nothing left behind; and with space it works."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

import quelmdb
from quelmdb import Job, QuelmdbError, StoreFullError
from quelmdb.filesystem import reserve
from quelmdb.maintenance.dump import dump_cbor, load
from quelmdb.maintenance.offline import repair_store
from tests.children import Child
from tests.durabilities import DURABILITIES, EPHEMERAL
from tests.faults.every_verb import all_of, seed
from tests.faults.figures import Tell
from tests.faults.seeds import seeded
from tests.faults.smalldisk import Ballast, assert_tells, free_pages, run_on_disk
from tests.mounts import needs_mounts

pytest_plugins = ["tests.fixtures"]

_ROOT: Final = Path(__file__).parents[2]
_DISK: Final = 32  # MiB
_LARGER: Final = 6 * 2**20
_SPARE: Final = 2  # pages, that a file may take of the disk beside its content (its directory)

Deed = Callable[[Path], object]
"""What is done to the store at a path, or with it."""


def _compact(path: Path) -> None:
    with quelmdb.open(path) as store:
        before = all_of(store)
        try:
            store.compact()
        finally:
            assert all_of(store) == before


def _compact_into_a_larger_one(path: Path) -> None:
    with quelmdb.open(path) as store:
        before = all_of(store)
        try:
            store.compact(_LARGER)
            assert store.info().file_bytes == _LARGER
        finally:
            assert all_of(store) == before


def _target(path: Path) -> Path:
    return path.with_name("copy.qdb")


@contextmanager
def _cleared(target: Path) -> Iterator[None]:
    """Where something fails that makes a store there, there is nothing but what the next one
    takes for its own."""
    try:
        yield
    except QuelmdbError:
        if target.exists():
            assert {each.name for each in target.iterdir()} <= {"owners.lock"}
            shutil.rmtree(target)
        raise


def _backup(path: Path) -> None:
    with quelmdb.open(path, create=False) as store, _cleared(_target(path)):
        store.backup(_target(path))
        jobs, _ = all_of(store)
    with quelmdb.open(_target(path), create=False) as copy:
        assert copy.check() == []
        assert len(list(copy.all())) == len(jobs)
    shutil.rmtree(_target(path))


def _backup_to_a_stream(path: Path) -> None:
    with quelmdb.open(path, create=False) as store:
        store.backup(io.BytesIO(), str(path.parent))


def _repair(path: Path) -> None:
    repair_store(path)
    (damaged,) = path.glob("*.damaged")
    shutil.rmtree(damaged)


def _create(path: Path) -> None:
    ephemeral = (path / "boot").exists()
    with (
        _cleared(_target(path)),
        quelmdb.open(_target(path), **EPHEMERAL if ephemeral else {}) as store,
    ):
        assert store.counts()
    shutil.rmtree(_target(path))


DEEDS: Final[dict[str, Deed]] = {
    "compact": _compact,
    "compact with a capacity": _compact_into_a_larger_one,
    "backup": _backup,
    "backup to a stream": _backup_to_a_stream,
    "repair": _repair,
    "create": _create,
}


def _pages(durability: str, long: bool) -> Iterator[int]:
    """Numbers of pages that the disk has left, ascending: of the short form some."""
    if durability == "full":
        yield from range(0, 2000, 1 if long else 9)
    else:  # it fails where the whole file is allocated, but for the last steps
        yield from (*range(12), *range(12, 1000, 13)) if long else (0, 3, 500)
        yield from range(1000, 2000, 1 if long else 16)


def _tree(path: Path) -> set[str]:
    return {str(each.relative_to(path.parent)) for each in path.parent.rglob("*")}


def _stored(path: Path) -> Any:
    with quelmdb.open(path, create=False) as store:
        assert store.check() == []
        return all_of(store)


@needs_mounts
@pytest.mark.parametrize("durability", DURABILITIES)
@pytest.mark.parametrize("name", DEEDS)
def test_a_disk_that_ends_at_any_page_leaves_the_store_as_it_was_and_no_litter(
    name: str, durability: str, long: bool, tmp_path: Path, figure: Tell
) -> None:
    if durability == "full" and "capacity" in name:
        pytest.skip("a full store has no capacity")

    def test(path: Path) -> int:
        seed(path, **DURABILITIES[durability])
        before = _stored(path)
        ballast = Ballast(path)
        refused = 0
        for left in _pages(durability, long):
            ballast.leave(left)
            tree = _tree(path)
            try:
                DEEDS[name](path)
            except StoreFullError as error:
                assert_tells(error, path.parent, "no space left")
            else:
                break
            refused += 1
            assert _tree(path) == tree
            assert free_pages(path.parent) >= left - _SPARE
            assert _stored(path) == before
        else:
            raise AssertionError(f"it was refused with {left} pages, too")
        assert refused
        assert _stored(path) == before
        ballast.remove()
        DEEDS[name](path)
        assert _stored(path) == before
        return refused

    refused = run_on_disk(tmp_path, _DISK, test)
    figure(f"{name}, {durability}: refused at {refused} pages")


# --- Beside writers -----------------------------------------------------------


class _Wrote(NamedTuple):
    inserted: int
    refused: int
    completed: int


def _write_until_told(pipe: Connection, path: Path) -> _Wrote:
    """Inserts, which may be refused, claims and completes, which never is, and prunes."""
    inserted = refused = completed = 0
    with quelmdb.open(path, create=False) as store:
        pipe.send("open")
        while not pipe.poll():
            try:
                inserted += len(store.insert_many(Job("written", n) for n in range(20)))
            except StoreFullError:
                refused += 1
            for job in store.claim("written", limit=18):
                store.complete(job, {"n": completed})
                completed += 1
            store.prune("completed", worker="written", keep=50)
    return _Wrote(inserted, refused, completed)


def _claim_and_complete(pipe: Connection, path: Path) -> None:
    """Has it open while it is compacted, and is the first to claim then."""
    with quelmdb.open(path) as store:
        pipe.send("open")
        pipe.recv()
        for _ in range(20):
            store.complete_many(store.claim(limit=50))
        pipe.send(len(store.completed()))


@needs_mounts
def test_a_disk_that_is_full_behind_a_compaction_lets_claims_and_completions_go_on(
    tmp_path: Path,
) -> None:
    def test(path: Path) -> None:
        with quelmdb.open(path) as store, Child(_claim_and_complete, path, method="spawn") as other:
            store.insert_many(Job("a", bytes(500)) for _ in range(2000))
            other.receive()
            store.compact()
            info = store.info()
            assert info.file_bytes >= info.used_bytes + reserve(info.used_bytes)
            Ballast(path).leave(0)
            other.send()
            assert other.receive() == 1000
            while claimed := store.claim(limit=50):
                store.complete_many(claimed)
            assert len(store.completed()) == 2000

    run_on_disk(tmp_path, _DISK, test)


@needs_mounts
@pytest.mark.parametrize("durability", DURABILITIES)
def test_writers_go_on_beside_compactions_for_which_there_is_no_space(
    durability: str, long: bool, tmp_path: Path, figure: Tell
) -> None:
    rng = seeded()

    def test(path: Path) -> str:
        seed(path, **DURABILITIES[durability])
        ballast = Ballast(path)
        done = refused = 0
        with quelmdb.open(path) as store:  # not beside them: what is read is not free
            others = len(store.all())
        with (
            quelmdb.open(path) as store,
            Child(_write_until_told, path) as one,
            Child(_write_until_told, path) as other,
        ):
            assert {one.receive(), other.receive()} == {"open"}
            for _ in range(200 if long else 12):
                with suppress(OSError):  # others took some, and it leaves less
                    ballast.leave(rng.randrange(1600))
                try:
                    store.compact()
                    done += 1
                except StoreFullError:
                    refused += 1
                    assert not list(path.glob("*.new"))
                ballast.remove()
            store.compact()
            for child in (one, other):
                with suppress(BrokenPipeError):  # it has an error to tell
                    child.send("enough")
            wrote = [one.receive(), other.receive()]
            generations = {each.name for each in path.iterdir() if each.is_dir()}
            assert generations == {f"{store.info().generation:06}"}
            assert len(store.all()) - len(store.all("written")) == others
            assert store.info().next_claim > sum(each.completed for each in wrote)
            left = len(store.jobs("queued", "started", worker="written"))
            assert left == sum(each.inserted - each.completed for each in wrote)
        completed = sum(each.completed for each in wrote)
        kept_out = sum(each.refused for each in wrote)
        return (
            f"{durability}: {refused} compactions refused, {done + 1} done, meanwhile "
            f"{completed:,} jobs completed; inserts refused {kept_out} times, nothing else"
        )

    figure(run_on_disk(tmp_path, _DISK, test))


# --- Dumps --------------------------------------------------------------------


@needs_mounts
def test_a_dump_is_loaded_as_far_as_there_is_space_and_the_rest_when_there_is(
    long: bool, tmp_path: Path, figure: Tell
) -> None:
    pages = 25 if long else 250  # that there are more of at each try

    def test(path: Path) -> str:
        with quelmdb.open(path) as store:
            store.insert_many(Job(f"worker {n % 7}", {"n": n}) for n in range(3000))
            store.insert_many(Job("big", b"x" * 20_000) for _ in range(100))
            dumped = io.BytesIO()
            assert dump_cbor(store, dumped) == 3100
            before = list(store.all())
        target = _target(path)
        quelmdb.open(target).close()
        ballast = Ballast(path)
        tries = 0
        while True:
            ballast.leave(pages * tries)
            tries += 1
            with quelmdb.open(target) as store:
                stored = len(store.all())
                try:
                    loaded = load(store, io.BytesIO(dumped.getvalue()), on_conflict="skip")
                except StoreFullError as error:
                    assert_tells(error, target, "jobs loaded before it: ")
                else:
                    break
                assert list(store.all()) == before[: len(store.all())]
                assert store.check() == []
        assert loaded.loaded == 3100 - stored
        with quelmdb.open(target) as store:
            assert list(store.all()) == before
            assert store.check() == []
        return f"3,100 jobs loaded in {tries} tries, each with {pages * 4} KiB more"

    figure(run_on_disk(tmp_path, 64, test))


@needs_mounts
def test_the_command_says_that_a_dump_or_a_backup_has_no_space(long: bool, tmp_path: Path) -> None:
    def run(path: Path, *arguments: str, into: Path | None = None) -> tuple[int, str]:
        with open(into or os.devnull, "wb") as output:
            command = [sys.executable, "-m", "tools", *arguments]
            ended = subprocess.run(
                command, cwd=_ROOT, stdout=output, stderr=subprocess.PIPE, text=True, timeout=60
            )
        return ended.returncode, ended.stderr

    def test(path: Path) -> None:
        with quelmdb.open(path) as store:
            store.insert_many(Job("a", b"x" * 900) for _ in range(500))
        ballast = Ballast(path)
        file = path.with_name("dump")
        for left in (0, 1, 60) if long else (0, 20):
            ballast.leave(left)
            code, told = run(path, "dump", str(path), into=file)
            assert code, told
            assert "No space left" in told
            assert "Traceback" not in told
            file.unlink()
            code, told = run(path, "backup", str(path), str(_target(path)))
            assert code, told
            assert "no space left" in told
            assert "Traceback" not in told
            assert not _target(path).exists()
        ballast.remove()
        assert run(path, "dump", str(path), into=file) == (0, "")
        with quelmdb.open(_target(path)) as store, file.open("rb") as source:
            assert load(store, source).loaded == 500

    run_on_disk(tmp_path, _DISK, test)
