"""The bytes on disk. The only module that knows them; docs/format.md tells the same in words.

    record    := header arguments extras crc
    header    := version status flags 0 attempt worker owner arguments_length
                 created_at updated_at claim            (little-endian, 44 bytes)
    arguments := CBOR | reference                       (flag ARGUMENTS_OUTSIDE)
    extras    := nothing | CBOR map of EXTRA_* to bytes: CBOR | reference
    reference := length crc                             (of what stands in `payloads`)
    crc       := CRC-32 of the 8 bytes of the id and all of the record before it
    payload   := (id part chunk) -> at most CHUNK bytes (key big-endian, 13 bytes)
    option    := "D" run_at id | "P" priority id | "W" worker priority id -> nothing
               | "U" unique key -> id | "Z" worker -> nothing      (key big-endian)

Every number in this module reaches the disk and must never change its meaning.
"""

from __future__ import annotations

import re
import sys
from array import array
from collections.abc import Iterator, Sequence
from functools import lru_cache
from struct import Struct
from struct import error as StructError
from typing import Final
from zlib import crc32

from quelmdb.status import Status


class Damaged(ValueError):
    """Bytes that are not what stands there. Never leaves the library as it is."""


# --- The directory ---------------------------------------------------------

FIRST_GENERATION: Final = 1
_GENERATION: Final = re.compile(r"[0-9]{6,}")
_LITTER: Final = re.compile(r"[0-9]{6,}\.(new|dead)")


def generation_name(number: int) -> str:
    """The directory of a generation."""
    return f"{number:06d}"


def generation_number(name: str) -> int | None:
    """The number of the generation of that name; None where it is none."""
    return int(name) if _GENERATION.fullmatch(name) else None


def is_litter(name: str) -> bool:
    """Whether it is what an operation that was broken off, or a store without a generation,
    leaves in the directory."""
    return name in (OWNERS_FILE, BOOT_FILE, WAKEUP_FILE) or bool(_LITTER.fullmatch(name))


DATA_FILE: Final = "data.mdb"
LOCK_FILE: Final = "lock.mdb"
OWNERS_FILE: Final = "owners.lock"
BOOT_FILE: Final = "boot"  # only an ephemeral store has it
WAKEUP_FILE: Final = "wakeup"

# Of the owners file; byte N belongs to owner N, and owners end at 2**32 - 1.
MAINTENANCE_BYTE: Final = 0
WRITER_BYTE: Final = 2**32  # and the byte behind it
SERVER_BYTES: Final = 2**33  # and on: a byte a process id, of who writes to an ephemeral store
MAX_PROCESS_ID: Final = 2**32 - 1
READER_BYTES: Final = 2**34  # and on: a byte a generation, shared by those who have it open

# --- Sub-databases ---------------------------------------------------------

JOBS: Final = b"jobs"
PAYLOADS: Final = b"payloads"
BY_STATUS: Final = b"by_status"
BY_WORKER_STATUS: Final = b"by_worker_status"
WORKERS: Final = b"workers"
WORKER_NAMES: Final = b"worker_names"
OWNERS: Final = b"owners"
BY_OPTION: Final = b"by_option"
META: Final = b"meta"

# --- Meta ------------------------------------------------------------------

IDENTITY: Final = (b"identity", b"quelmdb")
FORMAT_VERSION: Final = 1
FORMAT_KEY: Final = b"format"
# Names of what a store uses beyond its version, one a line.
FEATURES_KEY: Final = b"features"  # needed to read it
OPTIONS_FEATURE: Final = b"options"  # records with options or failures, and `by_option`
WRITE_FEATURES_KEY: Final = b"features_to_write"  # needed to write it; reading is safe
BYTE_ORDER: Final = (b"byte_order", sys.byteorder.encode())
DURABILITY_KEY: Final = b"durability"
UUID_KEY: Final = b"uuid"
UUID_BYTES: Final = 16
SEAL_KEY: Final = b"seal"  # the number of the generation that has superseded this one
NEXT_ID: Final = b"next_id"
NEXT_CLAIM: Final = b"next_claim"
NEXT_OWNER: Final = b"next_owner"
NEXT_WORKER: Final = b"next_worker"


def checked_uuid(value: bytes) -> bytes:
    """The uuid of a store. Raises `Damaged` where it is none."""
    if len(value) != UUID_BYTES:
        raise Damaged(f"the uuid of the store has {len(value)} bytes")
    return value


# --- Keys: native 64-bit integers, which LMDB compares as integers ----------

_NUMBER: Final = Struct("=Q")
pack_number = _NUMBER.pack
NUMBER_BYTES: Final = _NUMBER.size

STATUSES: Final[tuple[Status, ...]] = (
    Status.SCHEDULED,
    Status.QUEUED,
    Status.STARTED,
    Status.COMPLETED,
    Status.FAILED,
    Status.CANCELLED,
)
STATUS_CODES: Final = {status: code for code, status in enumerate(STATUSES)}
STATUS_KEYS: Final = tuple(pack_number(code) for code in range(len(STATUSES)))

NO_WORKER: Final = 0  # the number of the worker None
MAX_WORKER: Final = 2**32 - 1
_STATUSES_A_WORKER: Final = 256
_STATUS_COUNT: Final = len(STATUSES)


def unpack_number(data: bytes) -> int:
    """The integer of an 8-byte key, value or duplicate. Raises `Damaged` where it is none."""
    value: int
    try:
        (value,) = _NUMBER.unpack(data)
    except StructError:
        raise Damaged(f"{len(data)} bytes are no number of {NUMBER_BYTES}") from None
    return value


def unpack_numbers(data: bytes) -> list[int]:
    """The integers of many such keys, values or duplicates, joined. Raises `Damaged` where
    they are none."""
    numbers = array("Q")
    try:
        numbers.frombytes(data)
    except ValueError:
        raise Damaged(f"{len(data)} bytes are no numbers of {NUMBER_BYTES}") from None
    return numbers.tolist()


@lru_cache(4096)
def worker_status_key(worker: int, status: int) -> bytes:
    """The key of one worker's jobs of one status in `by_worker_status`."""
    return pack_number(worker * _STATUSES_A_WORKER + status)


def split_worker_status(key: int) -> tuple[int, int]:
    """Worker number and status code of a key of `by_worker_status`. Raises `Damaged` where
    it is none."""
    worker, status = divmod(key, _STATUSES_A_WORKER)
    if worker > MAX_WORKER:
        raise Damaged(f"{worker} is no number of a worker")
    return worker, status


# --- Records ---------------------------------------------------------------

RECORD_VERSION: Final = 1
MAX_CLAIM: Final = 2**63 - 1

ARGUMENTS_OUTSIDE: Final = 1
RESULT_OUTSIDE: Final = 2
ERROR_OUTSIDE: Final = 4
FAILURES_OUTSIDE: Final = 8
RARE: Final = 16  # its extras have more than a result and an error
CANCEL_REQUESTED: Final = 32
_UNKNOWN_FLAGS: Final = ~63

# Keys of the map of extras.
EXTRA_RESULT: Final = "r"
EXTRA_ERROR: Final = "e"
EXTRA_FAILURES: Final = "f"
EXTRA_OPTIONS: Final = "o"
EXTRA_CLAIMED: Final = "c"  # claim and its time, where updated_at has become another

# Parts of a job in `payloads`.
ARGUMENTS: Final = 0
RESULT: Final = 1
ERROR: Final = 2
FAILURES: Final = 3

# A record with all its parts inline stays below half a page (2,022 bytes), and so out of
# LMDB's overflow pages: 44 + 1024 + 2 x 384 + the map and the checksum; or, where there are
# options beside them (at most 650 bytes, and 19 of a claim), 44 + 1024 + 3 x 64 + these.
INLINE_ARGUMENTS: Final = 1024
INLINE_EXTRA: Final = 384
INLINE_BESIDE_OPTIONS: Final = 64
CHUNK: Final = 2000

_HEADER: Final = Struct("<BBBxIIIIqqQ")
HEADER_BYTES: Final = _HEADER.size
_CRC: Final = Struct("<I")
_CRC_BYTES: Final = _CRC.size
_REFERENCE: Final = Struct("<II")
_PAYLOAD_KEY: Final = Struct(">QBI")
PAYLOAD_KEY_BYTES: Final = _PAYLOAD_KEY.size

_LENGTH: Final = Struct("<I")
_LENGTH_AT: Final = 16  # where arguments_length stands in the header
_FLAGS: Final = 2  # among its bytes
FRAME_BYTES: Final = HEADER_BYTES + _CRC_BYTES  # what a record has around its body

# The CRC-32 of any message followed by its own CRC-32, whatever the seed.
_RESIDUE: Final = 0x2144DF1C


Header = tuple[int, int, int, int, int, int, int, int, int, int]
"""version, status, flags, attempt, worker, owner, arguments_length, created_at,
updated_at, claim: a plain tuple, since it is made for every job that is listed."""


def pack_record(key: bytes, header: Header, body: bytes) -> bytes:
    """The record of the job whose id is `key`, checksum included. `body` is its
    arguments (or the reference to them) and, behind them, its extras."""
    record = _HEADER.pack(*header) + body
    return record + _CRC.pack(crc32(record, crc32(key)))


def unpack_record(key: bytes, record: bytes) -> Header:
    """The header of the record that stands under `key`.

    Raises `Damaged`, with the reason, where the checksum fails or it is no
    record of this version.
    """
    if len(record) >= FRAME_BYTES and crc32(key + record) == _RESIDUE:
        header: Header = _HEADER.unpack_from(record)
        version, status, flags, _, _, _, arguments_length, _, _, claim = header
        if (
            version == RECORD_VERSION
            and status < _STATUS_COUNT
            and not flags & _UNKNOWN_FLAGS
            and FRAME_BYTES + arguments_length <= len(record)
            and claim <= MAX_CLAIM
        ):
            return header
        raise Damaged(
            f"version {version}, status {status}, flags {flags:#x}, {arguments_length} bytes of "
            f"arguments and claim {claim} make no record of {len(record)} bytes in version "
            f"{RECORD_VERSION}"
        )
    raise Damaged(f"the checksum of its {len(record)} bytes fails")


def unpack_records(keys: Sequence[bytes], records: Sequence[bytes]) -> list[Header] | None:
    """The headers of records that stand under these keys; None where `unpack_record`
    would raise for one of them. It takes half as long for each as that."""
    if min(map(len, records)) < FRAME_BYTES or set(map(len, keys)) != {NUMBER_BYTES}:
        return None
    if {crc32(key + record) for key, record in zip(keys, records, strict=True)} != {_RESIDUE}:
        return None
    headers: list[Header] = list(map(_HEADER.unpack_from, records))
    for (version, status, flags, _, _, _, arguments_length, _, _, claim), record in zip(
        headers, records, strict=True
    ):
        if (
            version != RECORD_VERSION
            or status >= _STATUS_COUNT
            or flags & _UNKNOWN_FLAGS
            or FRAME_BYTES + arguments_length > len(record)
            or claim > MAX_CLAIM
        ):
            return None
    return headers


def pack_records(
    keys: Sequence[bytes], headers: Sequence[Header], bodies: Sequence[bytes]
) -> list[bytes]:
    """`pack_record` of each."""
    pack, pack_crc = _HEADER.pack, _CRC.pack
    records = [pack(*header) + body for header, body in zip(headers, bodies, strict=True)]
    return [
        record + pack_crc(crc32(record, crc32(key)))
        for key, record in zip(keys, records, strict=True)
    ]


def body_of(record: bytes) -> bytes:
    """Arguments and extras of an intact record, as `pack_record` takes them."""
    return record[HEADER_BYTES:-_CRC_BYTES]


def bodies_of(records: Sequence[bytes]) -> list[bytes]:
    """`body_of` each."""
    return [record[HEADER_BYTES:-_CRC_BYTES] for record in records]


def arguments_of(records: Sequence[bytes]) -> list[bytes]:
    """Arguments (or the reference to them) of each of some intact records."""
    unpack = _LENGTH.unpack_from
    return [
        record[HEADER_BYTES : HEADER_BYTES + unpack(record, _LENGTH_AT)[0]] for record in records
    ]


def extras_of(record: bytes, length: int) -> bytes:
    """The extras of an intact record with so many bytes of arguments."""
    return record[HEADER_BYTES + length : -_CRC_BYTES]


def split_body(record: bytes) -> tuple[bytes, bytes]:
    """Arguments (or the reference to them) and extras of an intact record."""
    (length,) = _LENGTH.unpack_from(record, _LENGTH_AT)
    end = HEADER_BYTES + length
    return record[HEADER_BYTES:end], record[end:-_CRC_BYTES]


def flags_of(record: bytes) -> int:
    """The flags of an intact record."""
    return record[_FLAGS]


# --- Payloads --------------------------------------------------------------


def pack_reference(content: bytes) -> bytes:
    """What stands in a record for content that stands in `payloads`."""
    return _REFERENCE.pack(len(content), crc32(content))


def fits_reference(reference: bytes, content: bytes) -> bool:
    """Whether `content` is what the reference was made of."""
    return pack_reference(content) == reference


def chunk_lengths(reference: bytes) -> Iterator[int]:
    """How long each chunk is of what the reference was made of. Raises `Damaged` where it is
    none."""
    try:
        length, _ = _REFERENCE.unpack(reference)
    except StructError:
        raise Damaged(f"{len(reference)} bytes are no reference") from None
    return (min(CHUNK, length - start) for start in range(0, length, CHUNK))


def payload_key(job_id: int, part: int, chunk: int = 0) -> bytes:
    """The key of one chunk. The chunks of a job, and of a part, are neighbours."""
    return _PAYLOAD_KEY.pack(job_id, part, chunk)


def split_payload_key(key: bytes) -> tuple[int, int, int]:
    """Job id, part and chunk number of a key of `payloads`. Raises `Damaged` where it
    is none."""
    try:
        job_id, part, chunk = _PAYLOAD_KEY.unpack(key)
    except StructError:
        raise Damaged(f"{len(key)} bytes are no key of a payload") from None
    return job_id, part, chunk


def chunks(job_id: int, part: int, content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values that hold `content`, in order."""
    for number, start in enumerate(range(0, len(content), CHUNK)):
        yield payload_key(job_id, part, number), content[start : start + CHUNK]


# --- Owners ----------------------------------------------------------------

_OWNER: Final = Struct("<qq")


def pack_owner(pid: int, started_at: int, boot_id: bytes) -> bytes:
    """Who an owner is, for people: process id, its start (clock ticks after boot), boot id."""
    return _OWNER.pack(pid, started_at) + boot_id


def unpack_owner(value: bytes) -> tuple[int, int, bytes]:
    """Process id, start and boot id. Raises `Damaged` where it is none."""
    if len(value) < _OWNER.size:
        raise Damaged(f"{len(value)} bytes are too few")
    pid, started_at = _OWNER.unpack_from(value)
    return pid, started_at, value[_OWNER.size :]


# --- Options ---------------------------------------------------------------

# Kinds of keys of `by_option`. Numbers are big-endian, so that LMDB, which compares these
# keys as bytes, sorts them; times are moved to be above 0, and priorities turned round, so
# that the highest comes first.
_DUE: Final = b"D"
_PRIORITY: Final = b"P"
_WORKER_PRIORITY: Final = b"W"
_UNIQUE: Final = b"U"
_PAUSED: Final = b"Z"
_TIME_ID: Final = Struct(">QQ")
_RANK_ID: Final = Struct(">IQ")
_BIG_WORKER: Final = Struct(">I")
_TIME_ZERO: Final = 2**63
_LOWEST: Final = 2**32 - 1

DUE_PREFIX: Final = _DUE
PAUSED_PREFIX: Final = _PAUSED


def due_key(run_at: int, job_id: int) -> bytes:
    """Of a job that is scheduled for a time in microseconds since 1970."""
    return _DUE + _TIME_ID.pack(run_at + _TIME_ZERO, job_id)


def split_due_key(key: bytes) -> tuple[int, int]:
    """Time and job id of such a key. Raises `Damaged` where it is none."""
    try:
        time, job_id = _TIME_ID.unpack(key[1:])
    except StructError:
        raise Damaged(f"{len(key)} bytes are no key of a due time") from None
    return time - _TIME_ZERO, job_id


def priority_prefix(worker: int | None) -> bytes:
    """Of the keys of queued jobs with a priority: of all workers (None), or of one."""
    return _PRIORITY if worker is None else _WORKER_PRIORITY + _BIG_WORKER.pack(worker)


def priority_key(worker: int | None, priority: int, job_id: int) -> bytes:
    """Of a queued job with a priority above 0."""
    return priority_prefix(worker) + _RANK_ID.pack(_LOWEST - priority, job_id)


def rank_and_id(key: bytes) -> tuple[int, int]:
    """Of such a key: what is the smaller the higher its priority is, and the job id.
    Raises `Damaged` where it is none."""
    try:
        rank, job_id = _RANK_ID.unpack(key[-_RANK_ID.size :])
    except StructError:
        raise Damaged(f"{len(key)} bytes are no key of a priority") from None
    return rank, job_id


def unique_key_of(text: str) -> bytes:
    """The key of a job that has not ended and has a unique key; the value is its id."""
    return _UNIQUE + text.encode()


def paused_key(worker: int) -> bytes:
    """The key that says that a worker is paused."""
    return _PAUSED + _BIG_WORKER.pack(worker)


def paused_worker(key: bytes) -> int:
    """The worker of such a key. Raises `Damaged` where it is none."""
    try:
        (worker,) = _BIG_WORKER.unpack(key[1:])
    except StructError:
        raise Damaged(f"{len(key)} bytes are no key of a paused worker") from None
    number: int = worker
    return number
