"""What a store asks of the file system below it: network ones are refused, overlays work."""

from __future__ import annotations

import os
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

import quelmdb
from quelmdb import Job, StoreBusyError, UnsupportedFileSystemError, filesystem
from tests.children import Child, in_child, in_children
from tests.mounts import (
    enter_pid_namespace,
    enter_private_mounts,
    mount_overlay,
    mount_tmpfs,
    needs_mounts,
    needs_overlay,
)

pytest_plugins = ["tests.fixtures"]


# --- Network file systems -----------------------------------------------------

Mount = Callable[[str, str], None]


@pytest.fixture
def mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mount:
    """Adds a line to a list of mounts that stands for the one of the system (proc(5))."""
    mounts = tmp_path / "mountinfo"
    mounts.write_text("22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/vda rw\n")
    monkeypatch.setattr(filesystem, "MOUNTS", mounts)

    def add(point: str, kind: str) -> None:
        with mounts.open("a") as lines:
            lines.write(f"40 22 0:40 / {point} rw shared:2 master:1 - {kind} source rw,vers=4\n")

    return add


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "ceph"])
def test_a_network_file_system_is_refused(kind: str, tmp_path: Path, mount: Mount) -> None:
    mount(str(tmp_path), kind)
    path = tmp_path / "jobs.qdb"
    with pytest.raises(UnsupportedFileSystemError, match="local disk") as caught:
        quelmdb.open(path)
    assert (caught.value.path, caught.value.found) == (str(tmp_path), kind)
    assert not path.exists()


@pytest.mark.parametrize("readonly", [False, True])
def test_a_store_that_came_to_lie_on_one_is_refused(
    readonly: bool, path: Path, tmp_path: Path, mount: Mount
) -> None:
    quelmdb.open(path).close()
    mount(str(tmp_path), "nfs4")
    with pytest.raises(UnsupportedFileSystemError):
        quelmdb.open(path, readonly=readonly)


@pytest.mark.parametrize("kind", ["ext4", "xfs", "tmpfs", "overlay", "fuse.fuse-overlayfs"])
def test_a_local_file_system_is_taken(kind: str, path: Path, mount: Mount) -> None:
    mount(str(path.parent), kind)
    with quelmdb.open(path) as store:
        store.insert(Job("a"))


def test_the_innermost_mount_counts(path: Path, tmp_path: Path, mount: Mount) -> None:
    mount(str(tmp_path.parent), "nfs4")
    mount(str(tmp_path), "ext4")
    mount(str(tmp_path / "jobs"), "cifs")  # a neighbour whose name begins alike
    quelmdb.open(path).close()


def test_the_latest_of_mounts_on_one_point_counts(path: Path, tmp_path: Path, mount: Mount) -> None:
    mount(str(tmp_path), "ext4")
    mount(str(tmp_path), "nfs4")
    with pytest.raises(UnsupportedFileSystemError):
        quelmdb.open(path)
    mount(str(tmp_path), "xfs")
    quelmdb.open(path).close()


@pytest.mark.parametrize(
    ("name", "written"),
    [("a b", r"a\040b"), ("a\tb", r"a\011b"), ("a\nb", r"a\012b"), ("a\\040", r"a\134040")],
)
def test_names_of_mounts_are_escaped(name: str, written: str, tmp_path: Path, mount: Mount) -> None:
    (tmp_path / name).mkdir()
    mount(f"{tmp_path}/{written}", "nfs4")
    with pytest.raises(UnsupportedFileSystemError):
        quelmdb.open(tmp_path / name / "jobs.qdb")


def test_a_symlink_to_a_network_file_system_is_refused(tmp_path: Path, mount: Mount) -> None:
    (tmp_path / "remote").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "remote")
    mount(str(tmp_path / "remote"), "nfs4")
    with pytest.raises(UnsupportedFileSystemError):
        quelmdb.open(tmp_path / "link" / "jobs.qdb")


def test_without_a_list_of_mounts_nothing_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filesystem, "MOUNTS", path / "nothing")
    quelmdb.open(path).close()


# --- Overlays, as containers have them ----------------------------------------


def _insert_and_claim(number: int, path: Path) -> list[int | None]:
    with quelmdb.open(path) as store:
        ids = [store.insert(Job("a", number)).id for _ in range(25)]
        store.complete_many(store.claim(limit=5))
        return ids


def _use_in_processes(path: Path, before: int) -> None:
    """Several processes write; none misses or overwrites what another wrote."""
    told = in_children(4, _insert_and_claim, path, method="fork")
    ids = sorted(id or 0 for each in told for id in each)
    assert ids == list(range(before + 1, before + 101))
    with quelmdb.open(path, create=False) as store:
        assert list(store.all().ids()) == list(range(1, before + 101))
        assert len(store.completed()) == 20
        assert store.check() == []


@needs_overlay
def test_a_store_in_the_upper_layer_of_an_overlay_works(tmp_path: Path) -> None:
    def use() -> None:
        merged = _overlay(tmp_path)
        _use_in_processes(merged / "jobs.qdb", 0)

    in_child(use)


@needs_overlay
def test_a_store_in_the_lower_layer_of_an_overlay_works(tmp_path: Path) -> None:
    """An image that was built with a store in it."""
    below = tmp_path / "lower" / "jobs.qdb"
    before = _build(below)
    unchanged = (below / "000001" / "data.mdb").read_bytes()

    def use() -> None:
        merged = _overlay(tmp_path)
        _use_in_processes(merged / "jobs.qdb", before)

    in_child(use)
    assert (below / "000001" / "data.mdb").read_bytes() == unchanged


@needs_overlay
def test_a_reader_of_the_lower_layer_sees_what_is_written_after_it_opened(tmp_path: Path) -> None:
    before = _build(tmp_path / "lower" / "jobs.qdb")

    def use() -> None:
        path = _overlay(tmp_path) / "jobs.qdb"
        with Child(_read_when_told, path) as reader:
            assert reader.receive() == before
            with quelmdb.open(path) as store:
                store.insert(Job("a"))
                (held,) = store.claim()
                reader.send()
                assert reader.receive() == before + 1
                reader.send()
                assert reader.receive() == [(held.owner, True)]
                assert store.check() == []

    in_child(use)


def _read_when_told(pipe: Connection, path: Path) -> list[tuple[int, bool]]:
    with quelmdb.open(path, readonly=True) as store:
        for _ in range(2):
            pipe.send(len(store.all()))
            pipe.recv()
        return [(owner.number, owner.alive) for owner in store.info().owners]


def _build(path: Path) -> int:
    """A store as an image may carry it; returns how many jobs are in it."""
    path.parent.mkdir()
    with quelmdb.open(path) as store:
        store.insert_many(Job("a", n) for n in range(40))
    return 40


def _overlay(directory: Path) -> Path:
    """In a child: mounts `lower` with an empty layer above it, and returns where."""
    enter_private_mounts()
    places = [directory / name for name in ("merged", "lower", "upper", "work")]
    for place in places:
        place.mkdir(exist_ok=True)
    mount_overlay(*places)
    return places[0]


# --- Other file systems, other namespaces -------------------------------------


@needs_mounts
def test_a_store_on_tmpfs_works(tmp_path: Path) -> None:
    def use() -> None:
        enter_private_mounts()
        mount_tmpfs(tmp_path, 64)
        _use_in_processes(tmp_path / "jobs.qdb", 0)

    in_child(use)


@needs_mounts
def test_two_pid_namespaces_on_one_store_get_an_error_that_says_what_to_do(path: Path) -> None:
    """Two containers, each with its runner as process 1: LMDB tells readers by their pid."""
    quelmdb.open(path).close()
    with Child(_as_process_1, path) as one:
        assert one.receive() == 1
        with (
            Child(_as_process_1, path) as other,
            pytest.raises(StoreBusyError, match="share the PID namespace"),
        ):
            other.receive()
        one.send()
        one.receive()


def _as_process_1(pipe: Connection, path: Path) -> None:
    enter_pid_namespace()
    with Child(_open_and_wait, path) as child:
        assert child.pid
        pipe.send(child.receive())
        pipe.recv()
        child.send()
        child.receive()


def _open_and_wait(pipe: Connection, path: Path) -> None:
    with quelmdb.open(path) as store:
        store.insert(Job("a"))
        pipe.send(os.getpid())
        pipe.recv()
        store.insert(Job("a"))
