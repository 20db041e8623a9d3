"""Replays recordings of the real Que against a store, and compares every result.

A recording (`traces/*.json`, taken from Que 0.12.0 on Mnesia) is a list of steps,
each with `op`, `args` and `result`; its field `encoding` explains them. Every field of
every job is compared. Where the contract differs from Que on purpose, a method of
`_Differences` says so and why; nothing else is forgiven.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from importlib.resources import files
from typing import Any, Final

from quelmdb.errors import InvalidJobError, JobExistsError, QuelmdbError
from quelmdb.job import Job
from quelmdb.persistence import Persistence
from quelmdb.testing.clock import ManualClock

Trace = dict[str, Any]

_TRACES: Final = files("quelmdb.testing") / "traces"
_STEP: Final = 1_000  # microseconds from one step to the next


class Mismatch(AssertionError):
    """A store did not do what Que did. `step` is the number of the step."""

    def __init__(self, step: int, message: str) -> None:
        super().__init__(f"step {step}: {message}")
        self.step = step


def trace_names() -> list[str]:
    """The recordings that come with the kit."""
    return sorted(
        entry.name.removesuffix(".json")
        for entry in _TRACES.iterdir()
        if entry.name.endswith(".json")
    )


def load_trace(name: str) -> Trace:
    """The recording of that name."""
    trace: Trace = json.loads((_TRACES / f"{name}.json").read_text("utf-8"))
    return trace


def replay(trace: Trace, store: Persistence, clock: ManualClock) -> int:
    """Does every step of a recording on a new store whose time is `clock`'s.

    Returns how many results were compared. Raises `Mismatch` at the first that differs.
    """
    run = _Replay(store, clock)
    return sum(run.step(step) for step in trace["steps"])


class _Differences:
    """Every difference between Que and the contract that a recording can show."""

    def __init__(self) -> None:
        self._shifts = [(0, 0)]  # from this id of Que's on, ours is so much larger
        self._highest = 0  # of Que's ids so far
        self._our_highest = 0
        self.created_at: dict[int, datetime] = {}  # by Que's id: what our stored job has

    def is_ready(self, op: str, ready: bool) -> bool:
        """Before `initialize` Que has no table and every call raises. When a store is
        ready without `initialize` is its own affair, so such steps are left out."""
        return ready or op == "initialize"

    def initialized(self, result: object) -> None:
        """Que answers the second time with an error; the contract is idempotent."""

    def our_id(self, que_id: int) -> int:
        """Que gives an id again when the largest job was destroyed; the contract never
        does. So from such an id on ours are larger, in the same order."""
        shift = next(shift for start, shift in reversed(self._shifts) if que_id >= start)
        return que_id + shift

    def gave(self, que_id: int, our_id: int) -> bool:
        """Notes which ids both gave to one job; False where ours is not allowed."""
        if que_id > self._highest:
            return our_id == self.our_id(que_id)
        self._shifts = [(start, shift) for start, shift in self._shifts if start < que_id]
        self._shifts.append((que_id, our_id - que_id))
        return our_id > self._our_highest

    def stored(self, que_id: int, created_at: datetime | None) -> None:
        """Notes that both have the job."""
        assert created_at is not None
        self.created_at[que_id] = created_at
        self._highest = max(self._highest, que_id)
        self._our_highest = max(self._our_highest, self.our_id(que_id))

    def insert(self, store: Persistence, job: Job, que_id: int | None, now: datetime) -> Job:
        """Que's insert overwrites a job with that id; the contract's raises, since an
        insert must not lose data. An update does then what Que did."""
        if que_id not in self.created_at:
            return store.insert(job)
        before = store.find(job)
        try:
            store.insert(job)
        except JobExistsError:
            _same(store.find(job), before)
        else:
            raise _Differs("insert took an id that is taken")
        return store.update(job.replace(created_at=now))

    def created(self, recorded: datetime | None, que_id: int, now: datetime) -> datetime:
        """Que's update of a bare job makes created_at nil; under the contract a job always
        has both times: the stored one stays, and where there is none it becomes now."""
        return recorded or self.created_at.get(que_id, now)

    def status(self, recorded: str | None) -> str:
        """Que stores any status, nil too; the contract knows six. In the recordings only
        jobs that stand for their id have none: they get the default."""
        return recorded or "queued"

    def error(self, exception: str) -> type[QuelmdbError]:
        """What Que raises for a value that is no job; the contract has one error for it."""
        return {"BadMapError": InvalidJobError, "KeyError": InvalidJobError}[exception]


class _Replay:
    def __init__(self, store: Persistence, clock: ManualClock) -> None:
        self._store = store
        self._clock = clock
        self._times: dict[str, datetime] = {}  # by their name in the recording
        self._ready = False
        self._differences = _Differences()

    def step(self, step: dict[str, Any]) -> bool:
        """Does one step and compares its result; whether it was compared."""
        number, op, args, expected = step["i"], step["op"], step["args"], step["result"]
        if not self._differences.is_ready(op, self._ready):
            return False
        self._clock.advance(_STEP)
        self._times[f"t{number}"] = self._clock.time
        try:
            if isinstance(expected, dict) and "raise" in expected:
                self._raises(op, args, expected["raise"])
            else:
                self._compared(op)(args, expected)
        except _Differs as difference:
            raise Mismatch(number, f"{op}{tuple(args)}: {difference}") from None
        except QuelmdbError as error:
            raise Mismatch(number, f"{op}{tuple(args)} raised {error!r}") from error
        return True

    def _compared(self, op: str) -> Callable[[list[Any], Any], None]:
        operations: dict[str, Callable[[list[Any], Any], None]] = {
            "initialize": self._initialize,
            "insert": self._insert,
            "update": self._update,
            "destroy": self._destroy,
            "find": self._find,
        }
        return operations.get(op) or partial(self._listing, op)

    def _initialize(self, args: list[Any], expected: Any) -> None:
        self._store.initialize()
        self._differences.initialized(expected)
        self._ready = True

    def _insert(self, args: list[Any], expected: dict[str, Any]) -> None:
        (given,) = args
        job, now = self._given(given), self._clock.time
        returned = self._differences.insert(self._store, job, given["id"], now)
        self._stored(given, returned, expected)

    def _update(self, args: list[Any], expected: dict[str, Any]) -> None:
        (given,) = args
        self._stored(given, self._store.update(self._given(given)), expected)

    def _stored(self, given: dict[str, Any], returned: Job, expected: dict[str, Any]) -> None:
        que_id = expected["id"]
        assert returned.id is not None
        if given["id"] is None and not self._differences.gave(que_id, returned.id):
            raise _Differs(f"the id {returned.id} was given where Que gave {que_id}")
        wanted = self._expected(expected)
        _same(returned, wanted)
        self._differences.stored(que_id, wanted.created_at)

    def _destroy(self, args: list[Any], expected: Any) -> None:
        (given,) = args
        self._store.destroy(self._job_or_id(given))
        que_id = given["id"] if isinstance(given, dict) else given
        self._differences.created_at.pop(que_id, None)

    def _find(self, args: list[Any], expected: dict[str, Any] | None) -> None:
        (given,) = args
        wanted = None if expected is None else self._expected(expected)
        _same(self._store.find(self._job_or_id(given)), wanted)

    def _listing(self, op: str, args: list[Any], expected: list[dict[str, Any]]) -> None:
        listed = list(getattr(self._store, op)(*args))
        _same(len(listed), len(expected))
        for found, job in zip(listed, expected, strict=True):
            _same(found, self._expected(job))

    def _raises(self, op: str, args: list[Any], expected: dict[str, str]) -> None:
        wanted = self._differences.error(expected["exception"])
        bare = [
            given["plain_map"] if isinstance(given, dict) and "plain_map" in given else given
            for given in args
        ]
        try:
            getattr(self._store, op)(*bare)
        except wanted:
            return
        raise _Differs(f"no {wanted.__name__} where Que raised {expected['exception']}")

    def _given(self, job: dict[str, Any]) -> Job:
        """The job that is handed to our store where Que got `job`."""
        que_id = job["id"]
        return Job(
            job["worker"],
            job["arguments"],
            id=None if que_id is None else self._differences.our_id(que_id),
            status=self._differences.status(job["status"]),
            created_at=self._time(job["created_at"]),
            updated_at=self._time(job["updated_at"]),
        )

    def _expected(self, job: dict[str, Any]) -> Job:
        """The job that our store must tell where Que told `job`."""
        ours = self._given(job)
        created_at = self._differences.created(ours.created_at, job["id"], self._clock.time)
        return ours.replace(created_at=created_at)

    def _job_or_id(self, given: dict[str, Any] | int | None) -> Job | int | None:
        if isinstance(given, dict):
            return self._given(given)
        return None if given is None else self._differences.our_id(given)

    def _time(self, time: str | None) -> datetime | None:
        """ "t7" is the time of step 7, whatever that was; else a literal in UTC."""
        if time is None:
            return None
        if time.startswith("t"):
            return self._times[time]
        return datetime.fromisoformat(time).replace(tzinfo=UTC)


class _Differs(Exception):
    """What differs, in words."""


def _same(found: object, expected: object) -> None:
    if _comparable(found) != _comparable(expected):
        raise _Differs(f"{found!r}, where Que's result means {expected!r}")


def _comparable(value: object) -> object:
    if not isinstance(value, Job):
        return value
    fields = value.as_dict()
    fields["arguments"] = json.dumps(fields["arguments"], sort_keys=True)  # 1 is not True
    return fields
