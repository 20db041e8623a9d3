"""The comparison is one of equals, and the whole of its command works."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from struct import Struct
from typing import Any

import lmdb
import pytest

from bench.compare import listings, queues
from bench.compare.__main__ import main
from bench.compare.figures import Figures
from bench.compare.harness import Place, side_by_side
from bench.compare.peer import Ability, Peer, Store
from bench.compare.peers import FAIRNESS, PEERS, floor, ours
from bench.compare.reach import reach
from bench.compare.render import report
from bench.compare.run import keys_of
from bench.compare.text import duration, per_second
from bench.compare.workload import TINY, Workload
from bench.data import BUSY, COMPLETED, INCOMPLETE, RARE, RARE_JOBS, STATUSES, Data, queued
from bench.readme import BEGIN, END, with_table
from quelmdb import StaleClaim

pytestmark = pytest.mark.timeout(300)  # the command runs once, for all tests that ask for it

SIZE = 1000
HERE = [peer for peer in PEERS.values() if not peer.missing()]
STORES = [peer for peer in HERE if issubclass(peer.kind, Store)]


# --- Equals -------------------------------------------------------------------


@pytest.fixture(scope="module")
def data() -> Data:
    return Data(SIZE)


@pytest.fixture(scope="module")
def stores(data: Data, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Place]]:
    with listings.filled(STORES, data, tmp_path_factory.mktemp("stores")) as places:
        yield places


def _answers(store: Any) -> dict[str, Any]:
    return {
        "find": [store.plain(store.find(job_id)) for job_id in range(1, SIZE + 1)],
        "all": [store.iterate(None, decoded) for decoded in (False, True)],
        "completed": [store.iterate(COMPLETED, decoded) for decoded in (False, True)],
        "rare": [store.plain(job) for job in store.of_worker(RARE, RARE_JOBS)],
        "busy": [store.plain(job) for job in store.of_worker(BUSY, 50)],
        "ids": store.ids_of_status(COMPLETED),
        "page": store.page_of_status(COMPLETED, 100, 10),
        "incomplete": store.incomplete_ids(),
        "worker": store.ids_of_worker(BUSY),
        "failed": store.count_failed(),
        "waiting": store.waiting(),
        "counts": store.counts(),
    }


def _expected(data: Data) -> dict[str, Any]:
    jobs = [(job_id, *row) for job_id, row in enumerate(data.rows(0, SIZE), 1)]
    ids = {status: data.ids_of((status,)) for status in range(len(STATUSES))}
    return {
        "find": jobs,
        "all": [SIZE, SIZE],
        "completed": [len(ids[COMPLETED])] * 2,
        "rare": [job for job in jobs if job[1] == RARE],
        "busy": [job for job in jobs if job[1] == BUSY][:50],
        "ids": ids[COMPLETED],
        "page": [job_id for job_id in ids[COMPLETED] if job_id > 100][:10],
        "incomplete": data.ids_of(INCOMPLETE),
        "worker": data.ids_of_worker(BUSY),
        "failed": len(ids[4]),
        "waiting": len(ids[1]),
        "counts": [len(found) for found in ids.values()],
    }


def test_all_stores_give_the_answers_that_the_jobs_imply(stores: list[Place], data: Data) -> None:
    for place in stores:
        assert _answers(place.queue) == _expected(data), place.peer.name


@pytest.mark.parametrize("workload", listings.WORKLOADS, ids=lambda workload: workload.key)
def test_a_round_of_reading_does_the_same_number_of_units(
    workload: Workload, stores: list[Place]
) -> None:
    units = {place.peer.name: workload.prepare(place.queue, TINY, 2)() for place in stores}
    assert len(set(units.values())) == 1, units


@pytest.mark.parametrize("peer", HERE, ids=lambda peer: peer.name)
def test_jobs_come_out_once_each_first_in_first_out(peer: Peer, tmp_path: Path) -> None:
    with side_by_side([peer], tmp_path, SIZE) as [place]:
        queue = place.queue
        for number in range(10):
            queue.insert(queued(number))
        queue.insert_many(queue.ready([queued(number) for number in range(10, 40)]))
        assert queue.waiting() == 40
        first = queue.claim(1)
        queue.complete(first[0])
        second = queue.claim(9)
        queue.complete_many(second)
        rest = queue.claim(100)
        assert [queue.number(job) for job in (*first, *second, *rest)] == list(range(40))
        assert queue.claim(1) == []
        assert queue.size().used > 0


@pytest.mark.parametrize("peer", HERE, ids=lambda peer: peer.name)
@pytest.mark.parametrize("workload", queues.WORKLOADS, ids=lambda workload: workload.key)
def test_a_round_of_writing_does_what_it_is_to_do(
    workload: Workload, peer: Peer, tmp_path: Path
) -> None:
    if not peer.has(*workload.needs):
        pytest.skip(f"{peer.name} cannot")
    scale = TINY._replace(depth=100, bulk=100)
    with side_by_side([peer], tmp_path, SIZE) as [place]:
        assert workload.prepare(place.queue, scale, workload.least)() in (100, workload.least)


@pytest.mark.parametrize("peer", STORES, ids=lambda peer: peer.name)
def test_a_job_is_not_completed_twice(peer: Peer, tmp_path: Path) -> None:
    with side_by_side([peer], tmp_path, SIZE) as [place]:
        place.queue.insert(queued(1))
        (job,) = place.queue.claim(1)
        place.queue.complete(job)
        with pytest.raises((ValueError, StaleClaim)):
            place.queue.complete(job)


def test_each_peer_says_what_it_does_and_what_it_does_not() -> None:
    assert [fairness.family for fairness in FAIRNESS] == [
        *dict.fromkeys(peer.family for peer in PEERS.values())
    ]
    assert all(peer.setting for peer in PEERS.values())
    assert all(fairness.more and fairness.less for fairness in FAIRNESS[1:])


@pytest.mark.parametrize(
    ("mine", "other"), [(ours.FULL, floor.FULL), (ours.EPHEMERAL, floor.EPHEMERAL)]
)
def test_the_floor_keeps_the_bytes_that_quelmdb_keeps(
    mine: str, other: str, data: Data, tmp_path: Path
) -> None:
    assert _content(PEERS[mine], data, tmp_path) == _content(PEERS[other], data, tmp_path)


_HEADER = Struct("<BBBxIIIIqqQ")


def _content(peer: Peer, data: Data, directory: Path) -> dict[str, Any]:
    rows = data.rows(0, SIZE)
    with side_by_side([peer], directory, SIZE) as [place]:
        place.queue.insert_many(place.queue.ready(rows))
        place.queue.insert(rows[0])
        copy = directory / f"{peer.name}.mdb"
        (found,) = place.path.rglob("data.mdb")
        shutil.copyfile(found, copy)
    environment = lmdb.open(str(copy), readonly=True, lock=False, subdir=False, max_dbs=16)
    with environment, environment.begin() as transaction:

        def pairs(name: bytes) -> list[tuple[bytes, bytes]]:
            database = environment.open_db(name, transaction, create=False)
            return list(transaction.cursor(database))

        jobs = pairs(b"jobs")
        workers = {
            _HEADER.unpack_from(record)[4]: rows[int.from_bytes(key, "little") - 1][0]
            for key, record in jobs[:SIZE]
        }
        return {
            "jobs": [(key, *_timeless(workers, record)) for key, record in jobs],
            "by_status": pairs(b"by_status"),
            "by_worker": sorted(
                (workers[number], status, value)
                for key, value in pairs(b"by_worker_status")
                for number, status in [divmod(int.from_bytes(key, "little"), 256)]
            ),
        }


def _timeless(workers: dict[int, str], record: bytes) -> tuple[Any, ...]:
    """All of a record but the times, the number that its worker got, and the checksum."""
    fields = list(_HEADER.unpack_from(record))
    fields[4] = workers[fields[4]]
    return *fields[:7], *fields[9:], record[_HEADER.size : -4], len(record)


# --- The command --------------------------------------------------------------


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> Figures:
    """Of the whole command, with every peer that this machine has."""
    output = tmp_path_factory.mktemp("report")
    directory = tmp_path_factory.mktemp("stores")
    main(["--tiny", "--output", str(output), "--directory", str(directory)])
    assert not any(directory.iterdir())
    figures = Figures.read(output / "report.json")
    names = ["throughput", "threads", "size", "latency"]
    assert (output / "REPORT.md").read_text() == report(figures, names)
    for name in names:
        assert (output / "charts" / f"{name}.svg").read_text().startswith("<?xml")
        assert (output / "charts" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    return figures


def test_every_workload_is_measured_on_every_peer_that_can_do_it(figures: Figures) -> None:
    assert figures.peers == [peer.name for peer in HERE]
    assert set(figures.missing) == set(PEERS) - set(figures.peers)
    measured = {result.workload for result in figures.results}
    assert measured | {"latency", "sizes", "memory"} == set(keys_of(TINY))
    assert set(figures.timings("insert_each")) == set(figures.peers)
    able = {peer.name for peer in HERE if peer.has(Ability.PROCESSES)}
    assert set(figures.latency) == able
    for result in figures.results:
        assert all(t.best <= t.median <= t.worst for t in result.timings.values())


def test_the_reach_is_judged(figures: Figures) -> None:
    workloads = {line.workload for line in reach(figures)}
    assert {"insert one by one, ephemeral", "ids", "memory while listing"} <= workloads


def test_the_readme_takes_the_table_between_the_markers_again_and_again(figures: Figures) -> None:
    text = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    once = with_table(text, figures)
    assert once.startswith(f"before\n{BEGIN}\n|")
    assert once.endswith(f"\n{END}\nafter\n")
    assert with_table(once, figures) == once


@pytest.mark.parametrize("text", ["none", f"{END} {BEGIN}", f"{BEGIN}{END}{BEGIN}{END}"])
def test_a_readme_without_the_markers_is_refused(figures: Figures, text: str) -> None:
    with pytest.raises(ValueError, match="once each"):
        with_table(text, figures)


@pytest.mark.parametrize(
    ("seconds", "time", "rate"),
    [
        (0.0000000583, "58.3 ns", "17.2 M/s"),
        (0.00000424, "4.24 µs", "236 k/s"),
        (0.000999996, "1000 µs", "1.00 k/s"),
        (0.0031, "3.10 ms", "323 /s"),
        (2.0, "2.00 s", "0.50 /s"),
    ],
)
def test_figures_have_three_digits_and_the_unit_that_fits(
    seconds: float, time: str, rate: str
) -> None:
    assert duration(seconds) == time
    assert per_second(seconds) == rate
