"""All that take part, a module each."""

from __future__ import annotations

from typing import Final

from bench.compare.peer import Fairness, Peer
from bench.compare.peers import floor, huey, litequeue, ours, persistqueue, redis, sqlite

_MODULES: Final = (ours, floor, sqlite, huey, litequeue, persistqueue, redis)

PEERS: Final[dict[str, Peer]] = {peer.name: peer for module in _MODULES for peer in module.PEERS}
FAIRNESS: Final[tuple[Fairness, ...]] = tuple(module.FAIRNESS for module in _MODULES)
