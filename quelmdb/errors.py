"""Every error that the library raises.

    QuelmdbError
    ├── StoreError                     the store as a whole
    │   ├── StoreNotFoundError         (FileNotFoundError)
    │   ├── NotAStoreError             (ValueError)
    │   ├── UnsupportedFormatError     (ValueError)   another version, feature or byte order
    │   ├── DurabilityError            (ValueError)   another durability or capacity
    │   ├── StoreClosedError           (ValueError)
    │   ├── SnapshotEndedError         (ValueError)
    │   ├── CorruptStoreError          (OSError)
    │   ├── CorruptRecordError         (ValueError)   one job's record; the others are readable
    │   ├── StoreFullError             (OSError)      disk, quota, map or numbers used up
    │   ├── DiskError                  (OSError)
    │   ├── StorePermissionError       (PermissionError)
    │   ├── ReadOnlyStoreError         (OSError)
    │   ├── UnsupportedFileSystemError (OSError)
    │   ├── StoreBusyError             (OSError)      held in a way that cannot be shared
    │   ├── ForkedStoreError           (RuntimeError)
    │   ├── WrongThreadError           (RuntimeError)
    │   ├── BatchError                 (RuntimeError) used outside of its `with` block
    │   └── TooManyReadersError        (OSError)
    ├── JobError                       one job
    │   ├── JobExistsError             (ValueError)
    │   ├── DuplicateJobError          (ValueError)   another one has its unique key
    │   ├── JobNotFoundError           (LookupError)
    │   ├── InvalidJobError            (ValueError, TypeError)
    │   ├── InvalidTransitionError     (ValueError)
    │   └── StaleClaim                 (RuntimeError)
    └── CodecError                     arguments and results
        ├── EncodeError                (TypeError, ValueError)
        ├── TooLargeError              (ValueError)
        └── DecodeError                (ValueError)

Each inherits the builtin that people expect, and carries its facts as
attributes beside the sentence.
"""

import errno


class QuelmdbError(Exception):
    """Root of the tree. The message says what was wrong, where, and what to do.

    Attributes, None where they do not apply: `path` (the store or file, str),
    `job_id` (int), `expected` and `found` (whatever was compared).
    """

    def __init__(
        self,
        message: str,
        *,
        path: str | None = None,
        job_id: int | None = None,
        expected: object = None,
        found: object = None,
    ) -> None:
        super().__init__(message)
        self.path = path
        self.job_id = job_id
        self.expected = expected
        self.found = found


class StoreError(QuelmdbError):
    """The store as a whole cannot do what was asked."""


class StoreNotFoundError(StoreError, FileNotFoundError):
    """There is no store at that path, and none was to be created."""


class NotAStoreError(StoreError, ValueError):
    """The path is a file, or a directory with something else in it."""


class UnsupportedFormatError(StoreError, ValueError):
    """The store was written in a format, with a feature, or on a byte order
    that this version cannot serve."""


class DurabilityError(StoreError, ValueError):
    """The durability or capacity that is asked for is none, or not that of the store."""


class StoreClosedError(StoreError, ValueError):
    """The store was closed."""


class SnapshotEndedError(StoreError, ValueError):
    """The snapshot that this view or reader belongs to has ended."""


class CorruptStoreError(StoreError, OSError):
    """The data file is damaged or incomplete."""


class CorruptRecordError(StoreError, ValueError):
    """One job's bytes are no record, or their checksum fails."""


class StoreFullError(StoreError, OSError):
    """There is no room for more jobs. Claims and completions go on, from
    space that was kept back for them."""

    def __init__(self, message: str, *, path: str | None = None) -> None:
        super().__init__(message, path=path)
        self.errno = errno.ENOSPC


class DiskError(StoreError, OSError):
    """Reading or writing the medium failed. Nothing was changed; but where every later call says
    that the store is to be opened again, it is unknown whether the last write was made."""


class StorePermissionError(StoreError, PermissionError):
    """The files of the store may not be opened by this user."""


class ReadOnlyStoreError(StoreError, OSError):
    """A write was asked of a store that is open for reading only."""


class UnsupportedFileSystemError(StoreError, OSError):
    """The store lies on a file system that cannot carry it (a network one)."""


class StoreBusyError(StoreError, OSError):
    """The store is open, here or elsewhere, in a way that excludes this use."""


class ForkedStoreError(StoreError, RuntimeError):
    """The store was opened before a fork and is used in the child."""


class WrongThreadError(StoreError, RuntimeError):
    """A snapshot is used in another thread than the one that took it."""


class BatchError(StoreError, RuntimeError):
    """A batch is used outside of its `with` block, where nothing would apply it."""


class TooManyReadersError(StoreError, OSError):
    """Every slot of the reader table is taken by a living process."""


class JobError(QuelmdbError):
    """A job is not, or is not in a state, as the call needs it."""


class JobExistsError(JobError, ValueError):
    """A job with that id is stored already. `update` replaces it."""


class DuplicateJobError(JobError, ValueError):
    """Another job that has not ended has the same unique key: `job_id` is its id, `found`
    the key."""


class JobNotFoundError(JobError, LookupError):
    """No job with that id is stored."""


class InvalidJobError(JobError, ValueError, TypeError):
    """An id, worker, status or time that no job can have."""


class InvalidTransitionError(JobError, ValueError):
    """The job's status does not allow this verb (docs/state-machine.md)."""


class StaleClaim(JobError, RuntimeError):
    """The job is no longer held under the claim at hand: it was finished,
    released, rescued or claimed again meanwhile. Nothing was changed.

    `expected` is the number of the claim that was presented, `found` that of the
    claim which is stored.
    """


class CodecError(QuelmdbError):
    """Arguments or a result cannot be carried."""


class EncodeError(CodecError, TypeError, ValueError):
    """A value that CBOR, as this store uses it, cannot carry. `path` says
    where in the structure it stands, as in ``$.users[3].when``."""


class TooLargeError(CodecError, ValueError):
    """Encoded, the value is larger than the store's limit (`expected` and
    `found` are bytes)."""


class DecodeError(CodecError, ValueError):
    """Stored bytes are no value that this store would have written."""
