"""Who waits is woken by every commit, and ends in time, or when it is closed."""

from __future__ import annotations

import signal
import time
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType

import pytest

from quelmdb import wakeup
from quelmdb.wakeup import Wakeup
from tests import waking
from tests.children import Child, in_child
from tests.waking import SOON, WAIT, closing, is_woken_by, seconds_of

mechanism, path, waiter = waking.mechanism, waking.path, waking.waiter


# --- Who is woken -------------------------------------------------------------


@pytest.mark.usefixtures("mechanism")
def test_a_thread_is_woken_through_the_same_object(waiter: Wakeup) -> None:
    for number in range(100):
        assert is_woken_by(waiter, lambda: waiter.wake(number))  # noqa: B023
        assert waiter.seen() == number


def test_a_thread_that_waits_for_ever_is_woken(waiter: Wakeup) -> None:
    assert is_woken_by(waiter, lambda: waiter.wake(1), float("inf"))


def test_a_thread_is_woken_through_another_mapping_of_the_file(waiter: Wakeup, path: Path) -> None:
    with closing(Wakeup(path)) as other:
        assert is_woken_by(waiter, lambda: other.wake(1))
        assert waiter.seen() == other.seen() == 1


def _wait_here(pipe: Connection, path: Path) -> float:
    with closing(Wakeup(path)) as opened:
        seen = opened.seen()
        pipe.send("ready")
        return seconds_of(opened.wait, seen, WAIT)


def test_a_process_is_woken(waiter: Wakeup, path: Path) -> None:
    for number in range(3):
        with Child(_wait_here, path) as child:
            child.receive()
            waiter.wake(number)
            assert child.receive() < SOON


def test_all_who_wait_are_woken_by_a_disturbance_too(waiter: Wakeup, path: Path) -> None:
    with Child(_wait_here, path) as one, Child(_wait_here, path) as other:
        one.receive()
        other.receive()
        waiter.disturb()
        assert one.receive() < SOON
        assert other.receive() < SOON


def test_a_process_that_does_without_futex_hears_one_that_has_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(Wakeup(path)) as with_futex:
        monkeypatch.setattr(wakeup, "_FUTEX", wakeup._NoFutex())
        with Child(_wait_here, path) as child:
            child.receive()
            with_futex.wake(1)
            assert child.receive() < SOON


# --- How a wait ends, beside --------------------------------------------------


@pytest.mark.parametrize("number", [0, 1, 2**31, 2**32 - 1, 2**32 + 5, 2**64 - 1])
def test_the_low_32_bits_of_a_number_are_seen(number: int, waiter: Wakeup) -> None:
    waiter.wake(number)
    assert waiter.seen() == number % 2**32
    waiter.wait(waiter.seen(), 0.001)
    assert is_woken_by(waiter, lambda: waiter.wake(number + 1))


def test_who_has_seen_another_number_does_not_wait(waiter: Wakeup) -> None:
    seen = waiter.seen()
    waiter.wake(seen + 1)
    assert seconds_of(waiter.wait, seen, WAIT) < SOON


@pytest.mark.parametrize("seconds", [-1.0, 0.0, 0.2])
def test_a_wait_ends_after_the_time_that_was_given(seconds: float, waiter: Wakeup) -> None:
    took = seconds_of(waiter.wait, waiter.seen(), seconds)
    assert seconds - 0.01 < took < SOON


def test_a_signal_is_heard_while_waiting(waiter: Wakeup) -> None:
    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    def wait() -> None:
        with pytest.raises(KeyboardInterrupt):
            waiter.wait(waiter.seen(), WAIT)

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        assert seconds_of(wait) < SOON
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_to_wait_costs_next_to_nothing(waiter: Wakeup, mechanism: str) -> None:
    seen, end = waiter.seen(), time.monotonic() + 1
    before = time.process_time()
    while (left := end - time.monotonic()) > 0:
        waiter.wait(seen, left)
    share = time.process_time() - before
    print(f"{mechanism}: {share:.2%} of a processor")
    assert share < 0.02


# --- The end ------------------------------------------------------------------


def test_a_thread_that_waits_is_woken_by_closing(path: Path, mechanism: str) -> None:
    for _ in range(100):
        waiter = Wakeup(path)
        assert is_woken_by(waiter, waiter.close)


def test_after_closing_no_call_does_anything(path: Path, mechanism: str) -> None:
    waiter = Wakeup(path)
    with closing(Wakeup(path)) as other:
        waiter.close()
        other.wake(5)
        waiter.wake(1)
        waiter.disturb()
        assert seconds_of(waiter.wait, waiter.seen(), WAIT) < SOON
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
    assert is_woken_by(waiter, waiter.close)
    assert not is_held()


def test_the_child_of_a_fork_may_close_what_it_has_inherited(waiter: Wakeup, path: Path) -> None:
    in_child(waiter.close)
    with closing(Wakeup(path)) as other:
        assert is_woken_by(waiter, lambda: other.wake(1))


def test_the_child_of_a_fork_wakes_the_parent(waiter: Wakeup) -> None:
    assert is_woken_by(waiter, lambda: in_child(waiter.wake, 9))
    assert waiter.seen() == 9
