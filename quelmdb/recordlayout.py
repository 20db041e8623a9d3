"""The bytes of a job on disk: its record, and what of it stands in `payloads`.

    record    := header arguments extras crc
    header    := version status flags 0 attempt worker owner arguments_length
                 created_at updated_at claim            (little-endian, 44 bytes)
    arguments := CBOR | reference                       (flag ARGUMENTS_OUTSIDE)
    extras    := nothing | CBOR map of EXTRA_* to bytes: CBOR | reference
    reference := length crc                             (of what stands in `payloads`)
    crc       := CRC-32 of the 8 bytes of the id and all of the record before it
    payload   := (id part chunk) -> at most CHUNK bytes (key big-endian, 13 bytes)

Every number in this module reaches the disk and must never change its meaning.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from struct import Struct
from struct import error as StructError
from typing import Final
from zlib import crc32

from quelmdb.layout import NUMBER_BYTES, STATUSES, Damaged

RECORD_VERSION: Final = 1
MAX_CLAIM: Final = 2**63 - 1

ARGUMENTS_OUTSIDE: Final = 1
RESULT_OUTSIDE: Final = 2
ERROR_OUTSIDE: Final = 4
FAILURES_OUTSIDE: Final = 8
RARE: Final = 16  # its extras have more than a result and an error
CANCEL_REQUESTED: Final = 32
_UNKNOWN_FLAGS: Final = ~63
_STATUS_COUNT: Final = len(STATUSES)

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
