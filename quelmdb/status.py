"""The statuses of a job, and which verb may change which."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Final

from quelmdb.errors import InvalidJobError
from quelmdb.shown import shown


class Status(StrEnum):
    """Where a job stands. Que has the four queued, started, completed, failed."""

    SCHEDULED = "scheduled"
    QUEUED = "queued"
    STARTED = "started"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


INCOMPLETE: Final = (Status.SCHEDULED, Status.QUEUED, Status.STARTED)
ENDED: Final = (Status.COMPLETED, Status.FAILED, Status.CANCELLED)

# verb -> every (status before, status after). insert, update and restore set any status.
TRANSITIONS: Final[dict[str, tuple[tuple[Status, Status], ...]]] = {
    "claim": ((Status.QUEUED, Status.STARTED), (Status.SCHEDULED, Status.QUEUED)),
    "complete": ((Status.STARTED, Status.COMPLETED),),
    "fail": (
        (Status.STARTED, Status.FAILED),
        (Status.STARTED, Status.SCHEDULED),
        (Status.STARTED, Status.CANCELLED),
    ),
    "release": ((Status.STARTED, Status.QUEUED), (Status.STARTED, Status.CANCELLED)),
    "rescue": (
        (Status.STARTED, Status.QUEUED),
        (Status.STARTED, Status.FAILED),
        (Status.STARTED, Status.CANCELLED),
    ),
    "cancel": (
        (Status.SCHEDULED, Status.CANCELLED),
        (Status.QUEUED, Status.CANCELLED),
        (Status.STARTED, Status.CANCELLED),
    ),
    "retry": (
        (Status.SCHEDULED, Status.QUEUED),
        (Status.FAILED, Status.QUEUED),
        (Status.CANCELLED, Status.QUEUED),
    ),
}


def status_of(value: Any) -> Status:
    """The status that `value` is or names. Raises `InvalidJobError`."""
    if type(value) is Status:
        return value
    try:
        return Status(value)
    except ValueError:
        raise InvalidJobError(
            f"unknown status {shown(value)}; known are {', '.join(Status)}", found=value
        ) from None
