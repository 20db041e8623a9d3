"""Errors: a complete tree, a complete mapping, and no exception of another library."""

from __future__ import annotations

import errno
import importlib
import inspect
import pickle
import pkgutil
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cbor2
import lmdb
import pytest

import quelmdb
from quelmdb import DiskError, Job, QuelmdbError, StoreClosedError, StoreError, errors
from quelmdb.engine_errors import ERRORS, mapped_error
from quelmdb.holding import Held
from quelmdb.layout import Damaged
from quelmdb.registry import mapped
from tests import inmemory
from tests.uses import STORE_READS, WRITES

pytest_plugins = ["tests.fixtures"]
tmp_path = inmemory.tmp_path

OURS: list[Any] = [kind for kind in vars(errors).values() if inspect.isclass(kind)]
THEIRS = [
    kind
    for kind in vars(lmdb).values()
    if inspect.isclass(kind) and issubclass(kind, lmdb.Error) and kind is not lmdb.Error
]

# Lines of the tree in the docstring: the depth, the name, the builtins in parentheses.
TREE = re.findall(r"^    ([│├└─ ]*)(\w+)(?: +\(([\w, ]+)\))?", errors.__doc__ or "", re.MULTILINE)


# --- The tree -----------------------------------------------------------------


def test_the_docstring_has_every_error() -> None:
    assert sorted(name for _, name, _ in TREE) == sorted(kind.__name__ for kind in OURS)
    assert {kind.__name__ for kind in OURS} <= set(quelmdb.__all__)


@pytest.mark.parametrize(("depth", "name", "builtins"), TREE, ids=[name for _, name, _ in TREE])
def test_an_error_inherits_what_the_docstring_says(depth: str, name: str, builtins: str) -> None:
    kind = getattr(errors, name)
    assert issubclass(kind, QuelmdbError)
    assert issubclass(kind, _parent(depth, name))
    for builtin in filter(None, builtins.split(", ")):
        assert issubclass(kind, getattr(__import__("builtins"), builtin))


def _parent(depth: str, name: str) -> type:
    """The last error before it that stands further left."""
    parent: type = Exception
    for other_depth, other, _ in TREE:
        if other == name:
            break
        if len(other_depth) < len(depth):
            parent = getattr(errors, other)
    return parent


@pytest.mark.parametrize("kind", OURS, ids=lambda kind: kind.__name__)
def test_an_error_pickles_with_its_facts(kind: Any) -> None:
    facts = {"path": "/jobs.qdb", "job_id": 7, "expected": 1, "found": [2]}
    taken = inspect.signature(kind).parameters
    error = kind("a sentence", **{name: value for name, value in facts.items() if name in taken})
    error.add_note("a note")
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        copy = pickle.loads(pickle.dumps(error, protocol))
        assert type(copy) is kind
        assert str(copy) == str(error) == "a sentence"
        assert vars(copy) == vars(error)
        assert copy.path == "/jobs.qdb"
        assert getattr(copy, "errno", None) == getattr(error, "errno", None)


def test_every_error_has_its_facts_where_none_are_given() -> None:
    for kind in OURS:
        error = kind("a sentence")
        assert (error.path, error.job_id, error.expected, error.found) == (None,) * 4


# --- The mapping --------------------------------------------------------------


def test_the_table_has_every_exception_of_lmdb() -> None:
    assert len(THEIRS) > 20
    assert set(THEIRS) == ERRORS.keys()


@pytest.mark.parametrize("kind", THEIRS, ids=lambda kind: kind.__name__)
def test_an_exception_of_lmdb_becomes_ours_with_the_path_and_the_reason(kind: Any) -> None:
    error = mapped_error(kind("mdb_put: the reason"), Path("/jobs.qdb/data.mdb"))
    assert isinstance(error, StoreError)
    assert error.path == "/jobs.qdb/data.mdb"
    assert "the reason" in str(error)
    assert "/jobs.qdb/data.mdb: " in str(error)
    assert "mdb_put" not in str(error).split("(")[0]


def _lmdb_error(code: int) -> lmdb.Error:
    error: Any = lmdb.Error("mdb_put: the reason")
    error.code = code
    return error  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (errno.ENOSPC, quelmdb.StoreFullError),
        (errno.EDQUOT, quelmdb.StoreFullError),
        (errno.EFBIG, quelmdb.StoreFullError),
        (errno.EIO, DiskError),
        (errno.ENOENT, quelmdb.StoreNotFoundError),
        (errno.EROFS, quelmdb.ReadOnlyStoreError),
        (errno.EPERM, quelmdb.StorePermissionError),
        (errno.EMFILE, DiskError),
        (errno.ENFILE, DiskError),
        (errno.ESTALE, DiskError),
        (12345, DiskError),
    ],
)
def test_a_code_of_the_system_becomes_ours(
    code: int, expected: type[StoreError], tmp_path: Path
) -> None:
    assert type(mapped_error(_lmdb_error(code), tmp_path / "data.mdb")) is expected
    assert type(mapped_error(OSError(code, "reason"), tmp_path / "data.mdb")) is expected


def test_a_short_write_to_a_full_disk_is_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LMDB tells of an I/O error, as on a broken disk."""
    monkeypatch.setattr("os.statvfs", lambda path: SimpleNamespace(f_bavail=0, f_frsize=4096))
    error = mapped_error(_lmdb_error(errno.EIO), tmp_path / "data.mdb")
    assert type(error) is quelmdb.StoreFullError
    assert error.errno == errno.ENOSPC


def test_a_file_that_is_too_large_for_the_process_says_which_limit_is_to_be_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "data.mdb"
    path.touch()
    too_large = OSError(errno.EFBIG, "File too large")
    assert "(ulimit -f)" not in str(mapped_error(OSError(errno.ENOSPC, "reason"), path))
    for error in (mapped_error(_lmdb_error(errno.EFBIG), path), mapped(too_large, path)):
        assert type(error) is quelmdb.StoreFullError
        assert "(ulimit -f)" in str(error)
    monkeypatch.setattr("resource.getrlimit", lambda limit: (4096, 4096))
    assert "(ulimit -f)" in str(mapped_error(_lmdb_error(errno.EIO), path))


def test_who_may_not_open_a_store_is_told_that_readers_write_too() -> None:
    error = mapped_error(lmdb.ReadonlyError("mdb_env_open: denied"), Path("/jobs.qdb/data.mdb"))
    assert "must be allowed to write lock.mdb" in str(error)


def test_a_read_only_file_system_says_how_to_look_in_the_library_and_in_commands() -> None:
    error = mapped(OSError(errno.EROFS, "Read-only file system"), Path("/jobs.qdb"))
    assert type(error) is quelmdb.ReadOnlyStoreError
    assert "(readonly=True, or a command that changes nothing)" in str(error)


# --- No others ----------------------------------------------------------------


def test_the_library_hands_out_its_own_classes_alone() -> None:
    for name in quelmdb.__all__:
        value = getattr(quelmdb, name)
        assert not inspect.isclass(value) or value.__module__.startswith("quelmdb."), name


def test_every_module_can_be_imported_alone() -> None:
    for module in pkgutil.iter_modules(quelmdb.__path__, "quelmdb."):
        assert importlib.import_module(module.name).__doc__, module.name


@pytest.mark.parametrize("use", [*STORE_READS, *WRITES])
@pytest.mark.parametrize(
    "error",
    [
        lmdb.CorruptedError("mdb_get: the reason"),
        lmdb.MapFullError("mdb_put: the reason"),
        lmdb.Error("the reason"),
        OSError(errno.EIO, "the reason"),
        OSError(errno.ENOSPC, "the reason"),
        Damaged("the reason"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_happens_within_a_transaction_comes_out_as_ours(
    use: str, error: Exception, store: quelmdb.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.insert(Job("a"))
    begin = store._opened.environment._begin

    class Transaction:
        """One in which nothing works but its end."""

        def __init__(self, **options: Any) -> None:
            self._begun = begin(**options)

        def __getattr__(self, name: str) -> Any:
            if name in ("abort", "commit"):
                return getattr(self._begun, name)
            raise error

    monkeypatch.setattr(store._opened.environment, "_begin", Transaction)
    if use in ("initialize", "listen"):  # they do nothing within one
        {**STORE_READS, **WRITES}[use](store)
    else:
        with pytest.raises(StoreError, match="the reason") as caught:
            {**STORE_READS, **WRITES}[use](store)
        assert str(store.path) in (caught.value.path or "")
        assert caught.value.__cause__ is error
    monkeypatch.undo()
    assert len(store.all()) == 1


@pytest.mark.parametrize("kind", THEIRS, ids=lambda kind: kind.__name__)
def test_whatever_happens_at_a_beginning_comes_out_as_ours(
    kind: Any, store: quelmdb.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.insert(Job("a"))

    def begin(**options: Any) -> None:
        raise kind("mdb_txn_begin: the reason")

    monkeypatch.setattr(store._opened.environment, "_begin", begin)
    for name, use in {**STORE_READS, **WRITES}.items():
        if name not in ("initialize", "listen"):
            with pytest.raises(StoreError):
                use(store)
    monkeypatch.undo()
    assert len(store.all()) == 1


def test_an_error_of_a_transaction_leaves_the_store_usable(
    store: quelmdb.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transaction that had an error is aborted whole, and the next one begins afresh."""
    job = store.insert(Job("a"))

    def commit_fails(*arguments: Any) -> None:
        raise lmdb.DiskError("mdb_txn_commit: the reason")

    with monkeypatch.context() as patch:
        patch.setattr("quelmdb.counters.Counters.finish", commit_fails)
        for write in (lambda: store.insert(Job("a")), lambda: store.destroy(1), store.claim):
            with pytest.raises(StoreError):
                write()
    assert list(store.all()) == [job]
    (held,) = store.claim()
    assert (held.claim, held.attempt) == (1, 1)
    store.complete(held)


def test_values_that_are_no_cbor_raise_no_error_of_cbor2(store: quelmdb.Store) -> None:
    class Strange:
        def __reduce__(self) -> str:
            raise cbor2.CBORError("never seen")

    values: list[Any] = [Strange(), {1: 2}, "\ud800", object, {"a": Strange()}, [[]] * 2 + [set()]]
    for value in values:
        for job in (Job("a", value), Job("a", result=value)):
            with pytest.raises(quelmdb.EncodeError) as caught:
                store.insert(job)
            assert (caught.value.path or "").startswith("$")
    assert len(store.all()) == 0


def test_a_closed_store_says_so_whatever_lmdb_says(path: Path) -> None:
    store = quelmdb.open(path)
    store.close()
    assert type(store._opened.environment._error(lmdb.BadTxnError("?"))) is StoreClosedError


# --- No complaints ------------------------------------------------------------


def test_a_snapshot_whose_making_was_interrupted_goes_without_a_word(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    held = Held.__new__(Held)  # as far as it comes when an interrupt is first in `__init__`
    del held
    assert told == []
