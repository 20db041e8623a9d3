"""Runners as processes of their own, and the pipes over which their jobs talk with a test."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

ROOT: Final = Path(__file__).parents[1]
PATIENCE: Final = 40.0  # seconds, after which something is taken for hanging

_CODE: Final = """
import json, sys
from quelmdb.runner import run
sys.exit(run(sys.argv[1], sys.argv[3:], **json.loads(sys.argv[2])))
"""


class Runner:
    """`quelmdb.runner.run` in a process, and what it has started; killed at the end."""

    def __init__(self, store: Path, *targets: str, **options: Any) -> None:
        options = {"log_level": "DEBUG", **options}
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115  closed by `__exit__`
        self._process = subprocess.Popen(
            [sys.executable, "-c", _CODE, str(store), json.dumps(options), *targets],
            cwd=ROOT,
            stderr=self._log,
            start_new_session=True,
        )
        self.pid = self._process.pid

    def signal(self, number: signal.Signals) -> None:
        """To the supervisor alone."""
        os.kill(self.pid, number)

    def ctrl_c(self) -> None:
        """To all its processes, as a terminal does."""
        os.killpg(self.pid, signal.SIGINT)

    def end(self) -> tuple[int, str]:
        """Waits for the end: exit code and log."""
        try:
            code = self._process.wait(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"it does not end; so far:\n{self.log()}") from None
        return code, self.log()

    def log(self) -> str:
        """What it has logged so far."""
        return os.pread(self._log.fileno(), 2**24, 0).decode()

    def logs(self, text: str) -> None:
        """Waits until it has logged that."""
        eventually(lambda: text in self.log())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *reason: object) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        self._log.close()


class Said(NamedTuple):
    what: str
    job: int
    pid: int


class Pipes:
    """Where jobs tell what they do, and the gate at which they wait."""

    def __init__(self, directory: Path) -> None:
        self.arguments = {"tell": str(directory / "tell"), "gate": str(directory / "gate")}
        self._ends = []
        for path in self.arguments.values():
            os.mkfifo(path)
            self._ends.append(os.open(path, os.O_RDWR))
        self._text = ""

    def hear(self) -> Said:
        """What a job tells next."""
        while "\n" not in self._text:
            if not select.select([self._ends[0]], [], [], PATIENCE)[0]:
                raise TimeoutError("no job said anything")
            self._text += os.read(self._ends[0], 4096).decode()
        line, self._text = self._text.split("\n", 1)
        what, job, pid = line.split()
        return Said(what, int(job), int(pid))

    def let_through(self, count: int = 1) -> None:
        """Opens the gate for so many."""
        os.write(self._ends[1], b"." * count)

    def close(self) -> None:
        for end in self._ends:
            os.close(end)


def eventually(holds: Callable[[], bool]) -> None:
    """Waits until something holds in a store, of which nobody tells."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError("it never came to hold")
        time.sleep(0.005)


def is_alive(pid: int) -> bool:
    """Whether there is such a process, and it is no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"
