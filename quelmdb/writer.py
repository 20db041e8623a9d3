"""One write transaction: records, payloads, both indexes and the counters, kept in step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from quelmdb import by_option, index, owners
from quelmdb.counters import Counters
from quelmdb.engine import Transaction, put_new
from quelmdb.environment import Environment
from quelmdb.errors import DuplicateJobError
from quelmdb.events import Event
from quelmdb.events import Kind as EventKind
from quelmdb.job import Job
from quelmdb.layout import (
    MAX_WORKER,
    NEXT_OWNER,
    NEXT_WORKER,
    NO_WORKER,
    STATUS_CODES,
    pack_number,
    unpack_number,
)
from quelmdb.names import Kind, kind
from quelmdb.options import Options
from quelmdb.owners import Owners
from quelmdb.recordlayout import RARE, RECORD_VERSION, Header, pack_record, unpack_record
from quelmdb.records import (
    Content,
    corrupt_record,
    delete_parts,
    job_of,
    put_parts,
)
from quelmdb.status import INCOMPLETE, Status
from quelmdb.stored import Stored, parts_of, verified
from quelmdb.values import MAX_OWNER

# Bytes that an insert adds to the file, about, beside its content: the record's
# header, two index entries, and the pages that a transaction copies.
_GROWTH_A_JOB: Final = 160
_GROWTH_A_TRANSACTION: Final = 64 * 1024

AWAKENING: Final = (STATUS_CODES[Status.SCHEDULED], STATUS_CODES[Status.QUEUED])

Draft = tuple[Job, Content]
"""A job that is checked and encoded, and waits for its transaction."""


class Writer:
    """What can be done to a job inside a write transaction: one for all transactions of a
    process, since to make one costs as much as to use it."""

    __slots__ = (
        "_environment",
        "_granted",
        "_growth",
        "_is_verified",
        "_names",
        "_new_owner",
        "_owner",
        "_owners",
        "awakens",
        "counters",
        "databases",
        "events",
        "has_learnt",
        "new_names",
        "now",
        "touched",
        "transaction",
    )

    transaction: Transaction

    def __init__(self, environment: Environment, owners: Owners) -> None:
        self.databases = environment.databases
        self.counters = Counters(environment.databases.meta)
        self.now = 0
        """The time that is written."""
        self.touched = False
        """Whether anything was changed since `begin`, or `go_on`."""
        self.has_learnt = False
        """Whether the transaction has given a number to a worker, or to this process."""
        self.awakens = False
        """Whether who waits for jobs may find some behind this transaction."""
        self.events: list[Event] | None = None
        """What it tells those who listen; None where nobody does."""
        self.new_names: dict[str, int] = {}
        """Names that this transaction interned."""
        self._environment = environment
        self._names = environment.names
        self._owners = owners
        self._growth = 0
        self._granted = 0  # bytes that may be used without a look at what is free
        self._owner: int | None = None  # once this transaction has asked for it
        self._is_verified = False  # that it is registered, since others have written
        self._new_owner: int | None = None  # where it got it in this one; its lock is held

    def begin(self, transaction: Transaction, now: int, is_heard: bool) -> None:
        """A transaction has begun. `is_heard`: somebody listens to what becomes of jobs."""
        if self.has_learnt:  # an interrupt came into the undoing of the last one
            self.give_up()
        self.transaction = transaction
        self.now = now
        self.touched = self.awakens = False
        self.events = [] if is_heard else None
        self._growth = _GROWTH_A_TRANSACTION
        self._owner = None
        self.counters.begin(transaction)
        if not self.counters.are_known:
            self._is_verified = False

    def go_on(self, now: int) -> None:
        """The next verb of a transaction begins."""
        self.now = now
        self.touched = False

    def keep(self) -> None:
        """What `has_learnt` in a transaction that was committed is true."""
        self._names.remember(self.new_names)
        self._forget()

    def give_up(self) -> None:
        """The transaction was undone."""
        if self._new_owner is not None:
            self._owners.let_go(self._new_owner)
        self._forget()

    def _forget(self) -> None:
        self.has_learnt = False
        self.new_names = {}
        self._new_owner = None

    def ensure_room(self, contents: Sequence[Content], *, appended: bool = False) -> None:
        """Raises `StoreFullError` where jobs of such content do not fit beside the reserve."""
        size = 0
        for _, arguments, extras, outside in contents:
            size += len(arguments) + len(extras)
            for _, content in outside:
                size += len(content)
        # Of what is appended a third of a page may stay empty, of what is put between
        # others half of it.
        growth = size * 3 // 2 if appended else size * 9 // 4
        growth += _GROWTH_A_JOB * len(contents)
        if growth <= self._granted:
            self._granted -= growth
        else:  # of the whole transaction: LMDB tells the size of what is committed
            self._granted = self._environment.ensure_room(self.transaction, self._growth + growth)
        self._growth += growth

    def find(self, job_id: int) -> Stored | None:
        """What stands under an id. Raises `CorruptRecordError`."""
        key = pack_number(job_id)
        record = self.transaction.get(key, db=self.databases.jobs)
        return None if record is None else verified(job_id, key, record)

    def records(self, ids: Sequence[int]) -> list[tuple[int, bytes, bytes | None]]:
        """Id, key and record (None where there is none) of each, in one call of LMDB."""
        keys = [pack_number(job_id) for job_id in ids]
        with self.transaction.cursor(self.databases.jobs) as cursor:
            found = dict(cursor.getmulti(keys))
        return [(job_id, key, found.get(key)) for job_id, key in zip(ids, keys, strict=True)]

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
        if flags & RARE:
            entries = by_option.entries(job_id, worker, status, job._options)
            by_option.replace(self.transaction, self.databases, by_option.NO_ENTRIES, entries)
        self.awakens = self.awakens or status in AWAKENING
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
        return self.job(job._worker, key, header, record)

    def replace(
        self,
        stored: Stored,
        draft: Draft,
        created: int,
        attempt: int,
        owner: int,
        claim: int,
    ) -> Job:
        """Another job under the same id."""
        job, (flags, arguments, extras, outside) = draft
        worker = self.number_of(job._worker)
        status, was = STATUS_CODES[job._status], stored.code
        had = stored.entries
        self.touched = True
        delete_parts(self.transaction, self.databases, stored.id, *parts_of(stored.flags))
        put_parts(self.transaction, self.databases, stored.id, outside)
        if (worker, status) != (stored.worker, was):
            index.leave(self.transaction, self.databases, stored.key, stored.worker, was)
            index.enter(self.transaction, self.databases, stored.key, worker, status)
        has = by_option.entries(stored.id, worker, status, job._options)
        by_option.replace(self.transaction, self.databases, had, has)
        self.awakens = self.awakens or status in AWAKENING
        length, now = len(arguments), self.now
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
        return self.job(job._worker, stored.key, header, record)

    def remove(self, stored: Stored) -> None:
        """Deletes a job and all that belongs to it."""
        had = stored.entries
        self.touched = True
        was = stored.code
        by_option.replace(self.transaction, self.databases, had, by_option.NO_ENTRIES)
        self.transaction.delete(stored.key, db=self.databases.jobs)
        delete_parts(self.transaction, self.databases, stored.id, *parts_of(stored.flags))
        index.leave(self.transaction, self.databases, stored.key, stored.worker, was)

    def keys(self, status: Status, workers: Sequence[int] | None) -> index.Keys:
        """The jobs of a status of these workers, of all where it is None."""
        return index.Keys(self.databases, [STATUS_CODES[status]], workers)

    def numbers_of(self, names: Sequence[str | None]) -> list[int] | None:
        """The numbers of those of these workers that have one; None, for all workers, where
        there is no name."""
        if not names:
            return None
        found = [self._names.number(self.transaction, name) for name in names]
        return [number for number in found if number is not None]

    def without_paused(self, workers: list[int] | None) -> list[int] | None:
        """The same without those that are paused."""
        paused = by_option.paused(self.transaction, self.databases)
        if not paused:
            return workers
        known = index.workers(self.transaction, self.databases) if workers is None else workers
        return [number for number in known if number not in paused]

    def refuse_duplicate(self, options: Options, status: Status, job_id: int | None) -> None:
        """Raises `DuplicateJobError` where a job of that id (None: a new one) may not have
        its unique key beside the others."""
        holder = self.holder(options, status)
        if holder is not None and holder != job_id:
            raise DuplicateJobError(
                f"job {holder}, which has not ended, has the unique key {options.unique_key!r}; "
                "insert with on_duplicate to skip or replace",
                job_id=holder,
                found=options.unique_key,
            )

    def holder(self, options: Options, status: Status) -> int | None:
        """The id of the job that has the unique key which a job of that status needs."""
        if options.unique_key is None or status not in INCOMPLETE:
            return None
        return by_option.holder(self.transaction, self.databases, options.unique_key)

    def tell(self, kind: EventKind, job: Job, was: Stored) -> None:
        """Notes an event for those who listen."""
        if self.events is not None:
            # By an int: above 2**53 microseconds a float would be rounded before it is divided.
            seconds = max(self.now - was.since, 0) / 1_000_000
            self.events.append(Event(kind, job, seconds, was.status))

    def owner(self) -> int:
        """The number of this process, which gets one, and its lock, when first asked."""
        if self._owner is None:
            self._owner = self._owners.own
            if self._owner is None or not self._is_registered(self._owner):
                self.touched = self.has_learnt = True
                self._owner = self._new_owner = self.counters.next(NEXT_OWNER, MAX_OWNER)
                owners.register(self.transaction, self.databases, self._owner)
            self._owners.hold(self._owner)
        return self._owner

    def _is_registered(self, number: int) -> bool:
        """False where the lock was lost (foreign code closed the file) and others have
        taken this process for dead."""
        if not self._is_verified:
            found = self.transaction.get(pack_number(number), db=self.databases.owners)
            self._is_verified = found is not None
        return self._is_verified

    def dead_among(self, numbers: Iterable[int]) -> set[int]:
        """The owners that are dead still: a living one that had lost its lock may have
        taken it again before this transaction."""
        return {number for number in numbers if not self._owners.is_alive(number)}

    def strike_out(self, numbers: Iterable[int]) -> None:
        """Forgets owners that are dead and hold nothing."""
        for number in self.dead_among(numbers):
            self.touched = True
            owners.unregister(self.transaction, self.databases, number)

    def job(self, worker: str | None, key: bytes, header: Header, record: bytes) -> Job:
        """The job of a record that was just made, with what stands outside of it."""
        try:
            return job_of(self.transaction, self.databases, worker, key, header, record)
        except ValueError as error:
            raise corrupt_record(unpack_number(key), error) from None

    def read(self, stored: Stored) -> Job:
        """The job that stands there."""
        header = unpack_record(stored.key, stored.record)
        return self.job(self.name_of(stored), stored.key, header, stored.record)

    def kind_of(self, name: str | None, status: Status) -> Kind:
        """What jobs of a worker that have a status have in common."""
        found = self._names.kinds.get((name, status))
        if found is None:
            found = kind(self.number_of(name), status)
            if name not in self.new_names:  # which may never be committed
                self._names.kinds[name, status] = found
        return found

    def number_of(self, name: str | None) -> int:
        """The number of a worker, which gets one where it has none."""
        if name is None:
            return NO_WORKER
        number = self.new_names.get(name)
        if number is None:
            number = self._names.number(self.transaction, name)
        if number is None:
            self.touched = self.has_learnt = True
            number = self.counters.next(NEXT_WORKER, MAX_WORKER)
            self._names.intern(self.transaction, name, number)
            self.new_names[name] = number
        return number

    @property
    def known_workers(self) -> Mapping[int, str | None]:
        """The names of workers that are remembered, by number."""
        return self._names.known

    def name_of(self, stored: Stored) -> str | None:
        """The worker of a job."""
        if not self.new_names and stored.worker in self._names.known:
            return self._names.known[stored.worker]
        for name, new in self.new_names.items():
            if new == stored.worker:
                return name
        try:
            return self._names.name(self.transaction, stored.worker)
        except ValueError as error:
            raise corrupt_record(stored.id, error) from None
