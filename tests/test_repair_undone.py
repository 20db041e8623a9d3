"""Repair where a meta page is damaged: the last transaction is not undone, or that is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

import quelmdb
from quelmdb import Job, layout
from quelmdb.maintenance.offline import check_unopened
from quelmdb.pages import Pages
from tests.damage import PAGE, damaged_copy, data_file, flip, wipe
from tests.repairing import jobs_of, repaired, root_of
from tools.app import commands

pytest_plugins = ["tests.fixtures"]


@pytest.fixture(scope="module")
def completed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store whose last transactions have completed jobs."""
    path = tmp_path_factory.mktemp("repair") / "jobs.qdb"
    with quelmdb.open(path) as store:
        store.insert_many(Job("a", n) for n in range(600))
        for _ in range(4):
            store.complete_many(store.claim(limit=100), [b"r" * 3000] * 100)
        assert store.check() == []
    return path


def _slots(path: Path) -> tuple[int, int]:
    """Those of the newer and of the older meta page."""
    with Pages(data_file(path)) as pages:
        newest = pages.metas[0].transaction % 2
    return newest, 1 - newest


@pytest.mark.parametrize("bit", [None, 0, 1, 2, 3, 40, 63])
@pytest.mark.parametrize("which", ["newer", "older"])
def test_damage_to_one_meta_page_does_not_undo_the_last_transaction(
    which: str, bit: int | None, completed: Path, tmp_path: Path
) -> None:
    """It is lost, or a bit of its number has flipped: LMDB takes the older state for the last."""
    before = jobs_of(completed)
    slot = _slots(completed)[which == "older"]
    number = slot * PAGE + 144
    damage = wipe(slot) if bit is None else flip(number + bit // 8, bit % 8)
    copy = damaged_copy(completed, tmp_path / "copy", damage)
    assert check_unopened(copy)
    done = repaired(copy)
    assert done.jobs == before
    assert (done.told.loose, done.told.set_aside, done.told.undone) == (0, 0, False)


@pytest.mark.parametrize("what", ["main", "list of free pages", "jobs"])
def test_where_the_last_transaction_is_not_found_it_is_told_that_it_may_be_undone(
    what: str, completed: Path, tmp_path: Path
) -> None:
    """The older state, which is whole, is kept: parts of a later one are none."""
    before = jobs_of(completed)
    with Pages(data_file(completed)) as pages:
        meta = pages.metas[0]
        roots = {"main": meta.main.root, "list of free pages": meta.free.root}
    roots["jobs"] = root_of(completed, layout.JOBS)
    newer, _ = _slots(completed)
    root = roots[what]
    assert root is not None

    def damage(data: bytearray) -> None:
        wipe(newer)(data)
        flip(root * PAGE, 0)(data)

    copy = damaged_copy(completed, tmp_path / "copy", damage)
    done = repaired(copy)
    assert done.told.undone
    (copy / layout.OWNERS_FILE).touch()
    told = CliRunner().invoke(commands, ["check", str(copy), "--repair"])
    assert told.exit_code == 1
    assert "what the last transaction changed may be undone" in told.stderr
    undone = [key for key, job in done.jobs.items() if job != before[key]]
    assert len(undone) == 100
    assert {done.jobs[key].status for key in undone} == {"started"}


def test_where_the_databases_are_not_found_the_jobs_are_as_they_were_last(tmp_path: Path) -> None:
    """Their pages are those that are not free. What else the last transaction changed is undone."""
    path = tmp_path / "jobs.qdb"
    with quelmdb.open(path) as store:
        store.insert_many(Job(f"worker {n % 200}", n) for n in range(600))
        store.insert(Job("big", b"b" * 9000, unique_key="only"))
        store.pause("big")
        with store.batch() as batch:
            batch.complete_many(store.claim(limit=100), [b"r" * 3000] * 100)
            batch.insert(Job("new", b"n" * 9000))
            batch.destroy_many(range(300, 320))
    before = jobs_of(path)
    with Pages(data_file(path)) as pages:
        root = pages.metas[0].main.root
    assert root is not None
    copy = damaged_copy(path, tmp_path / "copy", wipe(root))
    assert check_unopened(copy)
    done = repaired(copy)
    assert done.jobs == before
    assert (done.told.set_aside, done.told.invented, done.told.undone) == (0, {}, True)
    with quelmdb.open(done.path) as store:
        assert store.paused() == ["big"]
        assert (store.insert(Job("a")).id or 0) > 602


def test_meta_pages_after_a_commit_that_failed_are_of_one_state_and_sound(
    completed: Path, tmp_path: Path
) -> None:
    """It was undone: the last one stands in the place of the other, too, with its number."""
    newer, older = _slots(completed)

    def settle(data: bytearray) -> None:
        meta = data[newer * PAGE + 16 : newer * PAGE + 144]
        data[older * PAGE + 16 : older * PAGE + 144] = meta

    copy = damaged_copy(completed, tmp_path / "copy", settle)
    assert check_unopened(copy) == []
    done = repaired(copy)
    assert done.jobs == jobs_of(completed)
    assert (done.told.undone, done.told.problems) == (False, [])
