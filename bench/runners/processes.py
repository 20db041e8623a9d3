"""A runner in processes of its own: started, looked at from outside, and ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from bench.compare.children import processes

T = TypeVar("T")

ROOT: Final = Path(__file__).parents[2]
PATIENCE: Final = 300.0  # seconds, after which a runner is taken for hanging

_LOOK_SECONDS: Final = 0.02
_TICKS: Final = os.sysconf("SC_CLK_TCK")
# Fields of /proc/<pid>/stat behind the name, from the state on (proc(5)).
_SESSION, _USER, _SYSTEM = 3, 11, 12


class Runner:
    """A command of Python in a session of its own; whatever is left is killed at the end."""

    def __init__(
        self, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self._log = log
        with log.open("w") as output:
            self._process = subprocess.Popen(
                [sys.executable, *command],
                cwd=ROOT,
                env={**os.environ, **(environment or {})},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def cpu_seconds(self) -> float:
        """What all its processes have used so far, to 10 ms each. Linux alone."""
        spent = 0
        for entry in Path("/proc").glob("[0-9]*"):
            fields = _stat(entry)
            if fields and int(fields[_SESSION]) == self._process.pid:
                spent += int(fields[_USER]) + int(fields[_SYSTEM])
        return spent / _TICKS

    def until(self, holds: Callable[[], bool]) -> None:
        """Waits for something that it is to do. Raises where it ends first, or hangs."""
        deadline = time.monotonic() + PATIENCE
        while not holds():
            if self._process.poll() is not None:
                raise self._gone(f"ended early, with {self._process.returncode}")
            if time.monotonic() > deadline:
                raise self._gone("hangs")
            time.sleep(_LOOK_SECONDS)

    def end(self, stop: signal.Signals | None = None) -> None:
        """Waits for its end, which the signal asks for. Raises where that is not in order."""
        if stop is not None:
            os.kill(self._process.pid, stop)
        try:
            code = self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise self._gone("does not end") from None
        if code:
            raise self._gone(f"ended with {code}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *reason: object) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _gone(self, what: str) -> RuntimeError:
        return RuntimeError(f"{self._process.args!r} {what}:\n{self._log.read_text()[-2000:]}")


def in_a_process(work: Callable[..., T], *arguments: Any) -> T:
    """What a function of a module returns, called in a fresh process."""
    with processes(1) as (executor, _):
        return executor.submit(work, *arguments).result()


def noted(path: Path) -> list[int]:
    """The numbers that jobs have noted in a file, but for a line that is being written."""
    if not path.exists():
        return []
    return [int(line) for line in path.read_text().splitlines(keepends=True) if line[-1] == "\n"]


def _stat(entry: Path) -> list[str]:
    """Empty where the process is gone."""
    try:
        return (entry / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
