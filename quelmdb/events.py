"""What becomes of jobs, told to those who listen: for metrics and logs."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, Literal, NamedTuple

from quelmdb.job import Job
from quelmdb.status import Status
from quelmdb.values import headline

Kind = Literal["claimed", "completed", "failed", "retried", "rescued", "released", "cancelled"]


class Event(NamedTuple):
    """Something that has become of a job, committed."""

    kind: Kind
    """"retried" is an attempt that failed and a job that is to run again; one that was
    "rescued" is queued again, failed or cancelled."""
    job: Job
    """As it is stored now."""
    seconds: float
    """How long it was in the state that it left, where that is started since its claim; never
    below 0."""
    was: Status
    """That state: "retried" and "cancelled" are told of attempts that end (it was started) and
    of what operators do."""


Hook = Callable[[Event], object]


_LEVELS: Final = {"failed": logging.WARNING, "rescued": logging.WARNING, "retried": logging.INFO}


def log_to(logger: logging.Logger) -> Hook:
    """A hook that logs each event in a line: what failed or was rescued as a warning, what is
    to run again as info, all else as debug. The event is the record's attribute `event`."""

    def hook(event: Event) -> None:
        level = _LEVELS.get(event.kind, logging.DEBUG)
        if logger.isEnabledFor(level):
            kind, job, seconds, _ = event
            why = "" if job.error is None or kind == "claimed" else f": {headline(job.error)}"
            logger.log(
                level,
                "job %s of %s, attempt %d: %s after %.3f s%s",
                job.id,
                job.worker,
                job.attempt,
                kind,
                seconds,
                why,
                extra={"event": event},
            )

    return hook
