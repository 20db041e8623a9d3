"""The file through which processes wake each other, and threads where it cannot be had."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest

from quelmdb.wakeup import Wakeup
from tests import waking
from tests.children import in_child
from tests.mounts import enter_private_mounts, mount_tmpfs, needs_mounts
from tests.waking import closing, is_woken_by

mechanism, path, waiter = waking.mechanism, waking.path, waking.waiter


def test_the_file_is_the_users_own_and_has_no_hole(path: Path) -> None:
    with closing(Wakeup(path)):
        status = path.stat()
        assert stat.S_IMODE(status.st_mode) == 0o600
        assert status.st_size == 4096 <= status.st_blocks * 512


@pytest.mark.parametrize("size", [0, 2, 4, 4096, 10_000])
def test_a_file_of_any_size_is_made_one_that_can_be_used(
    size: int, path: Path, mechanism: str
) -> None:
    path.touch()
    os.truncate(path, size)
    with closing(Wakeup(path)) as waiter, closing(Wakeup(path)) as other:
        assert path.stat().st_blocks * 512 >= 4096
        assert is_woken_by(waiter, lambda: other.wake(1))


def test_to_open_the_file_does_not_keep_others_from_being_woken(waiter: Wakeup, path: Path) -> None:
    """The number of a life of the store that ended later than what is now there does not
    stand in the file when that number's turn comes again."""
    waiter.wake(7)
    with closing(Wakeup(path)) as other:
        assert waiter.seen() == other.seen() != 7


def _raising(number: int) -> Callable[..., int]:
    def call(*arguments: object) -> int:
        raise OSError(number, os.strerror(number))

    return call


def _writing_half(descriptor: int, content: bytes, offset: int) -> int:
    return len(content) // 2


_FAILURES: Final = {
    "no space": ("pwrite", _raising(errno.ENOSPC)),
    "no quota": ("pwrite", _raising(errno.EDQUOT)),
    "half the space": ("pwrite", _writing_half),
    "no permission": ("open", _raising(errno.EACCES)),
    "read-only": ("open", _raising(errno.EROFS)),
    "no descriptor": ("open", _raising(errno.EMFILE)),
}


@pytest.mark.parametrize("failure", _FAILURES)
def test_threads_wake_each_other_where_the_file_cannot_be_had(
    failure: str, path: Path, mechanism: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, *_FAILURES[failure])
        waiter = Wakeup(path)
    with closing(waiter), closing(Wakeup(path)) as other:
        other.wake(3)
        assert waiter.seen() == 0
        assert is_woken_by(waiter, lambda: waiter.wake(1))
        assert other.seen() == 3


def test_threads_wake_each_other_where_a_directory_has_its_place(
    path: Path, mechanism: str
) -> None:
    path.mkdir()
    with closing(Wakeup(path)) as waiter:
        assert is_woken_by(waiter, lambda: waiter.wake(1))


def test_threads_wake_each_other_without_a_file(mechanism: str) -> None:
    with closing(Wakeup(None)) as waiter:
        assert is_woken_by(waiter, lambda: waiter.wake(1))


@needs_mounts
@pytest.mark.parametrize("size", [None, 0, 4096])
def test_on_a_full_disk_it_can_be_used(size: int | None, tmp_path: Path) -> None:
    """A store into a hole of the file would be the end of the process."""

    def work() -> None:
        enter_private_mounts()
        mount_tmpfs(tmp_path, 1)
        path = tmp_path / "wakeup"
        if size is not None:
            path.touch()
            os.truncate(path, size)
        with (tmp_path / "ballast").open("wb", buffering=0) as ballast:
            with suppress(OSError):
                while ballast.write(bytes(4096)):
                    pass
            with closing(Wakeup(path)) as waiter:
                assert is_woken_by(waiter, lambda: waiter.wake(1))
            ballast.truncate(0)
            with closing(Wakeup(path)) as waiter, closing(Wakeup(path)) as other:
                assert is_woken_by(waiter, lambda: other.wake(1))

    in_child(work)
