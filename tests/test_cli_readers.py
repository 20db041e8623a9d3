"""`readers` tells who holds snapshots, and clears the places of the dead."""

from __future__ import annotations

import json
from multiprocessing.connection import Connection
from pathlib import Path

import quelmdb
from quelmdb import Job
from tests import cli
from tests.children import Child
from tests.cli import hold_snapshot, invoke

path = cli.path


def test_readers_are_told_with_their_process_and_how_far_they_are_behind(path: str) -> None:
    with Child(hold_snapshot, path, method="spawn") as child:
        child.receive()
        with quelmdb.open(path) as store:
            store.insert(Job("a"))
        (line,) = invoke("readers", path).stdout.splitlines()
        fields = line.split("\t")
        assert fields[:2] == [str(child.pid), "alive"]
        assert fields[4] == "1"
        (reader,) = json.loads(invoke("readers", path, "--json").stdout)["readers"]
        assert (reader["pid"], reader["behind"]) == (child.pid, 1)
        assert reader["process_started_at"].endswith("+00:00")
        assert reader["process_started_at"] < reader["since"]
        assert fields[7] == reader["since"]
        (told,) = json.loads(invoke("info", path, "--json").stdout)["readers"]
        assert told["since"] == reader["since"]


def keep_open(pipe: Connection, path: str) -> None:
    """Run in a child: as long as somebody has it open, the places of the dead stay."""
    with quelmdb.open(path, readonly=True):
        pipe.send(None)
        pipe.recv()


def test_the_places_of_the_dead_are_cleared(path: str) -> None:
    with Child(keep_open, path, method="spawn") as other:
        other.receive()
        with Child(hold_snapshot, path, method="spawn") as child:
            child.receive()
            child.kill()
            (reader,) = json.loads(invoke("readers", path, "--json").stdout)["readers"]
            assert (reader["pid"], reader["alive"]) == (child.pid, False)
            cleared = json.loads(invoke("readers", path, "--clear", "--json").stdout)
            assert cleared == {"cleared": 1, "readers": []}


def test_looking_with_top_and_readers_writes_nothing(path: str) -> None:
    (file,) = Path(path).glob("*/data.mdb")
    before = (file.stat().st_mtime_ns, file.read_bytes())
    for arguments in (["top", path, "--once"], ["readers", path]):
        assert invoke(*arguments).exit_code == 0
    assert (file.stat().st_mtime_ns, file.read_bytes()) == before
