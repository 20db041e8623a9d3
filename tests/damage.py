"""Damage to stores, done by hand: to their pages and, through LMDB, to what is in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import lmdb

from quelmdb import layout, recordlayout
from quelmdb.engine import Databases, Transaction, databases_of

PAGE: Final = 4096


class Raw(NamedTuple):
    """The content of a store, as LMDB has it, to be changed at will."""

    transaction: Transaction
    databases: Databases

    def record(self, job_id: int) -> bytes:
        return self.transaction.get(layout.pack_number(job_id), b"", db=self.databases.jobs)

    def put_record(self, job_id: int, record: bytes) -> None:
        self.transaction.put(layout.pack_number(job_id), record, db=self.databases.jobs)

    def change_header(self, job_id: int, **fields: int) -> None:
        """Changes fields of a record, whose checksum is right afterwards."""
        record = self.record(job_id)
        header = list(recordlayout.unpack_record(layout.pack_number(job_id), record))
        for name, value in fields.items():
            header[_FIELDS.index(name)] = value
        self._pack(job_id, header, recordlayout.body_of(record))

    def change_arguments(self, job_id: int, arguments: bytes, extras: bytes = b"") -> None:
        """Replaces the arguments by any bytes, under a right checksum."""
        record = self.record(job_id)
        header = list(recordlayout.unpack_record(layout.pack_number(job_id), record))
        header[_FIELDS.index("arguments_length")] = len(arguments)
        self._pack(job_id, header, arguments + extras)

    def _pack(self, job_id: int, header: list[int], body: bytes) -> None:
        key = layout.pack_number(job_id)
        version, status, flags, attempt, worker, owner, length, created, updated, claim = header
        fields = (version, status, flags, attempt, worker, owner, length, created, updated, claim)
        self.put_record(job_id, recordlayout.pack_record(key, fields, body))


_FIELDS = (
    "version status flags attempt worker owner arguments_length created_at updated_at claim"
).split()


def data_file(path: Path) -> Path:
    return path / layout.generation_name(layout.FIRST_GENERATION) / layout.DATA_FILE


@contextmanager
def raw(path: Path, map_size: int = 2**30) -> Iterator[Raw]:
    """The content of a store that is closed, in a write transaction. A map of size 0 is as
    large as the store says, as that of an ephemeral one must be."""
    directory = str(path / layout.generation_name(layout.FIRST_GENERATION))
    with (
        lmdb.open(directory, max_dbs=16, map_size=map_size, lib_version=0) as environment,
        environment.begin(write=True) as transaction,
    ):
        yield Raw(transaction, databases_of(environment, transaction, create=False))


def put_meta(path: Path, key: bytes, value: bytes | None) -> None:
    """Changes one entry of `meta`, or deletes it."""
    with raw(path) as content:
        if value is None:
            content.transaction.delete(key, db=content.databases.meta)
        else:
            content.transaction.put(key, value, db=content.databases.meta)


def damaged_copy(path: Path, copy: Path, damage: Callable[[bytearray], None]) -> Path:
    """A copy of a closed store, with its used pages as `damage` leaves them."""
    (copy / layout.generation_name(layout.FIRST_GENERATION)).mkdir(parents=True, exist_ok=True)
    data = bytearray(data_file(path).read_bytes()[: used_bytes(path)])
    damage(data)
    data_file(copy).write_bytes(data)
    return copy


def used_bytes(path: Path) -> int:
    """The size of a data file up to its last page in use."""
    with lmdb.open(
        str(path / layout.generation_name(layout.FIRST_GENERATION)), readonly=True, lib_version=0
    ) as environment:
        pages: int = environment.info()["last_pgno"] + 1
        size: int = environment.stat()["psize"]
        return pages * size


def wipe(*pages: int) -> Callable[[bytearray], None]:
    """Zeros in the place of pages."""

    def damage(data: bytearray) -> None:
        for page in pages:
            data[page * PAGE : (page + 1) * PAGE] = bytes(PAGE)

    return damage


def flip(place: int, bit: int) -> Callable[[bytearray], None]:
    def damage(data: bytearray) -> None:
        data[place] ^= 1 << bit

    return damage
