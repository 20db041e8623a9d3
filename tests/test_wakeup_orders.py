"""Of what processes tell each other nothing is missed, in whatever order things happen."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable
from itertools import permutations
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any, Final

import pytest

from quelmdb.wakeup import Wakeup
from tests import waking
from tests.children import in_children
from tests.waking import SOON, WAIT, closing, seconds_of

mechanism, path, waiter = waking.mechanism, waking.path, waking.waiter

_PLAYERS: Final = 3
_LEADERS: Final = 2
_FOLLOWERS: Final = 2


@pytest.fixture
def rounds(mechanism: str, request: pytest.FixtureRequest) -> int:
    short = 5_000 if mechanism == "futex" else 300
    return short * 10 if request.config.getoption("--long") else short


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
            self.longest = max(self.longest, seconds_of(self._opened.wait, seen, WAIT))

    def dawdle(self) -> None:
        """Passes some time or none, so that things happen in any order."""
        for _ in range(self._random.randrange(2) * self._random.randrange(1000)):
            pass


def _take_turns(number: int, path: Path, ledger: Any, rounds: int) -> float:
    with closing(Wakeup(path)) as opened:
        watch = _Watch(opened, Random(number))
        for turn in range(number, rounds, _PLAYERS):
            watch.until(lambda: bool(ledger.state == turn))  # noqa: B023
            ledger.state = turn + 1
            opened.wake(turn + 1)
        return watch.longest


def test_processes_that_take_turns_are_all_woken_for_theirs(path: Path, rounds: int) -> None:
    longest = in_children(_PLAYERS, _take_turns, path, _ledger(), rounds, method="fork")
    assert max(longest) < SOON


def _lead_or_follow(number: int, path: Path, lock: Any, ledger: Any, rounds: int) -> float:
    """Those who lead commit some changes each, store their numbers late, in any order, and
    wait until those who follow have told that they have seen the last one."""
    random = Random(number)
    with closing(Wakeup(path)) as changes, closing(Wakeup(path.with_name("back"))) as answers:
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
    assert max(longest) < SOON


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
                assert seconds_of(waiter.wait, seen, WAIT) < SOON
