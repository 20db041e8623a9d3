"""What a worker is, how it is found, and how long it waits after a failure."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from quelmdb import Job, MemoryStore
from quelmdb.runner import TargetError, Worker, exponential, worker
from quelmdb.runner.backoff import DEFAULT, LONGEST, seconds_after
from quelmdb.runner.targets import Target, load, reference
from quelmdb.runner.workers import define
from quelmdb.values import worker_name
from tests import jobs_for_runner
from tests.jobs_for_runner import Noop, again

TARGETS = {
    "module.py": "from quelmdb.runner import Worker\n"
    "class Base(Worker): ...\n"
    "class Outer:\n    class Inner(Worker):\n        def perform(self, arguments): ...\n"
    "class One(Base):\n    def perform(self, arguments): ...\n"
    "number = 1\n",
    "broken.py": "1 / 0\n",
    "exits.py": "raise SystemExit('no\\nmore')\n",
    "needy.py": "import nowhere_to_be_found\n",
    "nothing.py": "from module import One\n",
    "twice.py": "from quelmdb.runner import worker\n"
    "@worker(name='n')\ndef a(arguments): ...\n@worker(name='n')\ndef b(arguments): ...\n",
}


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, text in TARGETS.items():
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in TARGETS:
        sys.modules.pop(name.removesuffix(".py"), None)


@pytest.mark.usefixtures("modules")
def test_a_target_is_a_class_a_function_or_all_of_a_module() -> None:
    assert [one.__name__ for one in load(["module"])] == ["One"]
    assert [one.__name__ for one in load(["module:Outer.Inner", "module:One"])] == ["Inner", "One"]
    assert load([Noop, "tests.jobs_for_runner:Noop"]) == [Noop]
    assert load([again])[0].worker_name() == "tests.jobs_for_runner:again"
    assert {one.worker_name().partition(":")[2] for one in load([jobs_for_runner])} >= {
        "Noop",
        "again",
    }


@pytest.mark.usefixtures("modules")
@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("module:Two", "module has no 'Two'"),
        ("module:number", "is no worker but int"),
        ("module:Base", "no perform"),
        ("modul", "there is no module modul"),
        ("pack.modul:x", "there is no module pack"),
        ("broken", "broken cannot be imported: ZeroDivisionError: division by zero"),
        ("exits:x", "exits cannot be imported: SystemExit: no more"),
        ("needy:x", "needy cannot be imported: ModuleNotFoundError"),
        ("nothing", "nothing defines no workers"),
        ("twice", "two workers have the name 'n'"),
        (":x", "is no target"),
        ("", "is no target"),
        (".a:x", "is no target"),
        (Job, "is no worker"),
    ],
)
def test_a_bad_target_is_one_clear_line(target: Target, says: str) -> None:
    with pytest.raises(TargetError) as raised:
        load([target])
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)


def test_nothing_to_run_is_an_error() -> None:
    with pytest.raises(TargetError, match="nothing to run"):
        load([])


def test_what_other_processes_cannot_find_is_an_error() -> None:
    class Local(Worker):
        def perform(self, arguments: Any) -> None: ...

    with pytest.raises(TargetError, match="at the top of its module"):
        reference(Local)


@pytest.mark.parametrize(
    ("attributes", "says"),
    [
        ({"concurrency": 0}, "concurrency is 1 or more"),
        ({"max_attempts": 1.5}, "max_attempts is 1 or more"),
        ({"timeout": 0}, "timeout is seconds above 0"),
        ({"timeout": "1"}, "timeout is seconds above 0"),
        ({"backoff": 3}, "backoff is a function"),
        ({"name": ""}, "a worker name"),
    ],
)
def test_options_that_make_no_sense_are_errors(attributes: dict[str, Any], says: str) -> None:
    made = type("Odd", (Noop,), attributes)
    with pytest.raises(TargetError, match=says):
        define(made)


def test_a_worker_that_is_no_function_is_an_error() -> None:
    with pytest.raises(TargetError, match="of a function"):
        worker(Noop)

    with pytest.raises(TargetError, match="async generator"):

        @worker
        async def perform(arguments: Any) -> Any:
            yield 1


def test_a_function_stays_a_function() -> None:
    @worker(max_attempts=7)
    def double(number: int) -> int:
        return 2 * number

    assert double(4) == 8
    with MemoryStore() as store:
        job = double.add(store, 4, priority=3, unique_key="k", max_attempts=2)
        assert (job.worker, job.arguments) == (worker_name(double), 4)
        assert (job.priority, job.unique_key, job.max_attempts) == (3, "k", 2)
        assert double.add(store, 5, unique_key="k", on_duplicate="skip").id == job.id
        assert [found.id for found in store.all(double)] == [job.id]


def test_a_name_of_its_own_is_the_name_in_the_store() -> None:
    @worker(name="mail.welcome")
    def welcome(arguments: Any) -> None: ...

    assert welcome.job().worker == "mail.welcome"
    assert Noop.job().worker == "tests.jobs_for_runner:Noop"


def test_a_backoff_is_an_object_a_method_or_a_function_of_the_attempt() -> None:
    class Object(Noop):
        backoff = exponential(first=2.0, jitter=0.0)

    class Function(Noop):
        backoff = lambda attempt: attempt + 0.5  # noqa: E731

    class Method(Noop):
        def backoff(self, attempt: int) -> float:  # type: ignore[override]
            return attempt + 0.25

    seconds = [define(one).backoff(2) for one in (Object, Function, Method)]
    assert seconds == [4.0, 2.5, 2.25]


def test_exponential_grows_up_to_its_limit_and_never_beyond() -> None:
    exact = exponential(first=1.0, factor=3.0, limit=50.0, jitter=0.0)
    assert [exact(n) for n in (1, 2, 3, 4, 5, 10**6)] == [1, 3, 9, 27, 50, 50]
    spread = exponential(first=10.0, factor=1.0, jitter=0.5)
    times = [spread(1) for _ in range(200)]
    assert 5.0 <= min(times) < 6.0
    assert 9.0 < max(times) <= 10.0


@pytest.mark.parametrize(
    "bad", [{"first": -1}, {"factor": 0.5}, {"limit": float("inf")}, {"jitter": 2}]
)
def test_an_exponential_of_bad_numbers_is_an_error(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="not"):
        exponential(**bad)


@pytest.mark.parametrize("says", [-1, float("nan"), float("inf"), "soon", None])
def test_a_backoff_that_says_no_time_is_replaced_by_the_default(says: Any) -> None:
    assert 0.8 <= seconds_after(lambda attempt: says, 1) <= DEFAULT(1) + 0.2
    assert seconds_after(lambda attempt: 1e300, 1) == LONGEST
