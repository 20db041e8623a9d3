"""Signals that arrive in the middle of a call."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from types import FrameType

import quelmdb
from quelmdb import Job, Status, StoreBusyError
from tests.committing import alarm

BATCH = 20
ROUNDS = 60
OFTEN = 1000


def test_an_interrupted_insert_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    interrupted = returned = 0
    with quelmdb.open(tmp_path / "s") as store:
        while interrupted < OFTEN:
            try:
                # Further ones come while an interrupt is being handled.
                with alarm(0.0003 + interrupted % 7 * 0.0001, interrupt, again=True):
                    while True:
                        worker = f"w {interrupted // 3}"  # a new one now and then
                        store.insert_many([Job(worker, n) for n in range(BATCH)])
                        returned += 1
            except KeyboardInterrupt:
                interrupted += 1
        stored = [job.arguments for job in store.all()]
        assert stored == list(range(BATCH)) * (len(stored) // BATCH)
        assert returned <= len(stored) // BATCH <= returned + interrupted
        assert store.check() == []


def test_a_claim_that_is_interrupted_gives_back_what_nobody_received(tmp_path: Path) -> None:
    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    lost = 0
    with quelmdb.open(tmp_path / "s") as store:
        store.insert_many([Job("w")] * BATCH)
        for _ in range(ROUNDS):
            received: list[Job] = []
            with suppress(KeyboardInterrupt), alarm(0.0007, interrupt):
                end = time.monotonic() + 1
                while not received and time.monotonic() < end:
                    received = store.claim("w", limit=BATCH)
                    store.update_many(job.replace(status=Status.QUEUED) for job in received)
                    received = []
            # Only between the return of `claim` and its assignment can jobs get lost.
            held = list(store.jobs(Status.STARTED))
            lost += bool(held) and not received
            store.update_many(job.replace(status=Status.QUEUED) for job in held)
        assert lost < ROUNDS / 4
        assert store.check() == []


def test_a_signal_handler_that_writes_gets_an_error_and_no_deadlock(tmp_path: Path) -> None:
    outcomes: list[bool] = []
    busy = False

    with quelmdb.open(tmp_path / "s") as store:

        def write(number: int, frame: FrameType | None) -> None:
            nonlocal busy
            if busy:
                return  # a handler may interrupt itself
            busy = True
            try:
                store.insert(Job("from the handler"))
                outcomes.append(True)
            except StoreBusyError:
                outcomes.append(False)
            finally:
                busy = False

        inserted = 0
        with alarm(0.002, write, again=True):
            while outcomes.count(False) < 3:
                store.insert_many([Job("from the program")] * BATCH)
                inserted += BATCH
        assert len(store.all("from the program")) == inserted
        assert len(store.all("from the handler")) == outcomes.count(True)
        assert store.check() == []
