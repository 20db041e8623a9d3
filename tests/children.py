"""Child processes for tests: they report over a pipe, and are killed when a test is done."""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, Final, NamedTuple, Self, TypeVar

T = TypeVar("T")

METHODS: Final = ("fork", "spawn", "forkserver")

_PATIENCE: Final = 60.0  # seconds, after which a child is taken for hanging
_PR_SET_PDEATHSIG: Final = 1  # prctl(2)


class ChildDiedError(Exception):
    """A child ended before it had an answer: of a signal where `exit_code` is negative."""

    def __init__(self, exit_code: int | None) -> None:
        super().__init__(f"the child ended with {exit_code}")
        self.exit_code = exit_code


class _Raised(NamedTuple):
    error: BaseException


class Child:
    """A process that runs `work(pipe, *arguments)`; what that returns or raises is the
    last thing that `receive` tells. Killed at the end of its `with` block.

    `work` is any function where the method is "fork", else one that can be imported.
    """

    def __init__(
        self, work: Callable[..., object], *arguments: object, method: str = "fork"
    ) -> None:
        context: Any = get_context(method)
        if method == "forkserver":
            context.set_forkserver_preload(["pytest", "quelmdb"])  # once, not in each child
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=_run, args=(work, theirs, arguments))
        self._process.start()
        theirs.close()
        self.pid: int = self._process.pid

    def receive(self) -> Any:
        """What it sends next, returns, or (raised here) raises. Raises `ChildDiedError`
        where it ended before that."""
        if not self.pipe.poll(_PATIENCE):
            raise TimeoutError(f"the child {self.pid} said nothing for {_PATIENCE} s")
        try:
            said = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            raise ChildDiedError(self.join()) from None
        if isinstance(said, _Raised):
            raise said.error
        return said

    def send(self, what: object = None) -> None:
        with suppress(BrokenPipeError):  # it has ended: `receive` tells why
            self.pipe.send(what)

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """Ends it with SIGKILL. On return all that it held of the system is free."""
        self._process.kill()
        self.join()

    def join(self) -> int | None:
        """Waits for its end, and returns its exit code."""
        self._process.join()
        code: int | None = self._process.exitcode
        return code

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *reason: object) -> None:
        self.kill()
        self.pipe.close()


def in_child(work: Callable[..., T], *arguments: object, method: str = "fork") -> T:
    """What `work(*arguments)` returns, or raises, in a process of its own."""
    with Child(_alone, work, arguments, method=method) as child:
        result: T = child.receive()
        child.join()
        return result


def in_children(count: int, work: Callable[..., T], *arguments: object, method: str) -> list[T]:
    """What `work(number, *arguments)` returns in each of `count` processes, which run at
    the same time and begin at the same moment."""
    children = [
        Child(_when_told, work, (number, *arguments), method=method) for number in range(count)
    ]
    try:
        for child in children:
            child.receive()
        for child in children:
            child.send()
        return [child.receive() for child in children]
    finally:
        for child in children:
            child.kill()


def _run(work: Callable[..., object], pipe: Connection, arguments: tuple[object, ...]) -> None:
    if sys.platform == "linux":  # no orphans, where a test kills what has children itself
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    try:
        said: object = work(pipe, *arguments)
    except BaseException as error:
        error.add_note(traceback.format_exc())
        said = _Raised(_that_can_be_sent(error))
    pipe.send(said)
    pipe.close()


def _that_can_be_sent(error: BaseException) -> BaseException:
    try:
        pickle.dumps(error)
    except Exception:  # one of pytest's
        return AssertionError(traceback.format_exc())
    return error


def _alone(pipe: Connection, work: Callable[..., T], arguments: tuple[object, ...]) -> T:
    return work(*arguments)


def _when_told(pipe: Connection, work: Callable[..., T], arguments: tuple[object, ...]) -> T:
    pipe.send("ready")
    pipe.recv()
    return work(*arguments)
