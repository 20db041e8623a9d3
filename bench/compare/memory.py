"""By how much a process grows while it goes over every job of a store.

Counted is anonymous memory, which is a process's own. Pages of a mapped file belong to the
system: it takes them back when something else needs the room.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bench.compare.children import processes, shared
from bench.compare.harness import Place
from bench.compare.peer import Store
from bench.compare.peers import PEERS
from bench.data import RARE

KEY: Final = "memory"

_STATUS: Final = Path("/proc/self/status")
_EVERY: Final = 0.02  # seconds

Growth = dict[str, int]
"""Bytes at the peak above what was there before, with arguments "untouched" and "decoded"."""


def measure(places: Sequence[Place]) -> dict[str, Growth]:
    """On stores that are filled, by peer, each in processes of its own."""
    found = {}
    for place in places:
        growth = {}
        for key, decoded in (("untouched", False), ("decoded", True)):
            with processes(1) as (executor, common):
                listing = executor.submit(_list, place.peer.name, place.path, decoded)
                common.gate.wait()
                growth[key] = listing.result()
        found[place.peer.name] = growth
    return found


def _list(name: str, path: Path, decoded: bool) -> int:
    with PEERS[name].open(path, 0) as store:
        assert isinstance(store, Store)
        store.of_worker(RARE, 10)  # all that the first use brings with it
        shared().gate.wait()
        before = _anonymous()
        peak = _Peak()
        peak.start()
        store.iterate(None, decoded)
        peak.end()
    return max(0, peak.bytes - before)


class _Peak(threading.Thread):
    """Looks again and again."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.bytes = 0
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(_EVERY):
            self._look()

    def end(self) -> None:
        self._ended.set()
        self.join()
        self._look()

    def _look(self) -> None:
        self.bytes = max(self.bytes, _anonymous())


def _anonymous() -> int:
    for line in _STATUS.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "RssAnon":
            return int(value.split()[0]) * 1024
    raise OSError(f"{_STATUS} does not tell RssAnon")
