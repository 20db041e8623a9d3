"""Damaged data files: an error, a right answer, or an omission that `check` finds; never
another job or an altered one, and no crash of the interpreter where it can be helped."""

from __future__ import annotations

import faulthandler
import random
import signal
from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

import lmdb
import pytest

import quelmdb
from quelmdb import CorruptStoreError, Job, QuelmdbError, Status, StoreNotFoundError
from tests.children import ChildDiedError, in_child
from tests.damage import damaged_copy, data_file, used_bytes

pytest_plugins = ["tests.fixtures"]

T = TypeVar("T")

_PAGE: Final = 4096


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with jobs of every kind, closed."""
    path = tmp_path_factory.mktemp("damage") / "jobs.qdb"
    with quelmdb.open(path) as store:
        store.insert_many(Job(f"worker {n % 5}", {"n": n}) for n in range(100))
        for job in store.claim(limit=60):
            match (job.id or 0) % 4:
                case 0:
                    store.complete(job, result=b"r" * 3000)
                case 1:
                    store.fail(job, "why " * 200)
                case 2:
                    store.complete(job)
        store.insert_many(Job("big", bytes(range(256)) * 30) for _ in range(5))
        store.destroy_many(range(20, 30))
        # A flip in the newer of both meta pages may undo the last commit, which LMDB
        # cannot tell from an older state: the last two are to change no job.
        for _ in range(2):
            store.destroy(store.insert(Job("a")))
        assert store.check() == []
    return path


# --- Files that are none ------------------------------------------------------


def _empty(data: bytearray) -> None:
    data.clear()


def _zeros(data: bytearray) -> None:
    data[:] = bytes(len(data))


def _noise(data: bytearray) -> None:
    data[:] = random.Random(1).randbytes(len(data))


def _text(data: bytearray) -> None:
    data[:] = b"SQLite format 3\0" * 1000


def _no_metas(data: bytearray) -> None:
    data[: 2 * _PAGE] = bytes(2 * _PAGE)


@pytest.mark.parametrize("readonly", [False, True])
@pytest.mark.parametrize("damage", [_empty, _zeros, _noise, _text, _no_metas])
def test_a_file_that_is_no_data_file_is_an_error(
    damage: Callable[[bytearray], None], readonly: bool, closed: Path, tmp_path: Path
) -> None:
    copy = damaged_copy(closed, tmp_path / "copy", damage)
    (copy / "owners.lock").touch()
    before = data_file(copy).read_bytes()
    with pytest.raises(CorruptStoreError) as caught:
        in_child(lambda: quelmdb.open(copy, readonly=readonly))
    assert str(copy) in (caught.value.path or "")
    assert data_file(copy).read_bytes() == before


def test_an_environment_of_others_is_no_store(tmp_path: Path) -> None:
    """With a database called meta, too."""
    for names in ([], [b"jobs"], [b"meta"]):
        path = tmp_path / f"{len(names)}{names}"
        (path / "000001").mkdir(parents=True)
        with lmdb.open(str(path / "000001"), max_dbs=9, lib_version=0) as environment:
            for name in names:
                environment.open_db(name)
        with pytest.raises(CorruptStoreError):
            quelmdb.open(path)


def test_a_store_without_its_data_file_is_never_made_anew(path: Path) -> None:
    quelmdb.open(path).close()
    content = data_file(path).read_bytes()
    data_file(path).unlink()
    for _ in range(2):
        with pytest.raises((quelmdb.NotAStoreError, StoreNotFoundError)):
            quelmdb.open(path)
    assert not data_file(path).exists()
    data_file(path).write_bytes(content)


# --- Truncation ---------------------------------------------------------------


def test_a_truncated_file_is_an_error_at_every_size(
    closed: Path, tmp_path: Path, long: bool
) -> None:
    whole = used_bytes(closed)
    sizes = {0, 1, 100, 152, *range(_PAGE, whole, _PAGE if long else 7 * _PAGE)}
    sizes |= {size + by for size in sizes for by in (-1, 1) if size} | {whole - 1}

    def open_and_read(size: int, readonly: bool) -> None:
        copy = damaged_copy(
            closed, tmp_path / "copy", lambda data: data.__delitem__(slice(size, None))
        )
        with quelmdb.open(copy, readonly=readonly) as store:
            list(store.all())

    for size in sorted(sizes):
        for readonly in (False, True):
            with pytest.raises(CorruptStoreError):
                in_child(open_and_read, size, readonly)
    in_child(open_and_read, whole, False)


# --- Bit flips ----------------------------------------------------------------


class _Answers(NamedTuple):
    """What a damaged store tells. Errors are left out: they are right answers."""

    found: dict[int, Job | None]
    listed: dict[Status | None, list[Job]]
    ids: list[int] | None
    counts: dict[Status, int] | None
    problems: bool
    claimed: list[Job]
    found_after_writes: dict[int, Job | None]


_IDS: Final = range(1, 112)
_LISTINGS: Final = (None, *Status)


def _ask(path: Path) -> _Answers | str:
    """Asks everything, and writes; returns the error where nothing can be asked."""
    faulthandler.disable()  # crashes are counted
    signal.alarm(20)  # a page that is its own neighbour might keep LMDB going for ever
    try:
        with quelmdb.open(path) as store:
            return _Answers(
                found=_find_all(store),
                listed={status: _list(store, status) for status in _LISTINGS},
                ids=_unless_error(lambda: list(store.all().ids())),
                counts=_unless_error(store.counts),
                problems=_unless_error(store.check) != [],
                claimed=_write(store),
                found_after_writes=_find_all(store),
            )
    except QuelmdbError as error:
        return type(error).__name__


def _find_all(store: quelmdb.Store) -> dict[int, Job | None]:
    def find(job_id: int) -> dict[int, Job | None]:
        job = store.find(job_id)
        if job is not None:
            job.as_dict()  # what is damaged in it is decoded here
        return {job_id: job}

    found: dict[int, Job | None] = {}
    for job_id in _IDS:
        found |= _unless_error(partial(find, job_id)) or {}
    return found


def _list(store: quelmdb.Store, status: Status | None) -> list[Job]:
    view = store.all() if status is None else store.jobs(status)
    listed = _unless_error(lambda: list(view)) or []
    return [job for job in listed if _unless_error(job.as_dict)]


def _write(store: quelmdb.Store) -> list[Job]:
    """Verbs of every kind; returns what was claimed and can be decoded."""
    _unless_error(lambda: store.insert_many([Job("new"), Job("worker 1")]))
    claimed = _unless_error(lambda: store.claim(limit=9)) or []
    _unless_error(lambda: store.destroy(5))
    for job in claimed:
        _unless_error(partial(store.complete, job))
    return [job for job in claimed if _unless_error(job.as_dict)]


def _unless_error(question: Callable[[], T]) -> T | None:
    try:
        return question()
    except QuelmdbError:
        return None


def _identity(job: Job) -> object:
    """What no verb but update changes."""
    return job.id, job.worker, job.arguments, job.created_at


def test_a_flipped_bit_never_makes_another_job_or_alters_one(
    closed: Path, tmp_path: Path, long: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    right = in_child(_ask, damaged_copy(closed, tmp_path / "copy", lambda data: None))
    assert isinstance(right, _Answers)
    jobs = {job.id: job for job in right.found.values() if job}
    identities = set(map(str, map(_identity, jobs.values())))
    rng = random.Random()
    outcomes: Counter[str] = Counter()
    for _ in range(5000 if long else 200):
        place = rng.randrange(used_bytes(closed))
        bit = rng.randrange(8)

        def flip(data: bytearray, place: int = place, bit: int = bit) -> None:
            data[place] ^= 1 << bit

        try:
            answers = in_child(_ask, damaged_copy(closed, tmp_path / "copy", flip))
        except ChildDiedError as died:
            outcomes[f"killed by {signal.Signals(-(died.exit_code or 0)).name}"] += 1
            continue
        if isinstance(answers, str):
            outcomes[answers] += 1
            continue
        where = f"bit {bit} of byte {place}"
        told = [*answers.found.values(), *chain.from_iterable(answers.listed.values())]
        assert [job for job in told if job and job != jobs.get(job.id)] == [], where
        if answers[:4] == right[:4]:
            outcomes["a right answer"] += 1
        else:
            assert answers.problems, f"{where} is not found"
            outcomes["an omission that check finds"] += 1
        after = [*answers.claimed, *answers.found_after_writes.values()]
        made = [job for job in after if job and str(_identity(job)) not in identities]
        assert {job.worker for job in made} <= {"new", "worker 1"}, where
    with capsys.disabled():
        print(f"\n{outcomes.total()} bit flips: {dict(outcomes.most_common())}")
