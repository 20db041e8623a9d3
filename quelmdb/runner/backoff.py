"""How long a job that failed waits for its next attempt.

A backoff is any callable that is given the number of the attempt that failed (1 for the
first) and returns seconds. `exponential` makes the usual one.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

Backoff = Callable[[int], float]

LONGEST: Final = 365 * 86400.0  # seconds: whatever a backoff says, no job waits longer

log = logging.getLogger("quelmdb.runner")


@dataclass(frozen=True, slots=True)
class _Exponential:
    first: float
    factor: float
    limit: float
    jitter: float

    def __call__(self, attempt: int) -> float:
        try:
            seconds = self.first * self.factor ** (attempt - 1)
        except OverflowError:
            seconds = self.limit
        # Only ever shorter, so that also those at the limit are spread.
        return min(seconds, self.limit) * (1 - self.jitter * random.random())


def exponential(
    first: float = 1.0, factor: float = 2.0, limit: float = 3600.0, jitter: float = 0.1
) -> Backoff:
    """`first` seconds after the first attempt, `factor` times as many after each further
    one, at most `limit`; each shortened by a random part of up to `jitter` (0 to 1), so
    that what failed together does not come again together.

    Raises `ValueError` for numbers that make no sense.
    """
    if not (0 <= first < math.inf and 1 <= factor < math.inf and 0 <= limit < math.inf):
        raise ValueError(
            f"first and limit are seconds from 0, factor is from 1; not {first!r}, {limit!r}, "
            f"{factor!r}"
        )
    if not 0 <= jitter <= 1:
        raise ValueError(f"jitter is a part, from 0 to 1, not {jitter!r}")
    return _Exponential(float(first), float(factor), float(limit), float(jitter))


DEFAULT: Final = exponential()


def seconds_after(backoff: Backoff, attempt: int) -> float:
    """What `backoff` says, as seconds from 0 to `LONGEST`. Never raises: where it raises or
    says what is no such number this is logged, and `DEFAULT` says instead."""
    try:
        seconds = float(backoff(attempt))
        if not 0 <= seconds < math.inf:
            raise ValueError(f"seconds from 0 are needed, not {seconds!r}")
    except Exception:
        log.warning("the backoff %r is of no use; the default is used", backoff, exc_info=True)
        seconds = DEFAULT(attempt)
    return min(seconds, LONGEST)
