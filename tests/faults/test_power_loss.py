"""A loss of power at any moment leaves a full store with every acknowledged write in it.

A child does real work and records every write and sync of its files (`disk` has the model of what
a disk may lose). The directory is then rebuilt as it may be found after each point of that, opened
by another process, checked, and compared, job by job, with what had been acknowledged.

LMDB writes the pages of a transaction, syncs them, and then writes one of two meta pages, through
a descriptor of its own with O_DSYNC: that one write, 120 bytes in a sector of 512, is there whole
or not at all. Pages in use by the last transaction but one are not written again before that
is durable, so whatever is lost or torn is not looked at.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import quelmdb
from quelmdb import Job, QuelmdbError
from tests.faults.acting import OPENED, Acknowledged, Actor
from tests.faults.calls import needs_calls
from tests.faults.disk import Disk, Image, parts_kept
from tests.faults.figures import Tell
from tests.faults.looking import NAME, Looker, go_on, recorded, states_of
from tests.faults.recorder import Event, Recorder
from tests.faults.seeds import new_seed

pytest_plugins = ["tests.fixtures"]
pytestmark = needs_calls

_DATA: Final = f"{NAME}/000001/data.mdb"


def _work(root: Path, seed: int, steps: int) -> list[Event]:
    """Random verbs, of one thread, and then of four that share transactions."""
    recorder = Recorder(root)
    with recorder.recording(), quelmdb.open(root / NAME) as store:
        recorder.tell(OPENED)
        actors = [Actor(recorder, store, worker, seed) for worker in "abcd"]
        actors[0].act(steps)
        threads = [threading.Thread(target=actor.act, args=(steps // 2,)) for actor in actors]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        actors[1].act(5)
        assert store.check() == []
    return recorder.events


# --- The data file ----------------------------------------------------------------------


def _images(disk: Disk, rng: random.Random, likely: float) -> Iterator[Image]:
    """What may be left of what is not durable in the data file; each is `likely` to be made."""
    number = disk.number(_DATA)
    for kept in parts_kept(disk.changes[number], rng):
        if rng.random() < likely:
            yield disk.image(disk.names, {**disk.changes, number: kept})


def test_a_loss_of_power_at_any_moment_loses_nothing_that_was_acknowledged(
    long: bool, figure: Tell
) -> None:
    seed = new_seed()
    rng = random.Random(seed)
    events = recorded(_work, seed, 40 if long else 14)
    points = lost = commits = 0
    with Looker(go_on) as looker:
        states = states_of(events, looker)
        disk, told = Disk(), Acknowledged(events)
        for number, event in enumerate(events):
            if told.is_open and event.kind in ("sync", "write") and event.path == _DATA:
                if event.kind == "sync" or event.is_durable:
                    points += 1
                    for image in _images(disk, rng, 1 if long else 0.2):
                        if looker.is_new(image):
                            found = looker.look(image, f"event {number}", rng.random() < 0.1)
                            lost += found != states[commits]
                commits += event.is_durable
            disk.apply(event)
            if told.apply(event):  # at once: nothing else comes between it and the crash
                lost += not told.explains(states[commits])
    assert commits == len(states) - 1
    assert (looker.errors, lost) == ([], 0)
    assert looker.count > (1000 if long else 150)
    figure(
        f"{looker.count:,} images at {points} syncs of {commits} transactions: 0 did not open, "
        f"0 had problems, 0 without an acknowledged write, opened in at most "
        f"{looker.slowest * 1000:.0f} ms"
    )
    assert looker.slowest < 5  # on a busy machine; the figure tells what it was


def test_a_store_that_did_not_sync_would_be_found_out(figure: Tell) -> None:
    """The same with a disk on which syncs of the data file do nothing: a proof that
    cannot fail is none."""
    seed = new_seed()
    rng = random.Random(seed)
    events = recorded(_work, seed, 8)
    looked = wrong = 0
    with Looker(go_on) as looker:
        states = states_of(events, looker)
        disk, told = Disk(), Acknowledged(events)
        disk.ignored = ("data.mdb",)
        commits = 0
        for event in events:
            disk.apply(event)
            told.apply(event)
            if told.is_open and event.is_durable:
                commits += 1
                for image in _images(disk, rng, 0.01):
                    looked += 1
                    wrong += looker.look(image) != states[commits]
    assert wrong > looked / 2
    figure(f"{wrong} of {looked} images of a disk that does not sync were found to be wrong")


# --- Syncs that fail ----------------------------------------------------------------------


_FAILING: Final = (*((),) * 6, ("sync",), ("meta",), ("sync", "own"), ("meta", "own"))


def _work_with_failures(root: Path, seed: int, steps: int) -> list[Event]:
    """Batches, of which some meet syncs that fail: LMDB's, a meta page's, and in half of them the
    one, too, with which the library makes up for those. The store is opened again where it says
    so, and in half of the other cases."""
    rng = random.Random(seed)
    recorder = Recorder(root)
    with recorder.recording():
        store = quelmdb.open(root / NAME)
        (changing,) = store.insert_many([Job("changing")])
        for name in range(steps):
            recorder.tell(("begun", name))
            failing = rng.choice(_FAILING)
            recorder.fails = failing.__contains__
            try:
                with store.batch() as batch:
                    batch.insert(Job("a", [name, rng.randbytes(rng.randrange(3000))]))
                    batch.update(changing.replace(arguments=rng.randbytes(rng.randrange(9000))))
            except QuelmdbError:
                assert failing
                recorder.fails = lambda kind: False
                if "meta" in failing or rng.random() < 0.5:
                    store.close()
                    store = quelmdb.open(root / NAME)
            else:
                assert not failing
                recorder.tell(("acknowledged", name))
        store.close()
    return recorder.events


def test_what_is_acknowledged_after_a_sync_has_failed_survives_a_loss_of_power(
    long: bool, figure: Tell
) -> None:
    """Also where the kernel has dropped what it could not write, where a meta page that could not
    be synced is on the disk nevertheless, and where the next sync fails, too."""
    seed = new_seed()
    rng = random.Random(seed)
    events = recorded(_work_with_failures, seed, 150 if long else 40)
    failures = sum(event.kind in ("not synced", "doubtful") for event in events)
    lost: list[str] = []
    with Looker(go_on) as looker:
        for _ in range(5 if long else 1):
            disk, told = Disk(rng), {"begun": set[int](), "acknowledged": set[int]()}
            for number, event in enumerate(events):
                if told["begun"] and event.path == _DATA and event.kind in ("sync", "not synced"):
                    for image in _images(disk, rng, 0.2 if long else 0.1):
                        found = looker.look(image, f"event {number}")
                        if found is not None:
                            jobs = [job for job in found.values() if job.worker == "a"]
                            names = {job.arguments[0] for job in jobs}
                            if not told["acknowledged"] <= names <= told["begun"]:
                                lost.append(f"event {number}: {told} {names}")
                disk.apply(event)
                if event.kind == "told":
                    told[event.data[0]].add(event.data[1])
    assert (looker.errors, lost) == ([], [])
    figure(
        f"{looker.count:,} images beside and after {failures} syncs that failed: 0 did not open, 0 "
        "without an acknowledged write"
    )
