"""A job as it stands in the open transaction, verified."""

from __future__ import annotations

from typing import NamedTuple

from quelmdb import by_option
from quelmdb.extras import Extras, claimed_at, decoded_options, unpacked
from quelmdb.layout import STATUSES
from quelmdb.options import PLAIN, Options
from quelmdb.recordlayout import (
    ARGUMENTS,
    ARGUMENTS_OUTSIDE,
    ERROR,
    ERROR_OUTSIDE,
    FAILURES,
    FAILURES_OUTSIDE,
    RARE,
    RESULT,
    RESULT_OUTSIDE,
    split_body,
    unpack_record,
)
from quelmdb.records import corrupt_record
from quelmdb.status import Status


class Stored(NamedTuple):
    """What its record says, and the record itself."""

    id: int
    key: bytes
    record: bytes
    code: int
    """Of its status."""
    flags: int
    attempt: int
    worker: int
    owner: int
    arguments_length: int
    created_at: int
    updated_at: int
    claim: int

    @property
    def status(self) -> Status:
        return STATUSES[self.code]

    @property
    def extras(self) -> Extras:
        """What stands behind its arguments. Raises `CorruptRecordError`."""
        try:
            return unpacked(split_body(self.record)[1])
        except ValueError as error:
            raise corrupt_record(self.id, error) from None

    @property
    def options(self) -> Options:
        """Raises `CorruptRecordError`."""
        if not self.flags & RARE:
            return PLAIN
        try:
            return decoded_options(self.extras)
        except ValueError as error:
            raise corrupt_record(self.id, error) from None

    @property
    def since(self) -> int:
        """Since when it is in its state: where that is started, since its claim."""
        if self.flags & RARE:
            claimed = claimed_at(self.extras, self.claim)
            if claimed is not None and self.status is Status.STARTED:
                return claimed
        return self.updated_at

    @property
    def entries(self) -> by_option.Entries:
        """Those that it has among the options."""
        return by_option.entries(self.id, self.worker, self.code, self.options)


def verified(job_id: int, key: bytes, record: bytes) -> Stored:
    """A record as it stands in the transaction. Raises `CorruptRecordError`."""
    try:
        header = unpack_record(key, record)
    except ValueError as error:
        raise corrupt_record(job_id, error) from None
    _, status, flags, attempt, worker, owner, length, created, updated, claim = header
    return Stored(
        job_id, key, record, status, flags, attempt, worker, owner, length, created, updated, claim
    )


def parts_of(flags: int) -> list[int]:
    return [
        part
        for part, flag in (
            (ARGUMENTS, ARGUMENTS_OUTSIDE),
            (RESULT, RESULT_OUTSIDE),
            (ERROR, ERROR_OUTSIDE),
            (FAILURES, FAILURES_OUTSIDE),
        )
        if flags & flag
    ]
