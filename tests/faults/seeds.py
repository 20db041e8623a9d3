"""Chance that can be had again."""

from __future__ import annotations

import random


def new_seed() -> int:
    """A seed, which is printed: pytest shows it where a test fails."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    return seed


def seeded() -> random.Random:
    """Random numbers by a new seed."""
    return random.Random(new_seed())
