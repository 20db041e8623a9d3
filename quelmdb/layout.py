"""The names and keys on disk: of files, databases, what is in `meta`, indexes, owners, options.
Records are told in `recordlayout`; no other module knows bytes. docs/format.md tells all in words.

    option    := "D" run_at id | "P" priority id | "W" worker priority id -> nothing
               | "U" unique key -> id | "Z" worker -> nothing      (key big-endian)

Every number in this module reaches the disk and must never change its meaning.
"""

from __future__ import annotations

import re
import sys
from array import array
from functools import lru_cache
from struct import Struct
from struct import error as StructError
from typing import Final

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
