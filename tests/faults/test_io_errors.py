"""Calls of the system that fail: the caller hears of it, and nothing acknowledged is lost.

What holds of a write whose call of the system fails:

- The caller gets an error of `quelmdb.errors`, which says which file it was. No failed sync passes
  for a good one.
- It is wholly there or not at all. Where LMDB's last step fails, the write of the meta page and its
  sync, which of the two is unknown to the process that made it, and to the caller: the error says
  so, and says that the store is to be opened again. In every other case it is not there.
- What had been acknowledged is there.
- In the same process the next write works once the fault is gone; or says that the store is to be
  opened again, and then it works. So it does in other processes.

`test_broken_medium` has what holds of several threads, and of pages that cannot be read.
"""

from __future__ import annotations

import itertools
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple

import pytest

import quelmdb
from quelmdb import Job, QuelmdbError
from tests.children import Child, ChildDiedError, in_child
from tests.durabilities import DURABILITIES
from tests.faults.calls import needs_calls
from tests.faults.figures import Tell
from tests.faults.injection import NONE, SYNCS, Fault, Injector, kinds_of
from tests.faults.seeds import new_seed
from tests.inmemory import MEMORY

pytest_plugins = ["tests.fixtures"]
pytestmark = needs_calls

State = dict[int, Job]

_BIG: Final = b"x" * 9000
_SOME: Final = 12  # faults, in the short form
_NO_CALLS: Final[Counter[str]] = Counter()


class Deed(NamedTuple):
    """What is done while a call fails."""

    act: Callable[[quelmdb.Store, Any], object]
    prepare: Callable[[quelmdb.Store], Any] = lambda store: None


def _batch(store: quelmdb.Store, held: list[Job]) -> None:
    with store.batch() as batch:
        batch.complete(held[0], result=_BIG)
        batch.insert_many([Job("new", _BIG)] * 3)
        batch.destroy(1)


DEEDS: Final[dict[str, Deed]] = {
    "insert": Deed(lambda store, _: store.insert(Job("new worker", {"n": 1}))),
    "insert_many": Deed(lambda store, _: store.insert_many([Job("a", _BIG)] * 9)),
    "claim": Deed(lambda store, _: store.claim("a", limit=3)),
    "complete": Deed(
        lambda store, held: store.complete(held[0], result=_BIG),
        lambda store: store.claim("a", limit=2),
    ),
    "batch": Deed(_batch, lambda store: store.claim("a", limit=2)),
    "compact": Deed(lambda store, _: store.compact()),
    "backup": Deed(lambda store, _: store.backup(Path(store.path).with_name("backup"))),
}


def _clock() -> Callable[[], int]:
    """The same times in every run."""
    return itertools.count(1_700_000_000_000_000, 1_000_000).__next__


def _make(path: Path, durability: str) -> None:
    with quelmdb.open(path, **DURABILITIES[durability], clock=_clock()) as store:
        store.insert_many(Job("a", number) for number in range(20))
        (claimed,) = store.claim("a")
        store.complete(claimed, _BIG)


def _state(store: quelmdb.Store) -> State:
    return {job.id: job for job in store.all() if job.id}


class _Outcome(NamedTuple):
    """What has become of a deed."""

    hits: int
    raised: BaseException | None
    is_there: bool
    """Whether its effect was found when the store was opened again."""
    wrong: str
    """What does not hold; empty where all does."""
    goes_on: bool
    """Whether the same process could write without opening the store again."""
    calls: Counter[str]
    """Those of the deed."""


def _attempt(
    place: Path, template: Path, deed: Deed, fault: Fault, calls: Counter[str] = _NO_CALLS
) -> _Outcome:
    """The deed, with a fault, on a fresh copy of a store."""
    path = place / "jobs.qdb"
    expected = _without_faults(path, template, deed)
    shutil.copytree(template, path)
    injector = Injector(place)
    raised: BaseException | None = None
    with injector.injecting():
        store = quelmdb.open(path, clock=_clock())
        given = deed.prepare(store)
        before = _state(store)
        injector.arm(fault)
        try:
            deed.act(store, given)
        except BaseException as error:
            raised = error
        injector.disarm()
        wrong: list[str] = []
        goes_on = True
        for use in (lambda: len(store.all()), lambda: store.insert(Job("again"))):
            try:
                use()
            except QuelmdbError as error:
                goes_on = False
                if "open the store again" not in str(error):
                    wrong.append(f"nothing says what to do: {error!r}")
        try:
            store.close()
        except Exception as error:
            wrong.append(f"closing: {error!r}")
    with quelmdb.open(path, clock=_clock()) as store:
        wrong += map(str, store.check())
        state = {job_id: job for job_id, job in _state(store).items() if job.worker != "again"}
        wrong += ["the store had gone on, but that is lost"] * (
            goes_on and len(store.all("again")) != 1
        )
        store.insert(Job("once more"))
    is_there = state == expected and state != before
    if state not in (before, expected):
        wrong.append(f"half of it is there: {state}")
    if raised is None and state != expected:
        wrong.append("it was acknowledged, and is not there")
    if raised is not None:
        wrong += _wrong_with(raised, place)
        if is_there and (goes_on or "unknown" not in str(raised)):
            wrong.append(f"it is there, and nothing says so: {raised}")
    elif _is_to_be_told(fault) and not (
        # Its last one is of the deletion of what was superseded.
        deed is DEEDS["compact"] and fault.call == "os.fsync" and fault.nth == calls[fault.call]
    ):
        wrong.append(f"{fault} failed, and nobody was told")
    return _Outcome(
        injector.hits, raised, is_there, "; ".join(wrong), goes_on, Counter(injector.calls)
    )


def _without_faults(path: Path, template: Path, deed: Deed) -> State:
    shutil.copytree(template, path)
    with quelmdb.open(path, clock=_clock()) as store:
        deed.act(store, deed.prepare(store))
        state = _state(store)
    _clear(path.parent)
    return state


def _clear(place: Path) -> None:
    for entry in place.iterdir():
        shutil.rmtree(entry)


def _is_to_be_told(fault: Fault) -> bool:
    """Whether somebody has to hear of it: LMDB tries again where a signal came into a write."""
    return fault.call in SYNCS or (fault.call == "lmdb.pwrite" and fault.how != "EINTR")


def _wrong_with(raised: BaseException, place: Path) -> Iterator[str]:
    """What a caller should not have got."""
    if not isinstance(raised, QuelmdbError):
        yield f"not an error of ours: {raised!r}"
    elif str(place) not in str(raised) or str(place) not in str(raised.path):
        yield f"it does not say where: {raised!r} {raised.path}"


def _attempts(
    pipe: Connection, template: Path, deed: Deed, seed: int | None
) -> list[tuple[Fault, _Outcome]]:
    """Every fault, or where there is a seed some. What is tried is told before: it may be the
    end of this process."""
    outcomes = []
    with TemporaryDirectory(prefix="quelmdb-io-", dir=MEMORY) as name:
        place = Path(name)
        counted = _attempt(place, template, deed, Fault("", NONE))
        assert counted.wrong == "", counted
        for fault in _faults(counted.calls, seed):
            _clear(place)
            pipe.send(str(fault))
            outcomes.append((fault, _attempt(place, template, deed, fault, counted.calls)))
    return outcomes


def _faults(calls: Counter[str], seed: int | None) -> list[Fault]:
    """Every call that there was, in every way; where there is a seed, some, and the last of each
    kind among them."""
    every = [
        Fault(call, how, nth, lasts)
        for call, total in calls.items()
        for how, lasts in kinds_of(call)
        for nth in range(1, total + 1)
    ]
    if seed is None:
        return every
    rng = random.Random(seed)
    last = [fault for fault in every if fault.nth == calls[fault.call]]
    return rng.sample(every, min(_SOME, len(every))) + rng.sample(last, min(_SOME, len(last)))


def _all_said(
    attempts: Callable[..., list[tuple[Fault, _Outcome]]], *arguments: object
) -> list[tuple[Fault, _Outcome]]:
    with Child(attempts, *arguments) as child:
        tried = ""
        try:
            while isinstance(said := child.receive(), str):
                tried = said
        except ChildDiedError as error:
            raise AssertionError(f"{tried}: {error}") from error
    return list(said)


@pytest.mark.parametrize(
    ("name", "durability"),
    [*((name, "full") for name in DEEDS), ("compact", "ephemeral"), ("backup", "ephemeral")],
)
def test_a_call_that_fails_is_an_error_and_loses_nothing_that_was_acknowledged(
    name: str, durability: str, tmp_path: Path, long: bool, figure: Tell
) -> None:
    seed = new_seed()
    template = tmp_path / "template"
    in_child(_make, template, durability)
    _tell(_all_said(_attempts, template, DEEDS[name], None if long else seed), figure)


def _calls_of(template: Path, place: Path) -> dict[str, Counter[str]]:
    calls = {}
    for name, deed in DEEDS.items():
        if name not in ("compact", "backup"):
            calls[name] = _attempt(place, template, deed, Fault("", NONE)).calls
            _clear(place)
    return calls


def test_a_write_to_an_ephemeral_store_makes_no_call_that_could_fail(tmp_path: Path) -> None:
    for durability in DURABILITIES:
        template, place = tmp_path / durability, tmp_path / f"{durability} place"
        in_child(_make, template, durability)
        place.mkdir()
        calls = in_child(_calls_of, template, place)
        assert all(bool(each) is (durability == "full") for each in calls.values()), calls


def _tell(outcomes: list[tuple[Fault, _Outcome]], figure: Tell) -> None:
    wrong = [f"{fault}: {outcome.wrong}" for fault, outcome in outcomes if outcome.wrong]
    assert wrong == []
    assert all(outcome.hits for _, outcome in outcomes)
    tolerated = [str(fault) for fault, outcome in outcomes if outcome.raised is None]
    unknown = [outcome for _, outcome in outcomes if outcome.raised and outcome.is_there]
    reopened = [outcome for _, outcome in outcomes if not outcome.goes_on]
    print("tolerated:", *tolerated, sep="\n")
    figure(
        f"{len(outcomes)} faults, each in a run of its own: {len(outcomes) - len(tolerated)} "
        f"errors of ours, {len(unknown)} of them of what was there nevertheless; "
        f"{len(tolerated)} did no harm; after {len(reopened)} the store was to be opened again; "
        "nothing was lost"
    )


# --- Opening, and creation ---------------------------------------------------------------


class _Opening(NamedTuple):
    """What is opened: a copy of a store, or one that is to be made."""

    template: Path | None
    durability: str

    def open(self, path: Path) -> quelmdb.Store:
        return quelmdb.open(path, **DURABILITIES[self.durability])


def _attempt_opening(place: Path, opening: _Opening, fault: Fault) -> _Outcome:
    path = place / "jobs.qdb"
    if opening.template is not None:
        shutil.copytree(opening.template, path)
    injector = Injector(place)
    raised: BaseException | None = None
    with injector.injecting():
        injector.arm(fault)
        try:
            opening.open(path).close()
        except BaseException as error:
            raised = error
        injector.disarm()
        with opening.open(path) as store:
            wrong = list(map(str, store.check()))
            if len(store.all()) != (0 if opening.template is None else 20):
                wrong.append("something is lost")
            store.insert(Job("again"))
    if raised is not None:
        wrong += _wrong_with(raised, place)
    elif _is_to_be_told(fault):
        wrong.append(f"{fault} failed, and nobody was told")
    return _Outcome(injector.hits, raised, False, "; ".join(wrong), True, Counter(injector.calls))


def _openings(
    pipe: Connection, opening: _Opening, seed: int | None
) -> list[tuple[Fault, _Outcome]]:
    outcomes = []
    with TemporaryDirectory(prefix="quelmdb-io-", dir=MEMORY) as name:
        place = Path(name)
        counted = _attempt_opening(place, opening, Fault("", NONE))
        assert counted.wrong == "", counted
        for fault in _faults(counted.calls, seed):
            _clear(place)
            pipe.send(str(fault))
            outcomes.append((fault, _attempt_opening(place, opening, fault)))
    return outcomes


@pytest.mark.parametrize("durability", DURABILITIES)
@pytest.mark.parametrize("is_new", [False, True], ids=["opened", "created"])
def test_a_call_that_fails_while_a_store_is_opened_is_an_error_and_the_next_time_it_opens(
    is_new: bool, durability: str, tmp_path: Path, long: bool, figure: Tell
) -> None:
    seed = new_seed()
    template = tmp_path / "template"
    in_child(_make, template, durability)
    opening = _Opening(None if is_new else template, durability)
    _tell(_all_said(_openings, opening, None if long else seed), figure)
