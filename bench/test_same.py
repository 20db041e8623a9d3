"""The comparison is one of equals: all contestants hold the same jobs and answer alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from struct import Struct
from typing import Any

import lmdb
import pytest

from bench.contestant import Contestant
from bench.data import BUSY, COMPLETED, RARE, RARE_JOBS, STATUSES, Data
from bench.floor import Floor, Puts
from bench.harness import CONTESTANTS, filled
from bench.ours import Ours
from bench.workloads import WORKLOADS, Workload
from quelmdb import StaleClaim

SIZE = 1000


@pytest.fixture(scope="module")
def data() -> Data:
    return Data(SIZE)


@pytest.fixture(scope="module")
def stores(data: Data, directory: Path) -> Iterator[list[Contestant]]:
    with ExitStack() as stack:
        yield [stack.enter_context(filled(kind, data, directory)) for kind in CONTESTANTS]


def _answers(store: Contestant) -> dict[str, Any]:
    return {
        "find": [store.plain(store.find(job_id)) for job_id in range(1, SIZE + 1)],
        "iterate": store.iterate(),
        "iterate_arguments": store.iterate_arguments(),
        "rare": [store.plain(job) for job in store.jobs_of(RARE, RARE_JOBS)],
        "busy": [store.plain(job) for job in store.jobs_of(BUSY, 50)],
        "status": store.ids_of_status(COMPLETED),
        "incomplete": store.incomplete_ids(),
        "worker": store.ids_of_worker(BUSY),
        "failed": store.count_failed(),
        "counts": store.counts(),
    }


def _expected(data: Data) -> dict[str, Any]:
    jobs = [(job_id, *row) for job_id, row in enumerate(data.rows, 1)]
    return {
        "find": jobs,
        "iterate": SIZE,
        "iterate_arguments": SIZE,
        "rare": [job for job in jobs if job[1] == RARE],
        "busy": [job for job in jobs if job[1] == BUSY][:50],
        "status": data.ids_of((COMPLETED,)),
        "incomplete": data.ids_of((0, 1, 2)),
        "worker": [job[0] for job in jobs if job[1] == BUSY],
        "failed": len(data.ids_of((4,))),
        "counts": [len(data.ids_of((status,))) for status in range(len(STATUSES))],
    }


def test_all_contestants_give_the_answers_that_the_jobs_imply(
    stores: list[Contestant], data: Data
) -> None:
    for store in stores:
        assert _answers(store) == _expected(data), store.name


@pytest.mark.parametrize("workload", [w for w in WORKLOADS if not w.empty], ids=lambda w: w.key)
def test_a_round_does_the_same_number_of_units_and_leaves_the_jobs_as_they_were(
    workload: Workload, stores: list[Contestant], data: Data
) -> None:
    units = set()
    for store in stores:
        with workload.round(store, data) as timed:
            units.add(timed())
        assert _answers(store) == _expected(data), store.name
    assert len(units) == 1


def test_claims_are_first_in_first_out_and_end_as_completed(
    stores: list[Contestant], data: Data
) -> None:
    first = data.queued[:10]
    for store in stores:
        jobs = store.claim(10)
        assert [store.plain(job)[:3] for job in jobs] == [(i, *data.row(i)[:2]) for i in first]
        store.complete(jobs[0])
        store.complete_many(jobs[1:])
        assert [store.plain(store.find(i))[3] for i in first] == [COMPLETED] * 10
        with pytest.raises((ValueError, StaleClaim)):
            store.complete(jobs[0])
        store.update_many([(i, data.row(i)) for i in first])
        assert _answers(store) == _expected(data), store.name


def test_the_floor_keeps_the_bytes_that_quelmdb_keeps(data: Data, directory: Path) -> None:
    header = Struct("<BBBxIIIIqqQ")

    def content(kind: type[Contestant], files: Callable[[Path], Path]) -> dict[str, Any]:
        place = directory / f"bytes-{kind.name}"
        place.mkdir()
        with kind(place) as store:
            store.insert_many(store.ready(data.rows))
            store.insert(data.rows[0])
        environment = lmdb.open(str(files(place)), readonly=True, lock=False, max_dbs=16)
        with environment, environment.begin() as transaction:

            def pairs(name: bytes) -> list[tuple[bytes, bytes]]:
                database = environment.open_db(name, transaction, create=False)
                return list(transaction.cursor(database))

            jobs = pairs(b"jobs")
            workers = {
                number: data.rows[int.from_bytes(key, "little") - 1][0]
                for key, record in jobs[:SIZE]
                for number in [header.unpack_from(record)[4]]
            }
            return {
                "jobs": [(key, *_timeless(header, workers, record)) for key, record in jobs],
                "by_status": pairs(b"by_status"),
                "by_worker": sorted(
                    (workers[number], status, value)
                    for key, value in pairs(b"by_worker_status")
                    for number, status in [divmod(int.from_bytes(key, "little"), 256)]
                ),
            }

    ours = content(Ours, lambda place: place / "jobs.qdb" / "000001")
    assert ours == content(Floor, lambda place: place)
    assert ours == content(Puts, lambda place: place)


def _timeless(header: Struct, workers: dict[int, str], record: bytes) -> tuple[Any, ...]:
    """All of a record but the times, the number that its worker got, and the checksum."""
    fields = list(header.unpack_from(record))
    fields[4] = workers[fields[4]]
    return *fields[:7], *fields[9:], record[header.size : -4], len(record)
