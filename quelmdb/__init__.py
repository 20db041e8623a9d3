"""quelmdb: an embedded job store. A directory on disk in which many processes and
threads of one host insert, claim, finish, list and count jobs, with no server."""

from quelmdb.compaction import Compacted
from quelmdb.errors import (
    BatchError,
    CodecError,
    CorruptRecordError,
    CorruptStoreError,
    DecodeError,
    DiskError,
    DuplicateJobError,
    DurabilityError,
    EncodeError,
    ForkedStoreError,
    InvalidJobError,
    InvalidTransitionError,
    JobError,
    JobExistsError,
    JobNotFoundError,
    NotAStoreError,
    QuelmdbError,
    ReadOnlyStoreError,
    SnapshotEndedError,
    StaleClaim,
    StoreBusyError,
    StoreClosedError,
    StoreError,
    StoreFullError,
    StoreNotFoundError,
    StorePermissionError,
    TooLargeError,
    TooManyReadersError,
    UnsupportedFileSystemError,
    UnsupportedFormatError,
    WrongThreadError,
)
from quelmdb.events import Event
from quelmdb.info import ReaderSlot, StoreInfo
from quelmdb.job import Job
from quelmdb.memory import MemoryStore
from quelmdb.options import Failure, Progress
from quelmdb.owners import Owner
from quelmdb.persistence import JobStore, Persistence, Problem
from quelmdb.reader import JobView, Snapshot
from quelmdb.status import Status
from quelmdb.store import Store, open
from quelmdb.values import ANY
from quelmdb.writes import Batch, Submit

__all__ = [
    "ANY",
    "Batch",
    "BatchError",
    "CodecError",
    "Compacted",
    "CorruptRecordError",
    "CorruptStoreError",
    "DecodeError",
    "DiskError",
    "DuplicateJobError",
    "DurabilityError",
    "EncodeError",
    "Event",
    "Failure",
    "ForkedStoreError",
    "InvalidJobError",
    "InvalidTransitionError",
    "Job",
    "JobError",
    "JobExistsError",
    "JobNotFoundError",
    "JobStore",
    "JobView",
    "MemoryStore",
    "NotAStoreError",
    "Owner",
    "Persistence",
    "Problem",
    "Progress",
    "QuelmdbError",
    "ReadOnlyStoreError",
    "ReaderSlot",
    "Snapshot",
    "SnapshotEndedError",
    "StaleClaim",
    "Status",
    "Store",
    "StoreBusyError",
    "StoreClosedError",
    "StoreError",
    "StoreFullError",
    "StoreInfo",
    "StoreNotFoundError",
    "StorePermissionError",
    "Submit",
    "TooLargeError",
    "TooManyReadersError",
    "UnsupportedFileSystemError",
    "UnsupportedFormatError",
    "WrongThreadError",
    "open",
]
