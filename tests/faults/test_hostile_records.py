"""Records, indexes and dumps that are hostile, within sound pages and under right checksums: an
error of the library, or a job; and the jobs beside them are what they were."""

from __future__ import annotations

import io
import logging
import random
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

import quelmdb
from quelmdb import InvalidJobError, Job, MemoryStore, QuelmdbError, Status, layout, recordlayout
from quelmdb.codec import SEQUENCE_START
from quelmdb.layout import pack_number
from quelmdb.maintenance import markedjson
from quelmdb.maintenance.dump import dump_cbor, dump_jsonl, load
from quelmdb.maintenance.offline import repair_store
from tests.damage import Raw, raw
from tests.faults.figures import Tell
from tests.faults.hostile import ENCODED, VALUES, encode, mutated
from tests.faults.seeds import seeded
from tests.faults.specimens import fields_of

pytest_plugins = ["tests.fixtures"]

_SOUND: Final = range(1, 31)
_HOSTILE: Final = range(31, 61)
_EDGES: Final = (0, 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Nobody is told of jobs that are passed over."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty jobs of every kind, of which the first thirty are not touched."""
    path = tmp_path_factory.mktemp("hostile") / "jobs.qdb"
    with quelmdb.open(path) as store:
        for _ in (_SOUND, _HOSTILE):
            store.insert_many(Job("ab"[n % 2], {"n": n}, priority=n % 3) for n in range(10))
            store.insert_many(Job("later", n, run_at=_due(n), status="scheduled") for n in range(5))
            store.insert_many(Job("big", b"b" * 3000 * n) for n in range(5))
            store.insert_many(Job("many", n, max_attempts=2) for n in range(10))
        for job in store.claim("many", "a", limit=30):
            match (job.id or 0) % 4:
                case 0:
                    store.complete(job, b"r" * 200 * (job.id or 0))
                case 1:
                    store.fail(job, "why " * 100)
                case 2:
                    store.progress(job, 1, 2, "half")
        store.pause("b")
        assert store.check() == []
        assert list(store.all().ids()) == [*_SOUND, *_HOSTILE]
    return path


def _due(number: int) -> datetime:
    return datetime(2060, 1, 1, tzinfo=UTC) + timedelta(days=number)


# --- Hostility ----------------------------------------------------------------


def _hostile_record(rng: random.Random, content: Raw, job_id: int) -> None:
    """Any header and body, mostly with what could be true in them, under a right checksum."""
    key, record = pack_number(job_id), content.record(job_id)
    header = list(recordlayout.unpack_record(key, record))
    arguments, extras = recordlayout.split_body(record)
    if rng.randrange(2):
        arguments = mutated(rng, rng.choice((arguments, *ENCODED)))
    if rng.randrange(2):
        extras = _hostile_extras(rng)
    header[6] = len(arguments)
    for field in rng.sample(range(10), rng.choice((0, 1, 1, 2))):
        bits = (8, 8, 8, 32, 32, 32, 32, 63, 63, 64)[field]
        header[field] = rng.choice((rng.getrandbits(bits), *_EDGES, rng.randrange(70))) % 2**bits
    version, status, flags, *others = header
    packed = version, status % 7, flags % (128 if rng.randrange(9) else 64), *others
    content.put_record(job_id, recordlayout.pack_record(key, packed, arguments + extras))  # type: ignore[arg-type]


def _hostile_extras(rng: random.Random) -> bytes:
    parts: dict[str, Any] = {
        "r": encode({"sent": True}),
        "e": encode("why"),
        "f": encode([[1, 1_700_000_000_000_000, rng.choice(_EDGES), "why", False]]),
        "o": encode([rng.choice(_EDGES), 5, f"key {rng.randrange(3)}", 3, [1, 2, "half"]]),
        "c": encode([rng.randrange(60), rng.choice(_EDGES)]),
        "?": b"",
    }
    chosen = rng.sample(list(parts), rng.randrange(1, 4))
    some = {name: mutated(rng, parts[name]) if rng.randrange(2) else parts[name] for name in chosen}
    data = encode(some)
    return mutated(rng, data) if rng.randrange(4) == 0 else data


def _hostile_entries(rng: random.Random, content: Raw) -> None:
    """Entries that are none in each of the other databases."""
    databases = content.databases
    put = content.transaction.put
    number = partial(_number, rng)
    options = rng.choice((b"D", b"P", b"W", b"U", b"Z", b"?")) + rng.randbytes(rng.randrange(30))
    for _ in range(rng.randrange(1, 9)):
        match rng.randrange(8):
            case 0:
                put(pack_number(rng.randrange(7)), number(), db=databases.by_status)
            case 1:
                put(number(), number(), db=databases.by_worker_status)
            case 2:
                put(options, rng.choice((b"", number(), b"x")), db=databases.by_option)
            case 3:
                put(number(), rng.randbytes(rng.randrange(30)), db=databases.owners)
            case 4:
                name = rng.choice((b"a", b"c", b"\xff", rng.randbytes(9)))
                put(name, rng.choice((number(), b"", b"abc")), db=databases.workers)
            case 5:
                put(number(), rng.choice((b"a", b"c", b"\xff", b"")), db=databases.worker_names)
            case 6:
                key = recordlayout.payload_key(
                    rng.choice(_HOSTILE), rng.randrange(5), rng.randrange(3)
                )
                put(rng.choice((key, key[:-1], b"k")), rng.randbytes(9), db=databases.payloads)
            case _:
                counters = layout.NEXT_ID, layout.NEXT_CLAIM, layout.NEXT_OWNER, layout.NEXT_WORKER
                name = rng.choice((*counters, layout.UUID_KEY, layout.SEAL_KEY, b"?"))
                put(name, rng.choice((number(), b"", b"abc")), db=databases.meta)


def _number(rng: random.Random) -> bytes:
    return pack_number(rng.choice((*_EDGES, rng.choice(_HOSTILE), rng.getrandbits(64))))


# --- What everybody does with a store -------------------------------------------


def _uses(store: quelmdb.Store) -> Iterator[Callable[[], object]]:
    """Verbs of every kind, that look and that change."""
    for job_id in _HOSTILE:
        yield partial(_repr_of, store, job_id)
    for listing in (store.all(), store.all(reverse=True), *map(store.jobs, Status)):
        yield partial(_look_at, listing)
        yield partial(len, listing)
    yield lambda: list(store.all("a").ids())
    yield lambda: [store.counts(), store.counts("a"), store.next_due()]
    yield store.workers
    yield store.paused
    yield store.info
    yield store.check
    yield lambda: dump_cbor(store, io.BytesIO())
    yield lambda: dump_jsonl(store, io.BytesIO())
    yield lambda: _end(store, store.claim(limit=12))
    yield lambda: _end(store, store.claim("a", "many", limit=3))
    yield store.rescue
    yield lambda: store.wait("c", timeout=0)
    yield lambda: store.insert(Job("a", unique_key="key 1"), on_duplicate="skip")
    for job_id in _HOSTILE[:20]:
        for verb in (store.retry, store.cancel):
            yield partial(verb, job_id)
        for end in (store.cancel_requested, store.progress, store.fail, store.release):
            yield partial(_held, store, job_id, end)
    yield lambda: store.update_many(Job("a", id=job_id) for job_id in _HOSTILE[20:22])
    yield lambda: store.update(Job("a", b"u" * 3000, id=_HOSTILE[22]))
    yield lambda: store.destroy(_HOSTILE[23])
    yield lambda: store.prune(older_than=timedelta(0))


def _repr_of(store: quelmdb.Store, job_id: int) -> str:
    return repr(store.find(job_id))


def _look_at(jobs: Iterable[Job]) -> None:
    for job in jobs:
        repr(job)
        with suppress(QuelmdbError):
            job.as_dict()


def _end(store: quelmdb.Store, jobs: Iterable[Job]) -> None:
    for job in jobs:
        with suppress(QuelmdbError):
            match (job.id or 0) % 3:
                case 0:
                    store.complete(job, "done")
                case 1:
                    store.fail(job, "why", retry_at=_due(1))
                case _:
                    store.release(store.progress(job, 1))


def _held(store: quelmdb.Store, job_id: int, end: Callable[..., object]) -> object:
    """As who has claimed it, which this process did not."""
    job = store.find(job_id)
    if job is None:
        return None
    more = {store.progress: (1, 2), store.fail: ("why", _due(2))}.get(end, ())
    return end(job, *more)


def _sound_jobs(store: quelmdb.Store) -> dict[int, Any]:
    return {job_id: fields_of(job) for job_id in _SOUND if (job := store.find(job_id))}


def _exercised(path: Path) -> int:
    """Uses a store in every way, then repairs it; returns how often it refused."""
    refused = 0
    try:
        with quelmdb.open(path) as store:
            for use in _uses(store):
                try:
                    use()
                except QuelmdbError:
                    refused += 1
    except QuelmdbError:
        refused += 1
    try:
        repair_store(path)
    except QuelmdbError:
        return refused + 1
    with quelmdb.open(path) as store:
        assert store.check() == []
    return refused


@pytest.mark.parametrize("entries", [False, True], ids=["records", "records and entries"])
def test_hostile_records_raise_nothing_but_the_librarys_errors(
    entries: bool, template: Path, tmp_path: Path, long: bool, figure: Tell
) -> None:
    """And jobs beside hostile records are what they were before anybody writes."""
    rng = seeded()
    with quelmdb.open(template) as store:
        sound = _sound_jobs(store)
    rounds, refused = 600 if long else 6, 0
    for round_ in range(rounds):
        path = shutil.copytree(template, tmp_path / f"{round_}")
        with raw(path) as content:
            for job_id in _HOSTILE:
                _hostile_record(rng, content, job_id)
            if entries:
                _hostile_entries(rng, content)
        if not entries:
            with quelmdb.open(path) as store:
                assert _sound_jobs(store) == sound, round_
        try:
            refused += _exercised(path)
        except BaseException as error:
            error.add_note(f"round {round_}")
            raise
        shutil.rmtree(path)
    figure(
        f"{rounds:,} stores with {rounds * len(_HOSTILE):,} hostile records: {refused:,} errors of "
        "the library, 0 others, and all were repaired or refused"
    )


def test_ids_beyond_all_ids_end_a_listing(template: Path, tmp_path: Path) -> None:
    path = shutil.copytree(template, tmp_path / "copy")
    for job_id in (2**63 - 1, 2**63, 2**64 - 1):
        with raw(path) as content:
            content.put_record(job_id, b"no record")
            content.transaction.put(
                layout.STATUS_KEYS[1], pack_number(job_id), db=content.databases.by_status
            )
        with quelmdb.open(path) as store:
            for count in (59, 60, 61, 62, 63, 64):
                ids = [job.id for job in store.all(limit=count)]
                assert ids == [*_SOUND, *_HOSTILE][:count]
                assert len(list(store.jobs("queued", limit=count))) > 10
                assert len(list(store.jobs("queued", limit=count).ids())) > 10


# --- Dumps --------------------------------------------------------------------

_LONGEST_MESSAGE: Final = 2_000
_HUGE: Final = 10**5000  # Python refuses to tell it in digits
_FIELDS: Final[dict[str, tuple[Any, ...]]] = {
    "id": (None, 0, -1, _HUGE, "1", 1.0, 2**62, 2**63, True),
    "worker": ("a", None, "", "x" * 501, b"a", 1, ["a"], "\x00"),
    "status": ("queued", "started", "no", "", None, 1, ["queued"], {"queued": 1}, _HUGE),
    "created_at": (datetime(2024, 1, 1, tzinfo=UTC), "2024-01-01", "no", 5, _HUGE, [], None),
    "attempt": (0, 2**32, -1, _HUGE, "1", None, 0.5),
    "claim": (0, 2**62, 2**63 - 1, 2**63, 2**64 - 1, _HUGE, [], None),
    "owner": (0, 2**32, _HUGE, {}),
    "result": VALUES,
    "arguments": (*VALUES, _HUGE, [[[_HUGE]]]),
    "error": ("why", 5, b"why", "e" * 100_000, _HUGE),
    "run_at": ("2024-01-01T00:00:00+00:00", _HUGE, 5, {}, "9999-12-31T23:59:59-23:59"),
    "priority": (1, -1, _HUGE, 2**31, "1", 1.5, None),
    "unique_key": ("k", "", "k" * 201, 5, _HUGE, [1]),
    "max_attempts": (1, 0, _HUGE, "1"),
    "progress": ([1], [1, 2, "x"], {}, {"a": 1}, [_HUGE], "ab", 5, [1, 2, 3, 4]),
    "failures": ([], [1], {"a": 1}, _HUGE, [_HUGE], [[1, 2, 3, 4, 5]], "x", [[_HUGE] * 5]),
}


@pytest.mark.parametrize("name", _FIELDS)
def test_a_field_is_one_that_a_job_can_have_or_an_error_that_says_so(name: str) -> None:
    for value in _FIELDS[name]:
        with suppress(InvalidJobError):
            repr(Job(**{name: value}))


def _hostile_job(rng: random.Random, job_id: int) -> dict[str, Any]:
    fields: dict[str, Any] = {"id": job_id, "status": "queued"}
    for name in rng.sample(list(_FIELDS), rng.randrange(5)):
        first, *others = _FIELDS[name]
        fields[name] = rng.choice(others) if rng.randrange(8) == 0 else first
    if rng.randrange(50) == 0:
        fields["no field"] = 1
    fields["id"] = fields["id"] or job_id
    return fields


def _hostile_dump(rng: random.Random) -> bytes:
    """A sequence or lines, of jobs of which some are hostile, and now and then mutated."""
    items: list[dict[str, Any]] = [{"quelmdb": "dump", "version": 1}]
    items += [_hostile_job(rng, n) for n in range(1, rng.randrange(2, 9))]
    items.append({"quelmdb": "end", "jobs": len(items) - 1})
    if rng.randrange(9) == 0:
        items[-1]["jobs"] = rng.choice((7, 2**64, _HUGE, "x", None, []))
    if rng.randrange(9) == 0:
        items[0]["version"] = rng.choice((2, 2**64, _HUGE, "1", [], None))
    if rng.randrange(2):
        data = SEQUENCE_START + b"".join(map(encode, items))
    else:
        data = "".join(markedjson.dumps(item) + "\n" for item in items).encode()
    return mutated(rng, data) if rng.randrange(3) == 0 else data


def test_hostile_dumps_raise_nothing_but_the_librarys_errors(
    tmp_path: Path, long: bool, figure: Tell
) -> None:
    rng = seeded()
    dumps, loaded = 100_000 if long else 1_500, 0
    longest = 0  # of the messages, in characters
    with quelmdb.open(tmp_path / "jobs.qdb") as disk:
        for count in range(dumps):
            data = _hostile_dump(rng)
            store: Any = disk if count % 50 == 0 else MemoryStore()
            try:
                load(store, io.BytesIO(data), on_conflict=rng.choice(("error", "skip", "replace")))
                loaded += 1
            except QuelmdbError as error:
                longest = max(longest, len(str(error)))
            except BaseException as error:
                error.add_note(f"{data[:500]!r}")
                raise
        assert disk.check() == []
    assert loaded
    assert longest < _LONGEST_MESSAGE
    figure(f"{dumps:,} dumps: {loaded:,} loaded, all others errors of the library")
