"""The library's errors for LMDB's, for the system's, and for damaged bytes.

Beside `engine` the only module that knows lmdb, and of lmdb only its exceptions.
"""

from __future__ import annotations

import errno
import math
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeGuard

import lmdb

from quelmdb import layout
from quelmdb.errors import (
    CorruptStoreError,
    DiskError,
    QuelmdbError,
    ReadOnlyStoreError,
    StoreBusyError,
    StoreError,
    StoreFullError,
    StoreNotFoundError,
    StorePermissionError,
    TooManyReadersError,
    UnsupportedFormatError,
)
from quelmdb.filesystem import is_full, size_limit
from quelmdb.layout import Damaged

MAX_READERS: Final = 1024  # of a store, set by its first opener; each transaction takes a slot

_Make = Callable[[str, str], StoreError]


def _as(kind: type[StoreError], advice: str) -> _Make:
    def make(reason: str, path: str) -> StoreError:
        return kind(f"{path}: {advice} ({reason})", path=path)

    return make


_DAMAGED: Final = _as(
    CorruptStoreError, "the data file is damaged; run `quelmdb check`, or restore a backup"
)
_FULL: Final = _as(StoreFullError, "no space left; nothing was changed; free some space")
_TOO_LONG: Final = _as(
    StoreFullError,
    "no space left: its file is as large as this process may make one; nothing was changed; raise "
    "the limit (ulimit -f)",
)
_FULL_OR_TOO_LONG: Final = _as(
    StoreFullError,
    "no space left, or its file is as large as this process may make one (ulimit -f); nothing was "
    "changed; free some space, or raise the limit",
)
_MISUSED: Final = _as(StoreError, "the engine refused the operation; nothing was changed")
_UNUSABLE: Final = _as(
    DiskError,
    "the engine met an error that it cannot go on from, and whether the last write was made is "
    "unknown; close it, and open the store again",
)
_FAILED: Final = _as(DiskError, "reading or writing it failed")
_UNCOMMITTED: Final = _as(
    DiskError,
    "writing it failed; nothing was changed, unless the next call says that the store is to be "
    "opened again: it is unknown then",
)

# Every exception that lmdb has; a test holds the table complete.
ERRORS: Final[dict[type[Exception], _Make]] = {
    lmdb.BadChecksumError: _DAMAGED,
    lmdb.BadDbiError: _MISUSED,
    lmdb.BadRslotError: _MISUSED,
    lmdb.BadTxnError: _MISUSED,
    lmdb.BadValsizeError: _MISUSED,
    lmdb.CorruptedError: _DAMAGED,
    lmdb.CryptoFailError: _MISUSED,
    lmdb.CursorFullError: _DAMAGED,
    lmdb.DbsFullError: _MISUSED,
    lmdb.DiskError: _FULL,
    lmdb.EnvEncryptionError: _MISUSED,
    lmdb.IncompatibleError: _DAMAGED,
    lmdb.InvalidError: _DAMAGED,
    lmdb.InvalidParameterError: _MISUSED,
    lmdb.KeyExistsError: _DAMAGED,
    lmdb.LockError: _as(
        StoreBusyError,
        "its lock file is held in a way that cannot be shared; containers that share a store "
        "must share the PID namespace",
    ),
    lmdb.MapFullError: _as(
        StoreFullError,
        "the map of this process is full; raise its limit of address space (ulimit -v)",
    ),
    lmdb.MapResizedError: _as(
        StoreFullError,
        "the file outgrew the address space of this process; raise its limit (ulimit -v)",
    ),
    lmdb.MemoryError: _as(DiskError, "not enough memory; nothing was changed"),
    lmdb.NotFoundError: _DAMAGED,
    lmdb.PageFullError: _DAMAGED,
    lmdb.PageNotFoundError: _DAMAGED,
    lmdb.PanicError: _UNUSABLE,
    lmdb.ProblemError: _UNUSABLE,
    lmdb.ReadersFullError: _as(
        TooManyReadersError,
        f"all {MAX_READERS} reader slots are taken; end snapshots, or use fewer threads at once",
    ),
    lmdb.ReadonlyError: _as(
        StorePermissionError,
        "this user may not open the files of the store; who only reads it must be allowed to write "
        f"{layout.LOCK_FILE}, too, where LMDB notes who reads",
    ),
    lmdb.TlsFullError: _MISUSED,
    lmdb.TxnFullError: _as(StoreFullError, "one transaction changes too much; use smaller batches"),
    lmdb.VersionMismatchError: _as(
        UnsupportedFormatError, "the data file has another version of LMDB's format"
    ),
}

# What has no type of its own, by its code; 0 is a refusal of py-lmdb's.
_CODES: Final[dict[int | None, _Make]] = {
    0: _as(
        StoreBusyError,
        "this process has it open already, from before a fork or by other means than quelmdb",
    ),
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: _TOO_LONG,
    errno.EBUSY: _as(
        StoreBusyError,
        "this thread is in the middle of another write; a signal handler must not write",
    ),
    errno.ENOENT: _as(StoreNotFoundError, "it is gone: deleted or moved, by others"),
    errno.EROFS: _as(ReadOnlyStoreError, "the file system is read-only"),
    errno.EPERM: _as(StorePermissionError, "the operation is not permitted"),
    errno.EMFILE: _as(
        DiskError,
        "this process has too many open files; nothing was changed; close some, or raise its "
        "limit (ulimit -n)",
    ),
    errno.ENFILE: _as(DiskError, "this machine has too many open files; nothing was changed"),
}


def is_foreign(error: BaseException) -> TypeGuard[Exception]:
    """Whether it is to be mapped. `layout.Damaged` tells of stored bytes that are
    not what they should be."""
    return isinstance(error, lmdb.Error | OSError | Damaged) and not isinstance(error, QuelmdbError)


def is_readers_full(error: Exception) -> bool:
    """Whether every slot of the reader table is taken, perhaps by processes that are dead."""
    return isinstance(error, lmdb.ReadersFullError)


def is_map_full(error: Exception) -> bool:
    """Whether the map has no page left."""
    return isinstance(error, lmdb.MapFullError)


def mapped_error(error: Exception, path: Path) -> StoreError:
    """The library's error for one of LMDB's, of the system's, or for damaged bytes."""
    make = ERRORS.get(type(error))
    if make is None and isinstance(error, Damaged):
        make = _DAMAGED
    if make is None:
        code = getattr(error, "code", getattr(error, "errno", None))
        if code == errno.EIO and is_full(path):
            # LMDB reports a short write as an I/O error, whatever cut it short.
            make = _FULL_OR_TOO_LONG if size_limit() < math.inf else _FULL
        else:
            make = _CODES.get(code, _UNCOMMITTED if "commit" in str(error) else _FAILED)
    return make(str(error), str(path))
