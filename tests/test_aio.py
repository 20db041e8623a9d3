"""quelmdb.aio keeps the contract, and what it promises to event loops."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from quelmdb.persistence import Clock
from quelmdb.testing import JobStoreContract
from tests.loopstore import LoopStore, LoopThread

pytest_plugins = ["tests.fixtures"]

MIB = 2**20


class TestAioStore(JobStoreContract):
    """Asked from other threads. Ephemeral, so that its many writes take no time."""

    bound_to_threads = frozenset(
        (
            "test_a_snapshot_belongs_to_its_thread",
            "test_what_was_made_in_a_snapshot_belongs_to_its_thread",
        )
    )

    def open_store(self, directory: Path, clock: Clock) -> LoopStore:
        return LoopStore(
            self.thread, directory, durability="ephemeral", capacity=256 * MIB, clock=clock
        )

    @pytest.fixture(autouse=True)
    def _thread(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[None]:
        if request.node.originalname in self.bound_to_threads:
            pytest.skip("the snapshot is in the thread of the loop, whoever asks for it")
        with LoopThread() as self.thread:
            yield
        shutil.rmtree(tmp_path)  # the files have their capacity on the disk
