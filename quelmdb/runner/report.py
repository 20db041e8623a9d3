"""What a runner tells in its logs: a line now and then at info, one a job at debug."""

from __future__ import annotations

import logging
import sys
import time
from typing import Final

from quelmdb.runner.finishing import Counts

log = logging.getLogger("quelmdb.runner")

SUMMARY_SECONDS: Final = 10.0


def log_to_stderr(level: int | str) -> None:
    """Sends what quelmdb logs, from `level` on, to stderr, a line each with time and
    process."""
    logger = logging.getLogger("quelmdb")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s [%(process)d] %(message)s"))
    logger.handlers[:] = [handler]
    logger.propagate = False
    logger.setLevel(level)


class Summaries:
    """Logs what came of the jobs since the last summary, at most every `SUMMARY_SECONDS`,
    and of all at the end."""

    def __init__(self) -> None:
        self._begun = self._last = time.monotonic()
        self._told = Counts()

    @property
    def next(self) -> float:
        """When the next one is due (monotonic)."""
        return self._last + SUMMARY_SECONDS

    def tell(self, counts: Counts) -> None:
        """To be called now and then."""
        now = time.monotonic()
        if now < self.next:
            return
        new = counts - self._told
        if new.total:
            log.info(_sentence(new, now - self._last))
        self._told, self._last = counts, now

    def end(self, counts: Counts) -> None:
        """The last one."""
        log.info("stopped; in all: %s", _sentence(counts, time.monotonic() - self._begun))


def _sentence(counts: Counts, seconds: float) -> str:
    rate = counts.total / seconds if seconds > 0 else 0.0
    text = (
        f"{counts.total:,} jobs in {seconds:.1f} s ({rate:,.0f}/s): {counts.completed:,} completed"
    )
    for name in ("failed", "retried", "cancelled", "lost"):
        if number := getattr(counts, name):
            text += f", {number:,} {name}"
    return text
