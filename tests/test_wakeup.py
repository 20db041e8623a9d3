"""Who waits is woken by every commit, in whatever order things happen."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import signal
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import permutations
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any, Final

import pytest

from quelmdb import wakeup
from quelmdb.wakeup import Wakeup
from tests.children import Child, in_child, in_children
from tests.mounts import enter_private_mounts, mount_tmpfs, needs_mounts

_WAIT: Final = 30.0  # seconds: whoever waits as long was not woken
_SOON: Final = 15.0
_PLAYERS: Final = 3
_LEADERS: Final = 2
_FOLLOWERS: Final = 2
_NO_CALL: Final = 9999

_MECHANISMS: Final = {
    "futex": wakeup._FUTEX,
    "refused": wakeup._Futex(_NO_CALL),  # the kernel answers as a filter of calls may
    "polling": wakeup._NoFutex(),
}


@pytest.fixture(params=_MECHANISMS)
def mechanism(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    name: str = request.param
    if name == "futex" and isinstance(wakeup._FUTEX, wakeup._NoFutex):
        pytest.skip("there is no futex here")
    monkeypatch.setattr(wakeup, "_FUTEX", _MECHANISMS[name])
    return name


@pytest.fixture
def rounds(mechanism: str, request: pytest.FixtureRequest) -> int:
    short = 10_000 if mechanism == "futex" else 300
    return short * 10 if request.config.getoption("--long") else short


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "wakeup"


@pytest.fixture
def waiter(path: Path, mechanism: str) -> Iterator[Wakeup]:
    with _closing(Wakeup(path)) as opened:
        yield opened


@contextmanager
def _closing(opened: Wakeup) -> Iterator[Wakeup]:
    try:
        yield opened
    finally:
        opened.close()


def _seconds(work: Callable[..., object], *arguments: object) -> float:
    start = time.monotonic()
    work(*arguments)
    return time.monotonic() - start


def _is_woken_by(waiter: Wakeup, wake: Callable[[], object], seconds: float = _WAIT) -> bool:
    """Whether a thread that waits for another number returns after `wake`."""
    ready = threading.Event()
    seen = waiter.seen()

    def wait() -> None:
        ready.set()
        waiter.wait(seen, seconds)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    ready.wait()
    wake()
    thread.join(_SOON)
    return not thread.is_alive()


# --- Who is woken ----------------------------------------------------------


@pytest.mark.usefixtures("mechanism")
def test_a_thread_is_woken_through_the_same_object(waiter: Wakeup) -> None:
    for number in range(100):
        assert _is_woken_by(waiter, lambda: waiter.wake(number))  # noqa: B023
        assert waiter.seen() == number


def test_a_thread_that_waits_for_ever_is_woken(waiter: Wakeup) -> None:
    assert _is_woken_by(waiter, lambda: waiter.wake(1), float("inf"))


def test_a_thread_is_woken_through_another_mapping_of_the_file(waiter: Wakeup, path: Path) -> None:
    with _closing(Wakeup(path)) as other:
        assert _is_woken_by(waiter, lambda: other.wake(1))
        assert waiter.seen() == other.seen() == 1


def _wait_here(pipe: Connection, path: Path) -> float:
    with _closing(Wakeup(path)) as opened:
        seen = opened.seen()
        pipe.send("ready")
        return _seconds(opened.wait, seen, _WAIT)


def test_a_process_is_woken(waiter: Wakeup, path: Path) -> None:
    for number in range(10):
        with Child(_wait_here, path) as child:
            child.receive()
            waiter.wake(number)
            assert child.receive() < _SOON


def test_all_who_wait_are_woken_by_a_disturbance_too(waiter: Wakeup, path: Path) -> None:
    with Child(_wait_here, path) as one, Child(_wait_here, path) as other:
        one.receive()
        other.receive()
        waiter.disturb()
        assert one.receive() < _SOON
        assert other.receive() < _SOON


def test_a_process_that_does_without_futex_hears_one_that_has_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _closing(Wakeup(path)) as with_futex:
        monkeypatch.setattr(wakeup, "_FUTEX", wakeup._NoFutex())
        with Child(_wait_here, path) as child:
            child.receive()
            with_futex.wake(1)
            assert child.receive() < _SOON


# --- How a wait ends, beside ------------------------------------------------


@pytest.mark.parametrize("number", [0, 1, 2**31, 2**32 - 1, 2**32 + 5, 2**64 - 1])
def test_the_low_32_bits_of_a_number_are_seen(number: int, waiter: Wakeup) -> None:
    waiter.wake(number)
    assert waiter.seen() == number % 2**32
    waiter.wait(waiter.seen(), 0.001)
    assert _is_woken_by(waiter, lambda: waiter.wake(number + 1))


def test_who_has_seen_another_number_does_not_wait(waiter: Wakeup) -> None:
    seen = waiter.seen()
    waiter.wake(seen + 1)
    assert _seconds(waiter.wait, seen, _WAIT) < _SOON


@pytest.mark.parametrize("seconds", [-1.0, 0.0, 0.2])
def test_a_wait_ends_after_the_time_that_was_given(seconds: float, waiter: Wakeup) -> None:
    took = _seconds(waiter.wait, waiter.seen(), seconds)
    assert seconds - 0.01 < took < _SOON


def test_a_signal_is_heard_while_waiting(waiter: Wakeup) -> None:
    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    def wait() -> None:
        with pytest.raises(KeyboardInterrupt):
            waiter.wait(waiter.seen(), _WAIT)

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        assert _seconds(wait) < _SOON
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_to_wait_costs_next_to_nothing(waiter: Wakeup, mechanism: str) -> None:
    seen, end = waiter.seen(), time.monotonic() + 2
    before = time.process_time()
    while (left := end - time.monotonic()) > 0:
        waiter.wait(seen, min(left, 1.0))
    share = (time.process_time() - before) / 2
    print(f"{mechanism}: {share:.2%} of a processor")
    assert share < 0.02


# --- Nothing is missed ------------------------------------------------------


class _Ledger(ctypes.Structure):
    """What a process and its forked children share."""

    _fields_ = (
        ("state", ctypes.c_uint64),  # the number of the last commit
        ("led", ctypes.c_uint64 * _LEADERS),  # rounds
        ("told", ctypes.c_uint64 * _FOLLOWERS),  # states
    )


def _ledger() -> Any:
    return _Ledger.from_buffer(mmap.mmap(-1, ctypes.sizeof(_Ledger)))


class _Watch:
    """Waits for what is looked for, and remembers the longest wait."""

    def __init__(self, opened: Wakeup, random: Random) -> None:
        self._opened = opened
        self._random = random
        self.longest = 0.0

    def until(self, is_there: Callable[[], bool]) -> None:
        while True:
            seen = self._opened.seen()
            self.dawdle()
            if is_there():
                return
            self.dawdle()
            self.longest = max(self.longest, _seconds(self._opened.wait, seen, _WAIT))

    def dawdle(self) -> None:
        """Passes some time or none, so that things happen in any order."""
        for _ in range(self._random.randrange(2) * self._random.randrange(1000)):
            pass


def _take_turns(number: int, path: Path, ledger: Any, rounds: int) -> float:
    with _closing(Wakeup(path)) as opened:
        watch = _Watch(opened, Random(number))
        for turn in range(number, rounds, _PLAYERS):
            watch.until(lambda: bool(ledger.state == turn))  # noqa: B023
            ledger.state = turn + 1
            opened.wake(turn + 1)
        return watch.longest


def test_processes_that_take_turns_are_all_woken_for_theirs(path: Path, rounds: int) -> None:
    longest = in_children(_PLAYERS, _take_turns, path, _ledger(), rounds, method="fork")
    assert max(longest) < _SOON


def _lead_or_follow(number: int, path: Path, lock: Any, ledger: Any, rounds: int) -> float:
    """Those who lead commit some changes each, store their numbers late, in any order, and
    wait until those who follow have told that they have seen the last one."""
    random = Random(number)
    with _closing(Wakeup(path)) as changes, _closing(Wakeup(path.with_name("back"))) as answers:
        if number < _LEADERS:
            watch = _Watch(answers, random)
            for led in range(1, rounds + 1):
                _lead(number, changes, watch, lock, ledger, led)
                answers.disturb()
                watch.until(
                    lambda: (
                        all(others >= led for others in ledger.led)  # noqa: B023
                        and all(told == ledger.state for told in ledger.told)
                    )
                )
            return watch.longest
        watch = _Watch(changes, random)
        while not _follow(number - _LEADERS, watch, ledger, rounds):
            answers.disturb()
        return watch.longest


def _lead(number: int, changes: Wakeup, watch: _Watch, lock: Any, ledger: Any, led: int) -> None:
    commits = 1 + (led + number) % 3
    for commit in range(commits):
        with lock:
            ledger.state += 1
            transaction = ledger.state
        if commit == commits - 1:
            ledger.led[number] = led
        watch.dawdle()
        changes.wake(transaction)


def _follow(number: int, watch: _Watch, ledger: Any, rounds: int) -> bool:
    """Waits for a change, and tells it. True when there will be none any more."""

    def is_new() -> bool:
        return bool(ledger.state > ledger.told[number])

    def is_over() -> bool:
        return all(led == rounds for led in ledger.led)

    watch.until(lambda: is_new() or is_over())
    if not is_new():
        return True
    ledger.told[number] = ledger.state
    return False


def test_each_of_many_processes_sees_every_final_state_of_many_writers(
    path: Path, rounds: int
) -> None:
    count = _LEADERS + _FOLLOWERS
    lock = get_context("fork").Lock()
    longest = in_children(count, _lead_or_follow, path, lock, _ledger(), rounds // 5, method="fork")
    assert max(longest) < _SOON


def test_no_late_store_brings_back_a_number_that_was_seen(waiter: Wakeup) -> None:
    """Four commits store their numbers in any order, of which some were seen."""
    for order in permutations(range(4)):
        for before in range(4):
            waiter.disturb()
            for number in order[:before]:
                waiter.wake(number)
            seen = waiter.seen()
            for number in order[before:]:
                waiter.wake(number)
                assert _seconds(waiter.wait, seen, _WAIT) < _SOON


# --- The file ---------------------------------------------------------------


def test_the_file_is_the_users_own_and_has_no_hole(path: Path) -> None:
    with _closing(Wakeup(path)):
        status = path.stat()
        assert stat.S_IMODE(status.st_mode) == 0o600
        assert status.st_size == 4096 <= status.st_blocks * 512


@pytest.mark.parametrize("size", [0, 2, 4, 4096, 10_000])
def test_a_file_of_any_size_is_made_one_that_can_be_used(
    size: int, path: Path, mechanism: str
) -> None:
    path.touch()
    os.truncate(path, size)
    with _closing(Wakeup(path)) as waiter, _closing(Wakeup(path)) as other:
        assert path.stat().st_blocks * 512 >= 4096
        assert _is_woken_by(waiter, lambda: other.wake(1))


def test_to_open_the_file_does_not_keep_others_from_being_woken(waiter: Wakeup, path: Path) -> None:
    """The number of a life of the store that ended later than what is now there does not
    stand in the file when that number's turn comes again."""
    waiter.wake(7)
    with _closing(Wakeup(path)) as other:
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
    with _closing(waiter), _closing(Wakeup(path)) as other:
        other.wake(3)
        assert waiter.seen() == 0
        assert _is_woken_by(waiter, lambda: waiter.wake(1))
        assert other.seen() == 3


def test_threads_wake_each_other_where_a_directory_has_its_place(
    path: Path, mechanism: str
) -> None:
    path.mkdir()
    with _closing(Wakeup(path)) as waiter:
        assert _is_woken_by(waiter, lambda: waiter.wake(1))


def test_threads_wake_each_other_without_a_file(mechanism: str) -> None:
    with _closing(Wakeup(None)) as waiter:
        assert _is_woken_by(waiter, lambda: waiter.wake(1))


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
            with _closing(Wakeup(path)) as waiter:
                assert _is_woken_by(waiter, lambda: waiter.wake(1))
            ballast.truncate(0)
            with _closing(Wakeup(path)) as waiter, _closing(Wakeup(path)) as other:
                assert _is_woken_by(waiter, lambda: other.wake(1))

    in_child(work)


# --- The end ----------------------------------------------------------------


def test_a_thread_that_waits_is_woken_by_closing(path: Path, mechanism: str) -> None:
    for _ in range(100):
        waiter = Wakeup(path)
        assert _is_woken_by(waiter, waiter.close)


def test_after_closing_no_call_does_anything(path: Path, mechanism: str) -> None:
    waiter = Wakeup(path)
    with _closing(Wakeup(path)) as other:
        waiter.close()
        other.wake(5)
        waiter.wake(1)
        waiter.disturb()
        assert _seconds(waiter.wait, waiter.seen(), _WAIT) < _SOON
        waiter.close()
        assert other.seen() == 5


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="looks into /proc")
def test_closing_lets_go_of_the_file(path: Path, mechanism: str) -> None:
    def is_held() -> bool:
        descriptors = [
            entry.readlink() for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()
        ]
        return path in descriptors or str(path) in Path("/proc/self/maps").read_text()

    waiter = Wakeup(path)
    assert is_held()
    assert _is_woken_by(waiter, waiter.close)
    assert not is_held()


def test_the_child_of_a_fork_may_close_what_it_has_inherited(waiter: Wakeup, path: Path) -> None:
    in_child(waiter.close)
    with _closing(Wakeup(path)) as other:
        assert _is_woken_by(waiter, lambda: other.wake(1))


def test_the_child_of_a_fork_wakes_the_parent(waiter: Wakeup) -> None:
    assert _is_woken_by(waiter, lambda: in_child(waiter.wake, 9))
    assert waiter.seen() == 9
