"""Single keys from a terminal, which is as it was before when all is over."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from .endings import ENDINGS

ESCAPE: Final = "esc"
_NAMES: Final = {
    "\x1b[A": "up",
    "\x1bOA": "up",
    "\x1b[B": "down",
    "\x1bOB": "down",
    "\x1b[5~": "page up",
    "\x1b[6~": "page down",
    "\x1b[H": "home",
    "\x1b[1~": "home",
    "\x1b[F": "end",
    "\x1b[4~": "end",
    "\r": "enter",
    "\n": "enter",
    "\x1b": ESCAPE,
}
_VALUES: Final = 6  # of termios.tcgetattr: where the special characters are


def split(data: str) -> list[str]:
    """The names of the keys that a terminal has sent: characters stand for themselves, what
    has no name is passed over."""
    keys = []
    while data:
        length = _sequence(data)
        key, data = data[:length], data[length:]
        name = _NAMES.get(key, key if key.isprintable() else "")
        if name:
            keys.append(name)
    return keys


def _sequence(data: str) -> int:
    """How long the first key is: an escape with what belongs to it, or a character."""
    if data[:2] not in ("\x1b[", "\x1bO"):
        return 1
    for place, character in enumerate(data[2:], 2):
        if "@" <= character <= "~":
            return place + 1
    return len(data)


class Keyboard:
    """What is typed."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def read(self, timeout: float) -> list[str]:
        """The keys that are there, at the latest after `timeout` seconds. Raises `EOFError`
        where the terminal is gone."""
        ready, _, _ = select.select([self._descriptor], [], [], max(timeout, 0))
        if not ready:
            return []
        data = os.read(self._descriptor, 1024)
        if not data:
            raise EOFError
        return split(data.decode(errors="replace"))


@contextmanager
def keyboard() -> Iterator[Keyboard]:
    """Keys without echo, and without waiting for the end of a line. Ctrl-C stays what it
    is, Ctrl-Z does nothing."""
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        now = termios.tcgetattr(descriptor)
        now[_VALUES][termios.VSUSP] = b"\0"  # it would leave the terminal as it is now
        termios.tcsetattr(descriptor, termios.TCSANOW, now)
        yield Keyboard(descriptor)
    finally:
        termios.tcsetattr(descriptor, termios.TCSAFLUSH, before)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Signals that end the program come behind the block: half a screen would be written
    to the terminal when it is left."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, *ENDINGS))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
