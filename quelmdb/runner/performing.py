"""One attempt of one job: the hooks and `perform`, and what came of it.

Whatever a worker raises, SystemExit among it, ends its attempt and nothing else.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Callable, Generator
from contextvars import ContextVar
from typing import Any, Final

from quelmdb.errors import DecodeError
from quelmdb.job import Job
from quelmdb.options import Progress
from quelmdb.persistence import JobStore
from quelmdb.runner.workers import Definition

log = logging.getLogger("quelmdb.runner")


class Retry(Exception):
    """Raised by `perform`: end this attempt, and try again `after` seconds from now instead
    of what the worker's backoff says. The attempt counts, as any that failed."""

    def __init__(self, after: float, why: str = "asked for another attempt") -> None:
        super().__init__(f"{why} (after {after:g} s)")
        self.after = after

    def backoff(self, attempt: int) -> float:
        """Whatever the attempt."""
        return self.after


class Discard(Exception):
    """Raised by `perform`: no attempt will help, the job is failed for good at once. Its
    error is `why`, as it stands, without a traceback."""

    def __init__(self, why: str = "discarded by its worker") -> None:
        super().__init__(why)


class TimedOut(Exception):
    """The attempt took longer than its worker's `timeout`; `on_failure` is given this."""


class Cancelled(Exception):
    """A generator was stopped, since the job's cancellation was asked for; `on_failure` is
    given this."""


class Running:
    """A job that is being run: what `current` returns to its worker."""

    __slots__ = (
        "deadline",
        "definition",
        "error",
        "is_given_up",
        "is_overdue",
        "job",
        "result",
        "seconds",
        "started",
        "store",
    )

    def __init__(self, store: JobStore, job: Job, definition: Definition) -> None:
        self.store = store
        """The store that the job is from, for follow-ups."""
        self.job = job
        """As it was claimed. `job.claim` only grows, in the whole store, from attempt to
        attempt: a fence for writes elsewhere."""
        self.definition = definition
        self.started = time.monotonic()
        timeout = definition.timeout
        self.deadline = None if timeout is None else self.started + timeout
        self.is_overdue = False
        self.is_given_up = False  # it is settled already, whatever its thread still does
        # What came of it: a result, or an error where there is one.
        self.result: Any = None
        self.error: BaseException | None = None
        self.seconds = 0.0

    def end(self) -> None:
        """Its result or error is known."""
        self.seconds = time.monotonic() - self.started

    def progress(self, done: int, total: int | None = None, note: str | None = None) -> None:
        """Stores how far the job has got, as `JobStore.progress`: a transaction of its own.

        In a coroutine it is sent on its way and not waited for; what goes wrong then is
        logged.
        """
        if self.definition.is_async:
            sent = self.store.submit.progress(self.job, done, total, note)
            sent.add_done_callback(lambda future: _log_progress(self.job, future.exception()))
        else:
            self.store.progress(self.job, done, total, note)

    def cancel_requested(self) -> bool:
        """Whether the job should stop: its cancellation was asked for, or another process
        has it by now. One cheap read. Who stops raises something: the job is cancelled
        then. One that returns is completed."""
        return self.store.cancel_requested(self.job)


_current: Final[ContextVar[Running]] = ContextVar("quelmdb.runner.current")


def current() -> Running:
    """The job that the caller is working on. Raises `LookupError` outside of a worker."""
    try:
        return _current.get()
    except LookupError:
        raise LookupError("current() is for workers: no job is run here") from None


def perform(running: Running) -> None:
    """Runs a plain or generator worker in this thread. Never raises."""
    definition, job = running.definition, running.job
    _current.set(running)
    try:
        arguments = job.arguments
    except DecodeError as damage:
        running.error = _unreadable(damage)
        running.end()
        return
    if definition.on_setup is not None:
        _call(definition.on_setup, job)
    try:
        result = definition.perform(arguments)
        running.result = _drive(running, result) if definition.is_generator else result
    except BaseException as raised:
        running.error = raised
    if running.is_overdue and not isinstance(running.error, TimedOut | Discard):
        running.error = _timed_out(definition)
    if running.error is None:
        if definition.on_success is not None:
            _call(definition.on_success, arguments)
    elif definition.on_failure is not None:
        _call(definition.on_failure, arguments, running.error)
    if definition.on_teardown is not None:
        _call(definition.on_teardown, job)
    running.end()


async def perform_async(running: Running) -> None:
    """Runs an async worker in this task. Never raises."""
    definition, job = running.definition, running.job
    _current.set(running)
    try:
        arguments = job.arguments
    except DecodeError as damage:
        running.error = _unreadable(damage)
        running.end()
        return
    await _call_async(definition.on_setup, job)
    running.result, running.error = await _await(definition, arguments)
    if running.error is None:
        await _call_async(definition.on_success, arguments)
    else:
        await _call_async(definition.on_failure, arguments, running.error)
    await _call_async(definition.on_teardown, job)
    running.end()


async def _await(definition: Definition, arguments: Any) -> tuple[Any, BaseException | None]:
    try:
        if definition.timeout is None:
            return await definition.perform(arguments), None
        limit = asyncio.timeout(definition.timeout)
        try:
            async with limit:
                return await definition.perform(arguments), None
        except TimeoutError as error:
            return None, _timed_out(definition) if limit.expired() else error
    except BaseException as error:
        return None, error


def _drive(running: Running, steps: Generator[Any, None, Any]) -> Any:
    """What a generator returns, run to its end or to where it is to stop."""
    try:
        while True:
            step = next(steps)
            if isinstance(step, Progress):
                running.progress(*step)
            if running.is_overdue:
                raise _timed_out(running.definition)
            if running.cancel_requested():
                raise Cancelled("its cancellation was asked for")
    except StopIteration as end:
        return end.value
    finally:
        steps.close()


def _unreadable(damage: DecodeError) -> Discard:
    return Discard(f"its arguments cannot be read: {damage}")


def _timed_out(definition: Definition) -> TimedOut:
    return TimedOut(f"timed out: it took longer than {definition.timeout:g} s")


def time_out(running: Running) -> None:
    """Its time is over, though its thread cannot be stopped."""
    running.error = _timed_out(running.definition)
    running.end()


def _call(hook: Callable[..., Any], *arguments: Any) -> None:
    try:
        hook(*arguments)
    except BaseException:
        _log_hook(hook)


async def _call_async(hook: Callable[..., Any] | None, *arguments: Any) -> None:
    if hook is None:
        return
    try:
        returned = hook(*arguments)
        if inspect.isawaitable(returned):
            await returned
    except BaseException:
        _log_hook(hook)


def _log_hook(hook: Callable[..., Any]) -> None:
    name = getattr(hook, "__qualname__", repr(hook))
    log.warning("%s raised, which changes nothing for its job", name, exc_info=True)


def _log_progress(job: Job, error: BaseException | None) -> None:
    if error is not None:
        log.warning("the progress of job %s could not be stored: %s", job.id, error)
