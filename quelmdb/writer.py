"""One write transaction: records, payloads, both indexes and the counters, kept in step."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from quelmdb import index, owners
from quelmdb.environment import Environment, Transaction, put_new
from quelmdb.errors import CorruptStoreError, StoreFullError
from quelmdb.job import MAX_OWNER, Job, Status
from quelmdb.layout import (
    ARGUMENTS,
    ARGUMENTS_OUTSIDE,
    ERROR,
    ERROR_OUTSIDE,
    NEXT_OWNER,
    NEXT_WORKER,
    NO_WORKER,
    RECORD_VERSION,
    RESULT,
    RESULT_OUTSIDE,
    STATUS_CODES,
    STATUSES,
    Header,
    body_of,
    pack_number,
    pack_record,
    split_body,
    unpack_number,
    unpack_record,
)
from quelmdb.names import Names
from quelmdb.owners import Owners
from quelmdb.records import (
    Content,
    corrupt_record,
    delete_parts,
    job_of,
    put_parts,
)

# Bytes that an insert adds to the file, about, beside its content: the record's
# header, two index entries, and the pages that a transaction copies.
_GROWTH_A_JOB: Final = 160
_GROWTH_A_TRANSACTION: Final = 64 * 1024

Draft = tuple[Job, Content]
"""A job that is checked and encoded, and waits for its transaction."""


class Stored(NamedTuple):
    """A job as it stands in the open transaction, verified."""

    id: int
    key: bytes
    record: bytes
    status: Status
    flags: int
    attempt: int
    worker: int
    owner: int
    arguments_length: int
    created_at: int
    claim: int


class Writer:
    """What can be done to a job inside one write transaction.

    Counters are read once and written once, by `finish`, before the commit.
    """

    __slots__ = (
        "_counters",
        "_environment",
        "_growth",
        "_names",
        "_owner",
        "_owners",
        "databases",
        "new_names",
        "new_owner",
        "now",
        "touched",
        "transaction",
    )

    def __init__(
        self,
        transaction: Transaction,
        environment: Environment,
        names: Names,
        owners: Owners,
        now: int = 0,
    ) -> None:
        self.transaction = transaction
        self.databases = environment.databases
        self.now = now
        self.touched = False
        """Whether anything was changed since `begin`."""
        self.new_names: dict[str, int] = {}
        """Names that this transaction interned."""
        self.new_owner: int | None = None
        """The number that this process got in this transaction, if it did; its lock is held."""
        self._environment = environment
        self._names = names
        self._owners = owners
        self._growth = _GROWTH_A_TRANSACTION
        self._counters: dict[bytes, int] = {}
        self._owner: int | None = None

    def begin(self, now: int) -> None:
        """The next of several verbs begins, which writes the time `now`."""
        self.now = now
        self.touched = False

    def ended(self, committed: bool) -> None:
        """The transaction has ended: what it learnt is kept, or given up."""
        if committed:
            self._names.remember(self.new_names)
        elif self.new_owner is not None:
            self._owners.let_go(self.new_owner)

    def finish(self) -> None:
        """Writes the counters that changed."""
        for key, value in self._counters.items():
            self.transaction.put(key, pack_number(value), db=self.databases.meta)

    def ensure_room(self, drafts: Sequence[Draft], *, appended: bool = False) -> None:
        """Raises `StoreFullError` where these jobs do not fit beside the reserve."""
        size = 0
        for _, (_, arguments, extras, outside) in drafts:
            size += len(arguments) + len(extras)
            for _, content in outside:
                size += len(content)
        # Of what is appended a third of a page may stay empty, of what is put between
        # others half of it.
        growth = size * 3 // 2 if appended else size * 9 // 4
        # Of the whole transaction: LMDB tells the size of what is committed.
        growth += self._growth + _GROWTH_A_JOB * len(drafts)
        self._environment.ensure_room(self.transaction, growth)
        self._growth = growth

    def find(self, job_id: int) -> Stored | None:
        """What stands under an id. Raises `CorruptRecordError`."""
        key = pack_number(job_id)
        record = self.transaction.get(key, db=self.databases.jobs)
        if record is None:
            return None
        try:
            header = unpack_record(key, record)
        except ValueError as error:
            raise corrupt_record(job_id, error) from None
        _, status, flags, attempt, worker, owner, length, created, _, claim = header
        return Stored(
            job_id,
            key,
            record,
            STATUSES[status],
            flags,
            attempt,
            worker,
            owner,
            length,
            created,
            claim,
        )

    def put(
        self, job_id: int, draft: Draft, created: int, updated: int, attempt: int, claim: int
    ) -> Job:
        """A new job under an id that is free."""
        self.touched = True
        key = pack_number(job_id)
        job, (flags, arguments, extras, outside) = draft
        worker = self.number_of(job._worker)
        status = STATUS_CODES[job._status]
        put_parts(self.transaction, self.databases, job_id, outside)
        index.enter(self.transaction, self.databases, key, worker, status)
        length = len(arguments)
        header = (
            RECORD_VERSION,
            status,
            flags,
            attempt,
            worker,
            0,
            length,
            created,
            updated,
            claim,
        )
        record = pack_record(key, header, arguments + extras)
        put_new(self.transaction, self.databases.jobs, key, record)
        return self._job(job._worker, key, header, record)

    def replace(self, stored: Stored, draft: Draft, created: int, owner: int, claim: int) -> Job:
        """Another job under the same id; the attempt stays."""
        self.touched = True
        job, (flags, arguments, extras, outside) = draft
        worker = self.number_of(job._worker)
        status, was = STATUS_CODES[job._status], STATUS_CODES[stored.status]
        delete_parts(self.transaction, self.databases, stored.id, *_parts(stored.flags))
        put_parts(self.transaction, self.databases, stored.id, outside)
        if (worker, status) != (stored.worker, was):
            index.leave(self.transaction, self.databases, stored.key, stored.worker, was)
            index.enter(self.transaction, self.databases, stored.key, worker, status)
        attempt, length, now = stored.attempt, len(arguments), self.now
        header = (
            RECORD_VERSION,
            status,
            flags,
            attempt,
            worker,
            owner,
            length,
            created,
            now,
            claim,
        )
        record = pack_record(stored.key, header, arguments + extras)
        self.transaction.put(stored.key, record, db=self.databases.jobs)
        return self._job(job._worker, stored.key, header, record)

    def move(
        self,
        stored: Stored,
        status: Status,
        *,
        attempt: int,
        owner: int,
        claim: int,
        outcome: Content | None = None,
    ) -> Job:
        """The same job in another status [with another result and error]. Its
        arguments stay where they are.

        Raises `CorruptRecordError`, where no outcome is given before anything is changed.
        """
        name = self._name_of(stored)
        flags = stored.flags
        if outcome is None:
            body = body_of(stored.record)
        else:
            self.touched = True
            outcome_flags, _, extras, outside = outcome
            body = split_body(stored.record)[0] + extras
            outdated = _parts(flags & ~ARGUMENTS_OUTSIDE)
            delete_parts(self.transaction, self.databases, stored.id, *outdated)
            put_parts(self.transaction, self.databases, stored.id, outside)
            flags = (flags & ARGUMENTS_OUTSIDE) | outcome_flags
        worker, code, was = stored.worker, STATUS_CODES[status], STATUS_CODES[stored.status]
        length, created, now = stored.arguments_length, stored.created_at, self.now
        header = (RECORD_VERSION, code, flags, attempt, worker, owner, length, created, now, claim)
        record = pack_record(stored.key, header, body)
        job = self._job(name, stored.key, header, record)
        self.touched = True
        index.leave(self.transaction, self.databases, stored.key, worker, was)
        index.enter(self.transaction, self.databases, stored.key, worker, code)
        self.transaction.put(stored.key, record, db=self.databases.jobs)
        return job

    def remove(self, stored: Stored) -> None:
        """Deletes a job and all that belongs to it."""
        self.touched = True
        was = STATUS_CODES[stored.status]
        self.transaction.delete(stored.key, db=self.databases.jobs)
        delete_parts(self.transaction, self.databases, stored.id, *_parts(stored.flags))
        index.leave(self.transaction, self.databases, stored.key, stored.worker, was)

    def keys(self, status: Status, names: Sequence[str | None]) -> index.Keys:
        """The jobs of a status of these workers, of all where none is named."""
        found = [self._names.number(self.transaction, name) for name in names]
        numbers = [number for number in found if number is not None]
        return index.Keys(self.databases, [STATUS_CODES[status]], numbers if names else None)

    def owner(self) -> int:
        """The number of this process, which gets one, and its lock, when first asked."""
        if self._owner is None:
            self._owner = self._owners.own
            if self._owner is None or not self._is_registered(self._owner):
                self.touched = True
                self._owner = self.new_owner = self.next(NEXT_OWNER, MAX_OWNER)
                owners.register(self.transaction, self.databases, self._owner)
            self._owners.hold(self._owner)
        return self._owner

    def _is_registered(self, number: int) -> bool:
        """False where the lock was lost (foreign code closed the file) and others have
        taken this process for dead."""
        return self.transaction.get(pack_number(number), db=self.databases.owners) is not None

    def dead_among(self, numbers: Iterable[int]) -> set[int]:
        """The owners that are dead still: a living one that had lost its lock may have
        taken it again before this transaction."""
        return {number for number in numbers if not self._owners.is_alive(number)}

    def strike_out(self, numbers: Iterable[int]) -> None:
        """Forgets owners that are dead and hold nothing."""
        for number in self.dead_among(numbers):
            self.touched = True
            owners.unregister(self.transaction, self.databases, number)

    def counter(self, name: bytes) -> int:
        """The number that a counter gives out next."""
        value = self._counters.get(name)
        if value is None:
            stored = self.transaction.get(name, db=self.databases.meta)
            if stored is None:
                raise CorruptStoreError(f"the store has no counter {name.decode()}")
            value = unpack_number(stored)
            if value == 0:
                raise CorruptStoreError(f"the counter {name.decode()} is 0")
        return value

    def next(self, name: bytes, limit: int) -> int:
        """The next number of a counter, given out once. Raises `StoreFullError` beyond `limit`."""
        return self.take(name, 1, limit)

    def take(self, name: bytes, count: int, limit: int) -> int:
        """The first of the next `count` numbers, likewise."""
        value = self.counter(name)
        if value + count - 1 > limit:
            raise StoreFullError(f"{name.decode()}: all {limit:,} numbers are given out")
        self._counters[name] = value + count
        return value

    def advance(self, name: bytes, taken: int) -> None:
        """Moves a counter above a number that came from elsewhere."""
        if taken >= self.counter(name):
            self._counters[name] = taken + 1

    def _job(self, worker: str | None, key: bytes, header: Header, record: bytes) -> Job:
        try:
            return job_of(self.transaction, self.databases, worker, key, header, record)
        except ValueError as error:
            raise corrupt_record(unpack_number(key), error) from None

    def number_of(self, name: str | None) -> int:
        """The number of a worker, which gets one where it has none."""
        if name is None:
            return NO_WORKER
        number = self.new_names.get(name)
        if number is None:
            number = self._names.number(self.transaction, name)
        if number is None:
            self.touched = True
            number = self.counter(NEXT_WORKER)
            self._counters[NEXT_WORKER] = number + 1
            self._names.intern(self.transaction, name, number)
            self.new_names[name] = number
        return number

    def _name_of(self, stored: Stored) -> str | None:
        for name, new in self.new_names.items():
            if new == stored.worker:
                return name
        try:
            return self._names.name(self.transaction, stored.worker)
        except ValueError as error:
            raise corrupt_record(stored.id, error) from None


def _parts(flags: int) -> list[int]:
    return [
        part
        for part, flag in (
            (ARGUMENTS, ARGUMENTS_OUTSIDE),
            (RESULT, RESULT_OUTSIDE),
            (ERROR, ERROR_OUTSIDE),
        )
        if flags & flag
    ]
