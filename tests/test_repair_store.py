"""Repairing a store in its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import quelmdb
from quelmdb import Job
from quelmdb.maintenance.offline import repair_store
from tests.children import Child
from tests.damage import raw
from tools.app import commands

pytest_plugins = ["tests.fixtures"]

OPTIONS: list[dict[str, Any]] = [
    {"durability": "full"},
    {"durability": "ephemeral", "capacity": 8 * 2**20},
]


def _damaged(path: Path, **options: Any) -> list[Job]:
    """A store of ten jobs of which the fourth is damaged; all the others."""
    with quelmdb.open(path, **options) as store:
        store.insert_many(Job("a", {"n": n}) for n in range(10))
        jobs = [job for job in store.all() if job.id != 4]
    with raw(path) as content:
        record = content.record(4)
        content.put_record(4, record[:-1] + bytes([record[-1] ^ 1]))
    return jobs


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: options["durability"])
def test_a_repaired_store_has_every_whole_job_and_is_sound(
    options: dict[str, Any], path: Path
) -> None:
    jobs = _damaged(path, **options)
    repaired = repair_store(path)
    assert (repaired.kept, repaired.set_aside) == (9, 1)
    with quelmdb.open(path) as store:
        assert list(store.all()) == jobs
        assert store.check() == []
        assert store.info().generation == 2
        assert store.insert(Job("a")).id == 11
    assert (path / "000001.damaged" / "data.mdb").exists()
    assert repaired.aside is not None
    assert repaired.aside.parent == path


def _hold(pipe: Any, path: Path) -> None:
    with quelmdb.open(path, readonly=True):
        pipe.send("open")
        pipe.recv()


def test_a_store_that_is_in_use_is_not_repaired(path: Path) -> None:
    quelmdb.open(path).close()
    with Child(_hold, path, method="spawn") as child:
        assert child.receive() == "open"
        with pytest.raises(quelmdb.StoreBusyError, match="in use"):
            repair_store(path)
    with quelmdb.open(path), pytest.raises(quelmdb.StoreBusyError, match="in use"):
        repair_store(path)


def test_where_there_is_no_store_there_is_nothing_to_repair(tmp_path: Path) -> None:
    with pytest.raises(quelmdb.StoreNotFoundError):
        repair_store(tmp_path / "none")
    with pytest.raises(quelmdb.StoreNotFoundError):
        repair_store(tmp_path)


def test_the_command_repairs_and_tells(path: Path) -> None:
    _damaged(path)
    assert CliRunner().invoke(commands, ["check", str(path)]).exit_code == 1
    found = CliRunner().invoke(commands, ["check", str(path), "--repair", "--json"])
    assert found.exit_code == 1  # something was set aside
    assert json.loads(found.stdout)["kept"] == 9
    assert CliRunner().invoke(commands, ["check", str(path)]).exit_code == 0
