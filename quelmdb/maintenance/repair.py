"""A new generation of what can be read of a damaged one.

Records tell by their checksums that they are whole, and all else can be made of them again:
the indexes, the counters, the owners. The names of workers stand twice. What is no whole job
is set aside in a file. The damaged generation is read as bytes (`salvage`): LMDB never sees
it, and nothing in it is changed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

from quelmdb import by_option, codec, layout, recordlayout
from quelmdb.durability import EPHEMERAL, FULL, SMALLEST_CAPACITY
from quelmdb.engine import Databases, Transaction, create_engine, databases_of, open_engine
from quelmdb.engine_errors import is_foreign, mapped_error
from quelmdb.errors import CorruptStoreError, QuelmdbError, UnsupportedFormatError
from quelmdb.extras import decoded_options, unpacked
from quelmdb.filesystem import sync_directory
from quelmdb.identity import new_meta
from quelmdb.maintenance.numbers import Used, WorkerNames
from quelmdb.maintenance.rebuild import NOBODY, Rebuilt, Whole
from quelmdb.maintenance.salvage import Chunk, Record, Salvage, part_of
from quelmdb.options import PLAIN
from quelmdb.pages import Pages
from quelmdb.persistence import Problem
from quelmdb.records import decoder, references
from quelmdb.values import MAX_ID, MAX_OWNER, error_text, time_of

Progress = Callable[[int, int], object]
"""Is told, now and then and at the end, how many records are done, and of how many, about."""

_OFTEN: Final = 1_000  # records, after which it is told how many are done
_ASIDE: Final[dict[str, Any]] = {"quelmdb": "aside", "version": 1}


@dataclass
class Repaired:
    """What became of a damaged generation."""

    kept: int = 0
    """Jobs that the new one has."""
    loose: int = 0
    """Those of them that were found on pages to which nothing refers any more: some may be
    older than what was stored last, or of jobs that were deleted."""
    set_aside: int = 0
    """Records, chunks and pages that are in the file `aside`, and generations that nothing
    refers to."""
    aside: Path | None = None
    undone: bool = False
    """Whether no state of the store can be read whole that is certainly its last: what the last
    transaction changed may be undone, where only its databases are not found all but jobs."""
    invented: dict[int, str] = field(default_factory=dict)
    """Names of workers that were lost, by number."""
    problems: list[Problem] = field(default_factory=list)
    """All that was wrong, and what was done about it."""


def repair(
    source: Path,
    target: Path,
    aside: Path,
    *,
    durability: str | None = None,
    capacity: int | None = None,
    progress: Progress | None = None,
) -> Repaired:
    """Fills the empty directory `target` with a generation of all jobs in the generation
    `source` that are whole, synced; `aside`, which must not exist, is made where there is
    anything else. Nobody may write to `source` meanwhile.

    Without `durability` it is what `source` says that it has; an ephemeral one gets a file
    of `capacity` bytes, or else of the size that it had. Its uuid and its counters are kept
    where they can be read. Databases and entries of `meta` that are not of this version's
    format are not copied.

    O(pages and jobs) in time. O(workers, owners, problems) in memory, where pages of jobs
    are damaged O(jobs). Where it raises, `target` is of no use: `UnsupportedFormatError` for
    what a later version seems to have written, `StoreFullError`, `DiskError` and other
    `StoreError` for what the disks say, `CorruptStoreError` where nothing is left.
    """
    try:
        with Pages(source / layout.DATA_FILE) as pages, closing(_Aside(aside)) as file:
            work = _Repair(Salvage(pages), pages, file, progress)
            return work.run(source, target, durability, capacity)
    except Exception as error:
        if is_foreign(error):
            raise mapped_error(error, target) from error
        raise


class _Aside:
    """A CBOR sequence of maps, made when there is the first to be written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self.count = 0

    def add(self, reason: str, **fields: Any) -> None:
        if self._file is None:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            self._file = os.fdopen(descriptor, "wb")
            self._file.write(codec.SEQUENCE_START + codec.encode_map(_ASIDE))
        self._file.write(codec.encode_map({"reason": error_text(reason), **fields}))
        self.count += 1

    def sync(self) -> Path | None:
        """Makes it durable; its path where there is one."""
        if self._file is None:
            return None
        self._file.flush()
        os.fsync(self._file.fileno())
        sync_directory(self._path.parent)
        return self._path

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


class _InStep:
    """Chunks, beside records that come by ascending id."""

    def __init__(
        self, salvage: Salvage, orphans: Callable[[int | None, list[Chunk]], None]
    ) -> None:
        """`orphans` is told of chunks whose job did not come."""
        self._groups = salvage.chunks()
        self._orphans = orphans
        self._next: tuple[int, list[Chunk]] | None = None
        self._last: tuple[int, list[Chunk]] = (0, [])
        self._advance()

    def of(self, job_id: int) -> list[Chunk]:
        """Those of a job; the same ones when it is asked for again."""
        while self._next is not None and self._next[0] <= job_id:
            if self._next[0] < job_id:
                self._orphans(*self._next)
            else:
                self._last = self._next
            self._advance()
        return self._last[1] if self._last[0] == job_id else []

    def rest(self) -> None:
        """No record comes any more."""
        while self._next is not None:
            self._orphans(*self._next)
            self._advance()

    def _advance(self) -> None:
        for job_id, chunks in self._groups:
            if job_id is not None:
                self._next = job_id, chunks
                return
            self._orphans(None, chunks)
        self._next = None


class _Repair:
    """One repair."""

    def __init__(
        self, salvage: Salvage, pages: Pages, aside: _Aside, progress: Progress | None
    ) -> None:
        self._salvage = salvage
        self._pages = pages
        self._aside = aside
        self._progress = progress
        self._done = Repaired(undone=salvage.undone, problems=salvage.problems)
        self._used = Used()
        self._names = WorkerNames(salvage, self._report)
        self._chunks = _InStep(salvage, self._orphans)
        self._future = 0  # records of no version that is known, whose checksums are right

    def run(
        self, source: Path, target: Path, durability: str | None, capacity: int | None
    ) -> Repaired:
        meta = dict(self._salvage.entries(layout.META))
        if durability is None:
            stored = meta.get(layout.DURABILITY_KEY, b"").decode(errors="replace")
            durability = stored if stored in (FULL, EPHEMERAL) else FULL
        ephemeral = durability == EPHEMERAL
        if not ephemeral:
            capacity = None
        elif capacity is None:
            size = (source / layout.DATA_FILE).stat().st_size
            capacity = max(SMALLEST_CAPACITY, -(-size // 2**16) * 2**16)
        create_engine(target, self._identity(meta, durability), capacity)
        with open_engine(target, ephemeral=ephemeral, readonly=False) as engine:
            with engine.begin(write=True) as transaction:
                databases = databases_of(engine, transaction, create=False)
                owners = self._copy_owners(transaction, databases)
            jobs = Rebuilt(engine, databases, owners, self._used, self._report)
            for number, record in enumerate(self._salvage.records()):
                if whole := self._looked_at(record):
                    jobs.add(whole)
                    self._done.kept += 1
                    self._done.loose += record.loose
                if self._progress is not None and number % _OFTEN == 0:
                    self._progress(number, max(number, self._salvage.count))
            jobs.flush()
            self._chunks.rest()
            self._refuse_other_formats(meta, target)
            self._refuse_nothing(meta, source)
            with engine.begin(write=True) as transaction:
                self._put_names(transaction, databases)
                self._copy_paused(transaction, databases)
                for name, value in self._used.counters(meta, self._report):
                    transaction.put(name, value, db=databases.meta)
            engine.sync(True)
        sync_directory(target)
        self._set_pages_aside()
        return self._finish()

    def _finish(self) -> Repaired:
        done = self._done
        done.set_aside = self._aside.count
        done.aside = self._aside.sync()
        done.invented = self._names.invented
        if done.loose:
            self._report(
                Problem(
                    "structure",
                    f"{done.loose} jobs were found on pages to which nothing refers: some may be "
                    "older than what was stored last, or have been deleted",
                )
            )
        if self._progress is not None:
            self._progress(done.kept, done.kept)
        return done

    def _report(self, problem: Problem) -> None:
        self._done.problems.append(problem)

    # --- Records ------------------------------------------------------------

    def _looked_at(self, found: Record) -> Whole | None:
        """A job, if it is whole; else it is set aside."""
        job_id = layout.unpack_number(found.key)
        chunks = self._chunks.of(job_id)
        try:
            return self._whole(job_id, found, chunks)
        except (QuelmdbError, ValueError) as error:
            self._report(Problem("record", f"is set aside: {error}", job_id))
            self._aside.add(str(error), id=job_id, record=found.record, chunks=_told(chunks))
            self._used.see_aside(job_id)
            return None

    def _whole(self, job_id: int, found: Record, chunks: list[Chunk]) -> Whole:
        """Raises `QuelmdbError` or `ValueError` where something of it is damaged."""
        key, record, _ = found
        try:
            header = recordlayout.unpack_record(key, record)
        except layout.Damaged:
            self._future += _has_checksum(key, record)
            raise
        if not 0 < job_id <= MAX_ID:
            raise layout.Damaged(f"{job_id} is no id")
        _, _, flags, _, worker, _, _, created, updated, _ = header
        outside = tuple(
            (part, self._salvage.part(job_id, part, reference, chunks))
            for part, reference in references(record).items()
        )
        options = PLAIN
        if flags & recordlayout.RARE:
            options = decoded_options(unpacked(recordlayout.split_body(record)[1]))
        decoder(outside)(record)
        time_of(created)
        time_of(updated)
        self._names.name(worker)
        parts = dict(outside)
        if surplus := [chunk for chunk in chunks if part_of(chunk) not in parts]:
            self._orphans(job_id, surplus)
        return Whole(job_id, key, header, record, outside, options)

    def _orphans(self, job_id: int | None, chunks: list[Chunk]) -> None:
        """Chunks to which no record refers."""
        reason = "no record refers to them" if job_id is not None else "its key is none"
        self._report(Problem("payloads", f"{len(chunks)} chunks are set aside: {reason}", job_id))
        self._aside.add(reason, id=job_id, chunks=_told(chunks))

    def _set_pages_aside(self) -> None:
        """The pages of jobs and payloads that are damaged: nothing on them is lost."""
        for hole in self._salvage.damaged:
            page = self._pages.page(hole.page)  # nothing of what was cut off
            self._aside.add(hole.reason, page=hole.page, bytes=page or b"")

    # --- All else -----------------------------------------------------------

    def _identity(self, meta: dict[bytes, bytes], durability: str) -> list[tuple[bytes, bytes]]:
        """Who the store is; it stays the same."""
        try:
            own = layout.checked_uuid(meta.get(layout.UUID_KEY, b""))
        except layout.Damaged as error:
            self._report(Problem("meta", f"{error}; it has a new one"))
            return new_meta(durability)
        return [*(dict(new_meta(durability)) | {layout.UUID_KEY: own}).items()]

    def _refuse_other_formats(self, meta: dict[bytes, bytes], target: Path) -> None:
        """What `meta` says of the format has no checksum. It is taken for damage as long as
        there are jobs, and nothing in the store but what this version knows."""
        known = {
            layout.FORMAT_KEY: (layout.pack_number(layout.FORMAT_VERSION),),
            layout.FEATURES_KEY: (layout.OPTIONS_FEATURE, b""),
            layout.WRITE_FEATURES_KEY: (b"",),
            layout.BYTE_ORDER[0]: layout.BYTE_ORDER[1:],
        }
        for name, values in known.items():
            value = meta.get(name)
            if value is None or value in values:
                continue
            if self._future or self._salvage.foreign or not self._done.kept:
                raise UnsupportedFormatError(
                    f"it says that its {name.decode()} is {value!r}, which this quelmdb does not "
                    "know; use a version of quelmdb that knows it",
                    path=str(target),
                    expected=values[0],
                    found=value,
                )
            self._report(Problem("meta", f"its {name.decode()} was {value!r}"))

    def _refuse_nothing(self, meta: dict[bytes, bytes], source: Path) -> None:
        """An empty store in the place of one that is lost would be taken for a sound one."""
        if not self._done.kept and not self._aside.count and layout.IDENTITY[0] not in meta:
            raise CorruptStoreError(
                f"nothing of a store can be read in {source / layout.DATA_FILE}; restore it from a "
                "backup",
                path=str(source),
            )

    def _copy_owners(self, transaction: Transaction, databases: Databases) -> set[int]:
        found = dict(self._salvage.entries(layout.OWNERS))
        owners = {}
        for key, value in found.items():
            number = layout.unpack_number(key) if len(key) == layout.NUMBER_BYTES else 0
            if not 0 < number <= MAX_OWNER:
                self._report(Problem("owners", f"{key!r} is no number of an owner"))
                continue
            try:
                layout.unpack_owner(value)
            except layout.Damaged as error:
                self._report(Problem("owners", f"owner {number}: {error}"))
                value = NOBODY
            owners[number] = value
            self._used.see(layout.NEXT_OWNER, number)
        for number, value in owners.items():
            transaction.put(layout.pack_number(number), value, db=databases.owners)
        return set(owners)

    def _put_names(self, transaction: Transaction, databases: Databases) -> None:
        for number, name in self._names:
            key, value = layout.pack_number(number), name.encode()
            transaction.put(key, value, db=databases.worker_names)
            transaction.put(value, key, db=databases.workers)
            self._used.see(layout.NEXT_WORKER, number)

    def _copy_paused(self, transaction: Transaction, databases: Databases) -> None:
        for key, value in self._salvage.entries(layout.BY_OPTION):
            if not key.startswith(layout.PAUSED_PREFIX):
                continue
            try:
                worker = layout.paused_worker(key)
            except layout.Damaged:
                worker = -1
            if not self._names.known(worker):
                self._report(Problem("by_option", f"a worker is paused that is none: {key!r}"))
                continue
            by_option.pause(transaction, databases, worker)
            if value:
                self._report(Problem("by_option", f"that worker {worker} is paused had a value"))


def _told(chunks: Iterable[Chunk]) -> list[list[bytes]]:
    return [[chunk.key, chunk.value] for chunk in chunks]


def _has_checksum(key: bytes, record: bytes) -> bool:
    """Whether the checksum is right of what is no record of this version."""
    covered, checksum = key + record[:-4], record[-4:]
    return recordlayout.fits_reference(recordlayout.pack_reference(covered)[:4] + checksum, covered)
