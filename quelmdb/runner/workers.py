"""What a worker is: a subclass of `Worker`, or a function with `@worker`."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from types import FunctionType
from typing import Any, ClassVar, Final, ParamSpec, Protocol, TypeVar, overload

from quelmdb.errors import InvalidJobError, QuelmdbError
from quelmdb.job import Job
from quelmdb.persistence import JobStore
from quelmdb.runner.backoff import DEFAULT, Backoff
from quelmdb.values import worker_name
from quelmdb.writes import OnDuplicate

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)

MAX_ATTEMPTS: Final = 3


class TargetError(QuelmdbError, ValueError):
    """What is to be run is no worker, or cannot be loaded."""


class Worker:
    """What works on jobs: a subclass says how, in `perform`.

    A process makes one object of it (without arguments) and calls that for each of its
    jobs, from several threads at the same time where it may have several. Where `perform`
    is `async def`, it is called in the event loop of the process; so are hooks that are.
    Where it is a generator, each `yield` is a place to stop: a job whose cancellation was
    asked for, or whose time is over, goes no further; a `Progress` that it yields is
    stored, and what it returns is the result.

    The hooks come in Que's order: `on_setup`, `perform`, `on_success` or `on_failure`,
    `on_teardown`, for every attempt. What a hook raises is logged, and changes nothing.
    """

    name: ClassVar[str | None] = None
    """Its name in the store; `module:qualname` where it has none."""
    concurrency: ClassVar[int | None] = None
    """How many of its jobs a process runs at the same time; None: as many as it can."""
    max_attempts: ClassVar[int | None] = MAX_ATTEMPTS
    """After so many a job is failed for good; None: never. A job's own number wins. An attempt
    counts from its claim on: a job that was claimed ahead has lost one where the process dies
    before it began. Not so where this is 1: such jobs are claimed only when they can begin.
    Short ones are slower for it: 3,400 no-ops a second instead of 31,000, in a store
    with "full" durability 400 instead of 20,000 (one process on two shared cores)."""
    timeout: ClassVar[float | None] = None
    """How many seconds an attempt may take; None: any. A coroutine that takes longer is
    cancelled, a generator ends at its next `yield`. A thread cannot be stopped from
    outside: the process takes no more jobs, is replaced by another one, finishes what else
    it runs, and ends, and the job's thread with it. Only then is the attempt failed, so
    that no two attempts of a job run at the same time."""
    backoff: ClassVar[Backoff] = DEFAULT
    """How many seconds after a failed attempt the next one may begin."""

    def perform(self, arguments: Any) -> Any:
        """Does a job, and returns its result (None, or what CBOR carries). Whatever it
        raises ends the attempt as failed; `Retry` says when the next one is to be, `Discard`
        that there is to be none."""
        raise NotImplementedError(f"{type(self).__qualname__} has no perform(arguments)")

    def on_setup(self, job: Job) -> Any:
        """Called before `perform`."""

    def on_success(self, arguments: Any) -> Any:
        """Called when `perform` has returned, before that is stored."""

    def on_failure(self, arguments: Any, error: BaseException) -> Any:
        """Called when an attempt has failed, before that is stored."""

    def on_teardown(self, job: Job) -> Any:
        """Called at last, whatever became of it."""

    @classmethod
    def job(
        cls,
        arguments: Any = None,
        *,
        run_at: datetime | None = None,
        priority: int = 0,
        unique_key: str | None = None,
        max_attempts: int | None = None,
    ) -> Job:
        """A job for this worker that is not stored yet, for `insert_many` and batches.

        `max_attempts` is its own. Without one the worker's holds, as it is when the job is
        run: it is not stored with the job, which would make each of them a rare one.
        """
        return Job(
            cls.worker_name(),
            arguments,
            run_at=run_at,
            priority=priority,
            unique_key=unique_key,
            max_attempts=max_attempts,
        )

    @classmethod
    def add(
        cls,
        store: JobStore,
        arguments: Any = None,
        *,
        run_at: datetime | None = None,
        priority: int = 0,
        unique_key: str | None = None,
        max_attempts: int | None = None,
        on_duplicate: OnDuplicate = "raise",
    ) -> Job:
        """Stores a job for this worker (see `job`), and returns it. Raises as
        `JobStore.insert`."""
        job = cls.job(
            arguments,
            run_at=run_at,
            priority=priority,
            unique_key=unique_key,
            max_attempts=max_attempts,
        )
        return store.insert(job, on_duplicate)

    @classmethod
    def worker_name(cls) -> str:
        """Its name in the store."""
        name = worker_name(cls if cls.name is None else cls.name)
        assert name is not None
        return name


class WorkerFunction(Protocol[P, R_co]):
    """A function that `@worker` has made a worker of: it can still be called."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...

    def job(
        self,
        arguments: Any = None,
        *,
        run_at: datetime | None = None,
        priority: int = 0,
        unique_key: str | None = None,
        max_attempts: int | None = None,
    ) -> Job:
        """As `Worker.job`."""

    def add(
        self,
        store: JobStore,
        arguments: Any = None,
        *,
        run_at: datetime | None = None,
        priority: int = 0,
        unique_key: str | None = None,
        max_attempts: int | None = None,
        on_duplicate: OnDuplicate = "raise",
    ) -> Job:
        """As `Worker.add`."""


@overload
def worker(function: Callable[P, R_co], /) -> WorkerFunction[P, R_co]: ...


@overload
def worker(
    *,
    name: str | None = None,
    concurrency: int | None = None,
    max_attempts: int | None = MAX_ATTEMPTS,
    timeout: float | None = None,
    backoff: Backoff = DEFAULT,
) -> Callable[[Callable[P, R_co]], WorkerFunction[P, R_co]]: ...


def worker(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    concurrency: int | None = None,
    max_attempts: int | None = MAX_ATTEMPTS,
    timeout: float | None = None,
    backoff: Backoff = DEFAULT,
) -> Any:
    """Makes a worker of a function of the arguments: plain, async or a generator.

    The options are those of `Worker`. The function stays what it is, and has `add` and
    `job` besides. Raises `TargetError` for options that make no sense.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        if not isinstance(function, FunctionType):
            raise TargetError(f"@worker makes a worker of a function, not of {function!r}")
        made: Any = type(
            function.__name__,
            (Worker,),
            {
                "__module__": function.__module__,
                "__qualname__": function.__qualname__,
                "__doc__": function.__doc__,
                "perform": staticmethod(function),
                "name": name,
                "concurrency": concurrency,
                "max_attempts": max_attempts,
                "timeout": timeout,
                "backoff": staticmethod(backoff),
            },
        )
        check(made)
        for attribute, value in (("add", made.add), ("job", made.job), (_MADE, made)):
            setattr(function, attribute, value)
        return function

    return decorate if function is None else decorate(function)


_MADE: Final = "__quelmdb_worker__"  # of a function: the class that was made of it


def made_of(value: Any) -> type[Worker] | None:
    """The worker that this is, or that was made of it; None where it is something else."""
    if isinstance(value, FunctionType):
        return vars(value).get(_MADE)
    return value if isinstance(value, type) and issubclass(value, Worker) else None


@dataclass(frozen=True, slots=True, eq=False)
class Definition:
    """A worker as a process runs it: made once, looked at for every job."""

    name: str
    concurrency: int | None
    max_attempts: int | None
    timeout: float | None
    backoff: Backoff
    is_async: bool
    is_generator: bool
    perform: Callable[[Any], Any]
    # None where the class has not overridden it, so that it costs nothing.
    on_setup: Callable[[Job], Any] | None
    on_success: Callable[[Any], Any] | None
    on_failure: Callable[[Any, BaseException], Any] | None
    on_teardown: Callable[[Job], Any] | None


def define(found: type[Worker]) -> Definition:
    """Makes the process's object of a worker. Raises `TargetError`, and what making it
    raises."""
    check(found)
    made = found()

    def hook(name: str) -> Any:
        return None if getattr(found, name) is getattr(Worker, name) else getattr(made, name)

    return Definition(
        name=found.worker_name(),
        concurrency=found.concurrency,
        max_attempts=found.max_attempts,
        timeout=found.timeout,
        backoff=_backoff_of(found, made),
        is_async=inspect.iscoroutinefunction(made.perform),
        is_generator=inspect.isgeneratorfunction(made.perform),
        perform=made.perform,
        on_setup=hook("on_setup"),
        on_success=hook("on_success"),
        on_failure=hook("on_failure"),
        on_teardown=hook("on_teardown"),
    )


def _backoff_of(found: type[Worker], made: Worker) -> Backoff:
    """A function of the attempt alone that stands in the class is meant as it stands, and
    not as a method."""
    plain = inspect.getattr_static(found, "backoff")
    if isinstance(plain, FunctionType) and len(inspect.signature(plain).parameters) == 1:
        return plain
    backoff: Backoff = getattr(made, "backoff")  # noqa: B009  as a method, where it is one
    return backoff


def check(found: type[Worker]) -> None:
    """Raises `TargetError` for what cannot be run."""
    what = f"{found.__module__}:{found.__qualname__}"
    for name in ("concurrency", "max_attempts"):
        value = getattr(found, name)
        if value is not None and (type(value) is not int or value < 1):
            raise TargetError(f"{what}: {name} is 1 or more, or None, not {value!r}", found=value)
    timeout = found.timeout
    is_number = isinstance(timeout, int | float) and 0 < timeout < math.inf
    if timeout is not None and not is_number:
        raise TargetError(f"{what}: timeout is seconds above 0, or None, not {timeout!r}")
    if not callable(found.backoff):
        raise TargetError(f"{what}: backoff is a function of the attempt, not {found.backoff!r}")
    if found.perform is Worker.perform:
        raise TargetError(f"{what} has no perform(arguments)")
    if inspect.isasyncgenfunction(found.perform):
        raise TargetError(f"{what}: perform cannot be an async generator")
    try:
        found.worker_name()
    except InvalidJobError as error:
        raise TargetError(f"{what}: {error}") from None
