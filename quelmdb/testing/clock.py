"""A clock that stands still until it is moved."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from quelmdb.values import time_of

_START: Final = 1_700_000_000_000_000  # 2023-11-14T22:13:20Z


class ManualClock:
    """A `quelmdb.persistence.Clock`: calling it tells microseconds since 1970."""

    def __init__(self, now: int = _START) -> None:
        self._now = now

    def __call__(self) -> int:
        return self._now

    def advance(self, microseconds: int) -> None:
        """Moves it, backwards where the number is negative."""
        self._now += microseconds

    @property
    def time(self) -> datetime:
        """What it tells, as the times of a job are given."""
        return time_of(self._now)
