"""A loss of power while a store is made or compacted leaves one store, with every acknowledged
write in it: names of files and directories are lost, too, and what was written to them.

In a compaction the file of generation N + 1 is synced, then its name, then its directory gets its
own name, and that is synced, before the seal in N is: who finds N sealed finds N + 1, and who finds
it not sealed goes on with N. Behind that N is deleted: it gets another name first, and that is
synced, so that a generation without its file is never found.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import quelmdb
from tests.faults.acting import OPENED, Acknowledged, Actor
from tests.faults.calls import needs_calls
from tests.faults.disk import Disk, Image, names_kept, parts_kept
from tests.faults.figures import Tell
from tests.faults.looking import NAME, Looker, go_on, recorded, states_of
from tests.faults.recorder import Event, Recorder
from tests.faults.seeds import new_seed

pytest_plugins = ["tests.fixtures"]
pytestmark = needs_calls


def _create(root: Path) -> list[Event]:
    recorder = Recorder(root)
    with recorder.recording(), quelmdb.open(root / NAME) as store:
        recorder.tell(OPENED)
        Actor(recorder, store, "a", 1).act(3)
    return recorder.events


def _compact(root: Path, seed: int) -> list[Event]:
    """Two compactions, beside a thread that writes."""
    recorder = Recorder(root)
    with recorder.recording(), quelmdb.open(root / NAME) as store:
        recorder.tell(OPENED)
        Actor(recorder, store, "a", seed).act(8)
        for number in (1, 2):
            thread = threading.Thread(
                target=Actor(recorder, store, f"b{number}", seed).act, args=(8,)
            )
            thread.start()
            store.compact()
            thread.join()
        Actor(recorder, store, "c", seed).act(2)
    return recorder.events


def _directories(disk: Disk, rng: random.Random) -> Iterator[Image]:
    """What may be left of the names and of the files that are not durable."""
    for names in names_kept(disk.names, rng):
        yield disk.image(names, {})
        yield disk.image(names, disk.changes)
        some = {
            number: rng.choice(list(parts_kept(changes, rng)))
            for number, changes in disk.changes.items()
        }
        yield disk.image(names, some)


def _look_everywhere(
    events: list[Event], looker: Looker, disk: Disk, rng: random.Random, likely: float
) -> tuple[int, int]:
    """Looks at what may be left after each event. Returns how many events these were, and how many
    images did not have exactly what was committed, or that not what was acknowledged."""
    states = [{}, *states_of(events, looker)]
    told = Acknowledged(events)
    commits = points = lost = 0
    for number, event in enumerate(events):
        disk.apply(event)
        told.apply(event)
        commits += event.data == OPENED or (told.is_open and event.is_durable)
        lost += not told.explains(states[commits])
        points += 1
        for image in _directories(disk, rng):
            if rng.random() < likely and looker.is_new(image):
                found = looker.look(image, f"event {number}, {event.kind} {event.path}", True)
                lost += found != states[commits]
    return points, lost


def test_a_loss_of_power_during_creation_leaves_what_can_be_opened(
    long: bool, figure: Tell
) -> None:
    seed = new_seed()
    events = recorded(_create)
    with Looker(go_on) as looker:
        points, lost = _look_everywhere(
            events, looker, Disk(), random.Random(seed), 1 if long else 0.3
        )
    assert (looker.errors, lost) == ([], 0)
    figure(
        f"{looker.count:,} images after {points} calls of creation and the first writes: 0 did "
        f"not open, 0 without an acknowledged write"
    )


def _compact_and_go_on(store: quelmdb.Store) -> None:
    go_on(store)
    store.compact()
    go_on(store)


def test_a_loss_of_power_during_compaction_leaves_one_store_with_everything_in_it(
    long: bool, figure: Tell
) -> None:
    seed = new_seed()
    events = recorded(_compact, seed)
    with Looker(_compact_and_go_on) as looker:
        points, lost = _look_everywhere(
            events, looker, Disk(), random.Random(seed), 0.4 if long else 0.015
        )
    assert (looker.errors, lost) == ([], 0)
    figure(
        f"{looker.count:,} images after {points} calls of two compactions and the writes beside "
        f"them: 0 did not open, 0 without an acknowledged write, all could be compacted again"
    )


@pytest.mark.parametrize("ignored", ["data.mdb", "000002.new", "jobs.qdb"])
def test_a_compaction_that_did_not_sync_would_be_found_out(ignored: str, figure: Tell) -> None:
    """Not the file, not its name, not the name of the generation."""
    events = recorded(_compact, 1)
    with Looker(go_on) as looker:
        states = states_of(events, looker)
        disk, told = Disk(), Acknowledged(events)
        commits = looked = wrong = 0
        for event in events:
            disk.apply(event)
            told.apply(event)
            if event.data == OPENED:
                disk.ignored = (ignored,)
            commits += event.data == OPENED or (told.is_open and event.is_durable)
            image = disk.image([], {})
            if commits and looker.is_new(image) and wrong < 9:
                looked += 1
                wrong += looker.look(image) != states[commits - 1]
    assert wrong
    figure(f"{wrong} of {looked} images were found to be wrong where {ignored} is not synced")
