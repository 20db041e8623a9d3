"""Both durabilities: what a store is opened with, and the parameters of tests that hold of each."""

from __future__ import annotations

from typing import Any, Final

import pytest

from quelmdb.filesystem import MIB

CAPACITY: Final = 4 * MIB
"""What the ephemeral store of a test has that does not need more."""


def ephemeral(capacity: int = CAPACITY) -> dict[str, Any]:
    return {"durability": "ephemeral", "capacity": capacity}


def full_and_ephemeral(capacity: int = CAPACITY) -> dict[str, dict[str, Any]]:
    """The options of a store by its durability."""
    return {"full": FULL, "ephemeral": ephemeral(capacity)}


def by_durability(capacity: int = CAPACITY) -> pytest.MarkDecorator:
    """Marks a test of a store with these `options`."""
    options = full_and_ephemeral(capacity)
    return pytest.mark.parametrize("options", options.values(), ids=options)


FULL: Final[dict[str, Any]] = {"durability": "full"}
EPHEMERAL: Final = ephemeral()
DURABILITIES: Final = full_and_ephemeral()
