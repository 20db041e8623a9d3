"""Every rule of the format (docs/format.md), checked against one point in time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from quelmdb import by_option, layout, recordlayout
from quelmdb.engine import Database, Transaction, structural_problems
from quelmdb.environment import Environment
from quelmdb.errors import QuelmdbError
from quelmdb.job import Job
from quelmdb.maintenance.salvage import pair_of
from quelmdb.names import Names
from quelmdb.pages import Pages
from quelmdb.persistence import Problem
from quelmdb.records import read_job, references
from quelmdb.status import Status
from quelmdb.stored import verified
from quelmdb.values import MAX_OWNER


def check(environment: Environment, transaction: Transaction) -> list[Problem]:
    """Every problem that a store has, as its transaction sees it. O(jobs) in time,
    O(problems) in memory.

    Where the pages themselves are damaged, the rules above them are not looked at:
    LMDB might not survive it.
    """

    damaged = check_structure(environment.directory)
    return damaged or list(_Rules(environment, transaction).problems())


def check_structure(generation: Path) -> list[Problem]:
    """What is wrong with the pages of a generation, read without LMDB. O(pages)."""
    return [Problem("structure", message) for message in structural_problems(generation)]


def check_pages_at_opening(generation: Path) -> list[Problem]:
    """What is wrong with the few pages that LMDB reads of a generation to open it, and might
    not survive: to be asked before. O(free pages)."""
    while True:
        with Pages(generation / layout.DATA_FILE) as pages:
            problems = pages.problems_at_opening((layout.META,))
            with Pages(generation / layout.DATA_FILE) as again:
                if not problems or again.metas == pages.metas:  # nobody wrote meanwhile
                    return [Problem("structure", problem) for problem in problems]


_PARTS: Final = (
    recordlayout.ARGUMENTS,
    recordlayout.RESULT,
    recordlayout.ERROR,
    recordlayout.FAILURES,
)


class _Rules:
    """The rules above the pages, in one read transaction."""

    def __init__(self, environment: Environment, transaction: Transaction) -> None:
        self._transaction = transaction
        self._databases = environment.databases
        self._names = Names(environment.databases)
        # The largest number that is in use, by the counter that must be above it.
        self._used = dict.fromkeys(
            (layout.NEXT_ID, layout.NEXT_CLAIM, layout.NEXT_OWNER, layout.NEXT_WORKER), 0
        )

    def problems(self) -> Iterator[Problem]:
        for name, rule in (
            ("meta", self._check_meta()),
            ("worker names", self._check_names()),
            ("record", self._check_records()),
            (
                "by_status",
                self._check_index(
                    "by_status",
                    self._databases.by_status,
                    lambda worker, status: layout.STATUS_KEYS[status],
                ),
            ),
            (
                "by_worker_status",
                self._check_index(
                    "by_worker_status",
                    self._databases.by_worker_status,
                    layout.worker_status_key,
                ),
            ),
            ("by_option", self._check_options()),
            ("payloads", self._check_payloads()),
            ("owners", self._check_owners()),
            ("counters", self._check_counters()),
        ):
            try:
                yield from rule
            except ValueError as error:
                yield Problem(name, f"has a key or a number that is none: {error}")

    def _check_meta(self) -> Iterator[Problem]:
        """Who the store is. (Its format was looked at when it was opened.)"""
        try:
            layout.checked_uuid(
                self._transaction.get(layout.UUID_KEY, b"", db=self._databases.meta)
            )
        except layout.Damaged as error:
            yield Problem("meta", str(error))

    def _check_names(self) -> Iterator[Problem]:
        """Names and numbers of workers are each other's inverse."""
        databases = self._databases
        for database, inverse in (
            (databases.workers, databases.worker_names),
            (databases.worker_names, databases.workers),
        ):
            for key, value in self._transaction.cursor(database):
                if self._transaction.get(value, db=inverse) != key:
                    yield Problem("worker names", f"{key!r} has {value!r}, which has it not")
        for key, name in self._transaction.cursor(databases.worker_names):
            if pair_of(key, name) is None:
                yield Problem("worker names", f"{key!r} has {name!r}: number or name is none")
            self._use(layout.NEXT_WORKER, layout.unpack_number(key))

    def _check_records(self) -> Iterator[Problem]:
        """Each record is one, can be decoded, and has its entry in both indexes."""
        databases = self._databases
        with (
            self._transaction.cursor(databases.by_status) as by_status,
            self._transaction.cursor(databases.by_worker_status) as by_worker_status,
        ):
            for key, record in self._transaction.cursor(databases.jobs):
                job_id = layout.unpack_number(key)
                self._use(layout.NEXT_ID, job_id)
                try:
                    job = read_job(self._transaction, databases, self._names, key, record)
                    _decode_all(job)
                except QuelmdbError as error:
                    yield Problem("record", str(error), job_id)
                    continue
                self._use(layout.NEXT_CLAIM, job.claim)
                self._use(layout.NEXT_OWNER, job.owner)
                _, status, _, _, worker, *_ = recordlayout.unpack_record(key, record)
                if not by_status.set_key_dup(layout.STATUS_KEYS[status], key):
                    yield Problem("by_status", f"has no entry as {job.status}", job_id)
                index_key = layout.worker_status_key(worker, status)
                if not by_worker_status.set_key_dup(index_key, key):
                    yield Problem(
                        "by_worker_status", f"has no entry as {job.worker!r}'s {job.status}", job_id
                    )
                for option, value in by_option.entries(
                    job_id, worker, status, job._options
                ).items():
                    if not by_option.has_entry(self._transaction, databases, option, value):
                        yield Problem("by_option", f"has no entry {option!r}", job_id)
                if job.owner and job.status is not Status.STARTED:
                    yield Problem("owner", f"is {job.status}, and owner {job.owner} has it", job_id)
                elif job.owner and not self._is_owner(job.owner):
                    yield Problem("owner", f"owner {job.owner}, which has it, is unknown", job_id)

    def _check_index(
        self, name: str, database: Database, own_key: Callable[[int, int], bytes]
    ) -> Iterator[Problem]:
        """An index has entries of jobs alone, each under the key of its worker and status."""
        for index_key, key in self._transaction.cursor(database):
            job_id = layout.unpack_number(key)
            record = self._transaction.get(key, db=self._databases.jobs)
            if record is None:
                yield Problem(name, "has an entry and no record", job_id)
                continue
            try:
                _, status, _, _, worker, *_ = recordlayout.unpack_record(key, record)
            except ValueError:
                continue  # reported with the records
            if index_key != own_key(worker, status):
                yield Problem(name, "has an entry that is not its status and worker's", job_id)

    def _check_options(self) -> Iterator[Problem]:
        """Options have entries of jobs alone that ask for them, and are in a state for it."""
        databases = self._databases
        for option, value in by_option.all_entries(self._transaction, databases):
            job_id = by_option.job_of(option, value)
            key = layout.pack_number(job_id)
            record = self._transaction.get(key, db=databases.jobs)
            if record is None:
                yield Problem("by_option", "has an entry and no record", job_id)
                continue
            try:
                own = verified(job_id, key, record).entries
            except QuelmdbError:
                continue  # reported with the records
            if own.get(option) != value:
                yield Problem("by_option", f"has an entry {option!r}, which is not its own", job_id)
        for number in by_option.paused(self._transaction, databases):
            self._names.name(self._transaction, number)
            if not by_option.has_entry(
                self._transaction, databases, layout.paused_key(number), b""
            ):
                yield Problem("by_option", f"that worker {number} is paused has a value")

    def _check_payloads(self) -> Iterator[Problem]:
        """Every chunk belongs to a part that a record refers to, and is in its place."""
        previous: tuple[int, int, int] | None = None
        for key in self._transaction.cursor(self._databases.payloads).iternext(values=False):
            place = recordlayout.split_payload_key(key)
            job_id, part, chunk = place
            if chunk and previous != (job_id, part, chunk - 1):
                yield Problem("payloads", f"chunk {chunk} of part {part} follows no other", job_id)
            if chunk == 0 and part not in self._parts(job_id):
                yield Problem("payloads", f"part {part} is stored, and not referred to", job_id)
            previous = place

    def _parts(self, job_id: int) -> set[int]:
        key = layout.pack_number(job_id)
        record = self._transaction.get(key, db=self._databases.jobs)
        if record is None:
            return set()
        try:
            recordlayout.unpack_record(key, record)
            return set(references(record))
        except ValueError:
            return set(_PARTS)  # reported with the records

    def _check_owners(self) -> Iterator[Problem]:
        for key, value in self._transaction.cursor(self._databases.owners):
            number = layout.unpack_number(key)
            self._use(layout.NEXT_OWNER, number)
            if number > MAX_OWNER:
                yield Problem("owners", f"{number} is no number of an owner")
            try:
                layout.unpack_owner(value)
            except ValueError as error:
                yield Problem("owners", f"owner {layout.unpack_number(key)}: {error}")

    def _check_counters(self) -> Iterator[Problem]:
        """Each counter is above every number that it gave out."""
        for name, used in self._used.items():
            value = self._transaction.get(name, db=self._databases.meta)
            if value is None or layout.unpack_number(value) <= used:
                yield Problem("counters", f"{name.decode()} is not above {used}")

    def _is_owner(self, number: int) -> bool:
        key = layout.pack_number(number)
        return self._transaction.get(key, db=self._databases.owners) is not None

    def _use(self, counter: bytes, number: int) -> None:
        self._used[counter] = max(self._used[counter], number)


def _decode_all(job: Job) -> None:
    """Raises `DecodeError` where a value or a time of the job is none."""
    job.as_dict()
