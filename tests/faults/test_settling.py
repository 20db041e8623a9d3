"""What neither LMDB nor the library could sync is settled before anybody writes again: the process
that goes on, the next one to open the store, or another one that had it open all the time."""

from __future__ import annotations

import shutil
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

import pytest

import quelmdb
from quelmdb import DiskError, Job
from quelmdb.maintenance.offline import check_unopened
from tests.children import Child, in_child
from tests.faults.calls import needs_calls
from tests.faults.recorder import Event, Recorder

pytest_plugins = ["tests.fixtures"]
pytestmark = needs_calls

_META_PAGES: Final = 2 * 4096
_BEFORE_OPTIONS: Final = Path(__file__).parents[1] / "data" / "store-v1"


def _insert_in_vain(recorder: Recorder, store: quelmdb.Store, *failing: str) -> None:
    recorder.fails = (*failing, "own").__contains__
    with pytest.raises(DiskError):
        store.insert(Job("in vain"))
    recorder.fails = lambda kind: False


def _fail(pipe: Connection, path: Path, failing: str) -> None:
    """One process, which stays."""
    recorder = Recorder(path)
    with recorder.recording(), quelmdb.open(path) as store:
        _insert_in_vain(recorder, store, failing)
        pipe.send("failed")
        pipe.recv()


def _insert(store: quelmdb.Store, path: Path) -> list[Event]:
    """What that does to the data file."""
    recorder = Recorder(path)
    with recorder.recording():
        store.insert(Job("later"))
    return [event for event in recorder.events if event.path.endswith("data.mdb")]


def _insert_when_told(pipe: Connection, path: Path) -> None:
    """Another process, which has the store open before."""
    with quelmdb.open(path) as store:
        pipe.send("open")
        pipe.recv()
        pipe.send(_insert(store, path))
        pipe.recv()


def _open_and_insert(path: Path) -> list[Event]:
    with quelmdb.open(path) as store:
        return _insert(store, path)


def _assert_settled_first(events: list[Event]) -> None:
    meta, sync, *rest = [event for event in events if event.kind != "size"]
    assert (meta.kind, sync.kind) == ("write", "sync")
    assert meta.offset < _META_PAGES
    assert rest[0].offset >= _META_PAGES


def _assert_sound(path: Path) -> None:
    assert check_unopened(path) == []
    with quelmdb.open(path) as store:
        assert [job.worker for job in store.all()] == ["later"]
        assert store.check() == []


@pytest.mark.parametrize("failing", ["sync", "meta"])
def test_a_process_that_has_the_store_open_settles_what_another_could_not_sync(
    failing: str, tmp_path: Path
) -> None:
    path = tmp_path / "jobs.qdb"
    quelmdb.open(path).close()
    with Child(_insert_when_told, path) as other, Child(_fail, path, failing) as first:
        other.receive()
        first.receive()
        other.send()
        _assert_settled_first(other.receive())
        other.send()
        assert other.receive() is None
    _assert_sound(path)


def test_who_opens_the_store_settles_what_a_process_could_not_sync_that_was_killed(
    tmp_path: Path,
) -> None:
    path = tmp_path / "jobs.qdb"
    with Child(_fail, path, "meta") as first:
        first.receive()
    _assert_settled_first(in_child(_open_and_insert, path))
    _assert_sound(path)


def _compact_and_fail(pipe: Connection, path: Path) -> None:
    """Fails in the next generation."""
    recorder = Recorder(path)
    with recorder.recording(), quelmdb.open(path) as store:
        store.compact()
        _insert_in_vain(recorder, store, "meta")
        pipe.send("failed")
        pipe.recv()


def test_who_is_a_generation_behind_settles_the_one_to_which_it_comes(tmp_path: Path) -> None:
    path = tmp_path / "jobs.qdb"
    quelmdb.open(path).close()
    with Child(_insert_when_told, path) as other, Child(_compact_and_fail, path) as first:
        other.receive()
        first.receive()
        other.send()
        events = [event for event in other.receive() if event.kind != "remove"]
        assert {event.path for event in events} == {"000002/data.mdb"}
        _assert_settled_first(events)
        other.send()
        assert other.receive() is None
    _assert_sound(path)


def _go_on(path: Path) -> list[Event]:
    recorder = Recorder(path)
    with recorder.recording(), quelmdb.open(path) as store:
        _insert_in_vain(recorder, store, "sync")
        recorder.events.clear()
        _insert_in_vain(recorder, store)  # it cannot be settled yet
        assert {event.kind for event in recorder.events} <= {"write", "not synced"}
        assert all(event.offset < _META_PAGES for event in recorder.events)
        recorder.events.clear()
        store.insert(Job("later"))
    return [event for event in recorder.events if event.path.endswith("data.mdb")]


def test_nothing_is_written_before_it_is_settled(tmp_path: Path) -> None:
    path = tmp_path / "jobs.qdb"
    _assert_settled_first(in_child(_go_on, path))
    _assert_sound(path)


def _upgrade_in_vain(path: Path) -> list[Event]:
    recorder = Recorder(path)
    recorder.fails = "meta".__eq__
    with recorder.recording(), pytest.raises(DiskError):
        quelmdb.open(path)
    return [event for event in recorder.events if event.path.endswith("data.mdb")]


def test_an_upgrade_whose_meta_page_fails_is_synced_at_once(tmp_path: Path) -> None:
    path = tmp_path / "jobs.qdb"
    shutil.copytree(_BEFORE_OPTIONS, path)
    events = in_child(_upgrade_in_vain, path)
    assert [event.kind for event in events][-3:] == ["doubtful", "write", "sync"]
    with quelmdb.open(path) as store:
        assert store.check() == []
