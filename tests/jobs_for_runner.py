"""Workers for the tests of the runner, which tell and are told over named pipes."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from quelmdb.runner import Retry, Worker, current, exponential, worker

SOON = exponential(first=0.01, factor=1.0, jitter=0.0)


def tell(arguments: dict[str, Any], what: str) -> None:
    """A line into the pipe of the test: what, which job, and in which process."""
    job = current().job
    with open(arguments["tell"], "a") as pipe:
        pipe.write(f"{what} {job.id} {os.getpid()}\n")


def wait_for_gate(arguments: dict[str, Any]) -> None:
    """Blocks until the test lets one through."""
    with open(arguments["gate"], "r+b", buffering=0) as pipe:
        pipe.read(1)


class Noop(Worker):
    max_attempts = None

    def perform(self, arguments: Any) -> None:
        pass


class Gated(Worker):
    """Ends when it is let through, and says so."""

    def perform(self, arguments: dict[str, Any]) -> str:
        tell(arguments, "begun")
        wait_for_gate(arguments)
        tell(arguments, "ended")
        return "through"


class Endless(Worker):
    """Cannot be stopped, nor ends by itself."""

    timeout = 0.1
    max_attempts = 1

    def perform(self, arguments: dict[str, Any]) -> None:
        tell(arguments, "begun")
        time.sleep(3600)


class Killer(Worker):
    """Kills its process."""

    max_attempts = None

    def perform(self, arguments: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class Exiting(Worker):
    """Ends its process in another way."""

    max_attempts = None

    def perform(self, arguments: Any) -> None:
        os._exit(7 if arguments is None else arguments)


class KillerOnce(Worker):
    """Kills its process the first time."""

    max_attempts = 1

    def perform(self, arguments: Any) -> None:
        if current().job.attempt == 1:
            os.kill(os.getpid(), signal.SIGKILL)


@worker(backoff=SOON)
def again(arguments: dict[str, Any]) -> str:
    """Succeeds the third time."""
    if current().job.attempt < 3:
        raise Retry(0.01)
    return "third"


@worker
async def slow_answer(arguments: dict[str, Any]) -> int:
    tell(arguments, "begun")
    return int(arguments["number"])
