"""Repair of damaged pages, whichever they are: it costs at most what is on them."""

from __future__ import annotations

import random
import sys
from collections import Counter
from itertools import product
from pathlib import Path

import pytest

import quelmdb
from quelmdb import Job, layout, recordlayout
from quelmdb.maintenance.remains import raw_nodes
from quelmdb.maintenance.salvage import Chunk, Salvage
from quelmdb.pages import BRANCH, Hole, Pages, Tree, as_bytes, as_number, kind_of
from quelmdb.records import references
from tests.damage import PAGE, damaged_copy, data_file, flip, used_bytes, wipe
from tests.repairing import jobs_of, repaired, root_of

pytest_plugins = ["tests.fixtures"]


def _pages_of(path: Path, name: bytes) -> list[int]:
    """The leaves of a database."""
    with Pages(data_file(path)) as pages:
        order = as_number if name == layout.JOBS else as_bytes
        leaves = list(pages.leaves(Salvage(pages)._trees[name], order))
    assert not any(isinstance(leaf, Hole) for leaf in leaves)
    return [leaf.page for leaf in leaves]


def _completed(path: Path) -> tuple[bytes, int]:
    """Makes a store of 300 jobs, which all are completed. Returns the file as it was before, and
    which page then was the second leaf of the jobs."""
    with quelmdb.open(path) as store:
        store.insert_many(Job("a", n) for n in range(300))
        assert store.check() == []
    older = data_file(path).read_bytes()
    leaf = _pages_of(path, layout.JOBS)[1]
    with quelmdb.open(path) as store:
        store.complete_many(store.claim(limit=300))
    return older, leaf


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a tree of jobs that has two levels, and many pages that are free."""
    path = tmp_path_factory.mktemp("repair") / "jobs.qdb"
    with quelmdb.open(path) as store:
        store.insert_many(Job(f"worker {n % 5}", {"n": n}) for n in range(1, 301))
        store.update_many(Job("a", b"big" * 2000, id=n) for n in range(100, 110))
        for job in store.claim(limit=150):
            store.complete(job, result=b"r" * (3000 if job.id == 7 else 3))
        store.insert_many(Job("priority", n, priority=n, unique_key=f"{n}") for n in range(1, 9))
        store.destroy_many(range(40, 60))
        assert store.check() == []
    return path


def test_a_wiped_page_costs_the_jobs_on_it_and_no_other(many: Path, tmp_path: Path) -> None:
    before = jobs_of(many)
    leaves = _pages_of(many, layout.JOBS)
    assert len(leaves) > 5
    done = repaired(damaged_copy(many, tmp_path / "copy", wipe(leaves[2])))
    lost = before.keys() - done.jobs.keys()
    assert 5 < len(lost) < 60
    assert done.jobs == {key: job for key, job in before.items() if key not in lost}
    assert done.told.loose == 0
    assert [item["page"] for item in done.aside if "page" in item] == [leaves[2]]


def test_without_the_root_of_the_jobs_each_is_found_by_its_checksum(
    many: Path, tmp_path: Path
) -> None:
    before = jobs_of(many)
    root = root_of(many, layout.JOBS)
    done = repaired(damaged_copy(many, tmp_path / "copy", wipe(root)))
    assert done.jobs == before
    assert done.told.loose == len(before)
    assert "nothing refers" in str(done.told.problems[-1])


def test_of_two_sound_records_of_a_job_the_newer_one_is_kept(tmp_path: Path) -> None:
    """A lost write has left a leaf with older ones where the root of the jobs should be."""
    path = tmp_path / "jobs.qdb"
    older, leaf = _completed(path)
    before = jobs_of(path)
    root = root_of(path, layout.JOBS)

    def lose_a_write(data: bytearray) -> None:
        number = root.to_bytes(8, sys.byteorder)
        data[root * PAGE : (root + 1) * PAGE] = number + older[leaf * PAGE + 8 : (leaf + 1) * PAGE]

    done = repaired(damaged_copy(path, tmp_path / "copy", lose_a_write))
    assert done.jobs == before


@pytest.mark.parametrize("name", [layout.JOBS, layout.PAYLOADS])
@pytest.mark.parametrize("what", ["heads", "pointers", "frames"])
def test_a_flip_in_the_frame_of_a_leaf_costs_nothing_that_is_on_it(
    what: str, name: bytes, many: Path, tmp_path: Path
) -> None:
    """Where its nodes are is told by their pointers, by its bounds and by their own frames.
    The lowest bit of a length is not told by anything else: it is left out here."""
    page = _pages_of(many, name)[1]
    places = _frames(data_file(many).read_bytes(), page)[what]
    whole = _whole_jobs(many)
    for place in places:
        first, step = (0, 1) if what == "heads" else (place % 5, 5)
        for bit in range(first, 8, step):
            if (what, (place - places[0]) % 8, bit) != ("frames", 0, 0):
                copy = damaged_copy(many, tmp_path / f"{place}.{bit}", flip(place, bit))
                assert _whole_jobs(copy) == whole, (place % PAGE, bit)


def test_a_flip_in_a_branch_page_costs_nothing_that_is_below_it(many: Path, tmp_path: Path) -> None:
    """Nor that of a key, which moves what is on one page beyond its bounds."""
    root = root_of(many, layout.JOBS)
    with Pages(data_file(many)) as pages:
        assert kind_of(pages.page(root) or b"") == BRANCH
    frames = _frames(data_file(many).read_bytes(), root)
    whole = _whole_jobs(many)
    keys = [place + 8 + byte for place in frames["frames"][::8] for byte in (0, 1, 7)]
    for place in (*frames["heads"], *frames["pointers"], *frames["frames"], *keys):
        for bit in range(place % 3, 8, 3):
            copy = damaged_copy(many, tmp_path / f"{place}.{bit}", flip(place, bit))
            assert _whole_jobs(copy) == whole, (place % PAGE, bit)


def test_a_bound_that_is_damaged_hides_no_node_of_a_page_that_was_filled_in_order(
    tmp_path: Path,
) -> None:
    """Whichever nodes of it are left out at its end, the others fill what is behind them."""
    with quelmdb.open(tmp_path / "jobs.qdb") as store:
        store.insert_many(Job("a", n) for n in range(300))
        assert store.check() == []
    number = _pages_of(tmp_path / "jobs.qdb", layout.JOBS)[1]
    with Pages(data_file(tmp_path / "jobs.qdb")) as pages:
        page = pages.page(number) or b""
        nodes = pages.nodes(page)
    for place, bit in product(range(12, 16), range(8)):
        damaged = bytearray(page)
        flip(place, bit)(damaged)
        assert set(nodes) <= set(raw_nodes(bytes(damaged), layout.NUMBER_BYTES)), (place, bit)


def test_a_pointer_into_another_node_is_not_believed(many: Path, tmp_path: Path) -> None:
    """What looks like a node there has the size of the one that it should point to."""
    root = root_of(many, layout.PAYLOADS)
    pointer = root * PAGE + 16
    copy = damaged_copy(many, tmp_path / "copy", flip(pointer, 4))
    whole, damaged = (data_file(path).read_bytes()[pointer : pointer + 2] for path in (many, copy))
    assert [int.from_bytes(at, sys.byteorder) for at in (whole, damaged)] == [4088, 4072]
    with Pages(data_file(copy)) as pages:
        (hole,) = pages.leaves(Tree(root, 0), as_bytes)
    assert hole == Hole(None, None, root, "its entries do not fill it")


def test_of_several_sound_records_of_a_job_the_newest_one_is_kept_wherever_it_stands(
    tmp_path: Path,
) -> None:
    """The tree leads to a page with older ones, out of its place, and to theirs no more."""
    path = tmp_path / "jobs.qdb"
    older, old = _completed(path)
    before = jobs_of(path)
    one, other, *_ = _pages_of(path, layout.JOBS)[1:]
    root = root_of(path, layout.JOBS)
    second = _frames(data_file(path).read_bytes(), root)["frames"][8]

    def lose_a_write(data: bytearray) -> None:
        assert data[second : second + 4] == one.to_bytes(4, sys.byteorder)
        data[second : second + 4] = root.to_bytes(4, sys.byteorder)
        data[other * PAGE + 8 : (other + 1) * PAGE] = older[old * PAGE + 8 : (old + 1) * PAGE]

    done = repaired(damaged_copy(path, tmp_path / "copy", lose_a_write))
    lost = before.keys() - done.jobs.keys()
    assert 5 < len(lost) <= 60
    assert done.jobs == {key: job for key, job in before.items() if key not in lost}


@pytest.mark.parametrize("name", [layout.JOBS, layout.PAYLOADS])
def test_what_a_transaction_has_written_that_was_not_ended_is_not_brought_back(
    name: bytes, tmp_path: Path
) -> None:
    """Its pages stand behind the last one in use, which only the meta page says."""
    path = tmp_path / "jobs.qdb"
    with quelmdb.open(path) as store:
        store.insert_many(Job("a", b"a" * 2_000) for n in range(30))
        store.insert_many(Job("a", n) for n in range(270))
        assert store.check() == []
    ended = data_file(path).read_bytes()
    with Pages(data_file(path)) as pages:
        last_page = pages.metas[0].last_page
    before = jobs_of(path)
    root = root_of(path, name)
    with quelmdb.open(path) as store:
        store.update_many(job.replace(arguments=b"b" * 2_000) for job in store.all())

    def take_back(data: bytearray) -> None:
        assert len(data) > (last_page + 50) * PAGE
        data[: 2 * PAGE] = ended[: 2 * PAGE]
        wipe(root)(data)

    assert repaired(damaged_copy(path, tmp_path / "copy", take_back)).jobs == before


@pytest.mark.parametrize("name", [layout.JOBS, layout.PAYLOADS])
def test_a_level_that_no_leaf_is_on_is_not_believed(
    name: bytes, many: Path, tmp_path: Path
) -> None:
    before = jobs_of(many)
    with Pages(data_file(many)) as pages:
        main = (pages.metas[0].main.root or 0) * PAGE
    data = data_file(many).read_bytes()
    node = len(name).to_bytes(2, sys.byteorder) + name  # its length, and the key itself
    level = data.index(node, main) + len(node) + 6
    done = repaired(damaged_copy(many, tmp_path / "copy", flip(level, 3)))
    assert done.jobs == before
    assert (done.told.loose, done.told.set_aside) == (0, 0)
    assert [problem.message for problem in done.told.problems][:1] == [
        f"{name.decode()} has no sound leaf on its level {data[level] ^ 8}"
    ]


@pytest.mark.parametrize("and_the_free_list", [False, True])
def test_a_page_on_another_level_hides_none_of_those_that_should_be_there(
    and_the_free_list: bool, tmp_path: Path
) -> None:
    """Beside another hole, where the number of all entries tells nothing."""
    path = tmp_path / "jobs.qdb"
    with quelmdb.open(path) as store:
        store.insert_many(Job("a", {"n": n}) for n in range(30_000))
        assert store.check() == []
    leaves = _pages_of(path, layout.JOBS)
    data = data_file(path).read_bytes()
    root = root_of(path, layout.JOBS)
    first = _frames(data, root)["frames"][0]
    branch = int.from_bytes(data[first : first + 6], sys.byteorder)
    assert kind_of(data[branch * PAGE :]) == BRANCH

    def damage(damaged: bytearray) -> None:
        damaged[first : first + 6] = leaves[0].to_bytes(6, sys.byteorder)
        wipe(leaves[-1], *[free] * and_the_free_list)(damaged)

    with Pages(data_file(path)) as pages:
        free = pages.metas[0].free.root or 0
        lost = len(pages.nodes(pages.page(leaves[-1]) or b""))
    done = repaired(damaged_copy(path, tmp_path / "copy", damage))
    assert len(done.jobs) == 30_000 - lost


def _frames(data: bytes, page: int) -> dict[str, list[int]]:
    """The places in a file of what a page has around its keys and values."""
    begin = page * PAGE
    lower = int.from_bytes(data[begin + 12 : begin + 14], sys.byteorder)
    pointers = range(begin + 16, begin + lower)
    nodes = [int.from_bytes(data[at : at + 2], sys.byteorder) for at in pointers[::2]]
    return {
        "heads": [*range(begin, begin + 16)],
        "pointers": [*pointers],
        "frames": [begin + node + byte for node in nodes for byte in range(8)],
    }


def _whole_jobs(path: Path) -> dict[int, list[bytes]]:
    """The record of every job, and what it has in chunks."""
    with Pages(data_file(path)) as pages:
        salvage = Salvage(pages)
        chunks = dict(salvage.chunks())
        return {
            job_id: [
                record,
                *(
                    salvage.part(job_id, part, reference, chunks.get(job_id, ()))
                    for part, reference in references(record).items()
                ),
            ]
            for key, record, _ in salvage.records()
            for job_id in [layout.unpack_number(key)]
        }


def test_chunks_of_an_old_page_are_not_in_the_way_of_those_of_a_job(many: Path) -> None:
    """Of a value that was longer before, a page that is found by its looks has chunks beyond."""
    reference = recordlayout.pack_reference(b"new" * 1000)
    new = dict(recordlayout.chunks(7, recordlayout.ARGUMENTS, b"new" * 1000))
    old = dict(recordlayout.chunks(7, recordlayout.ARGUMENTS, b"old" * 2000))
    assert old.keys() > new.keys()
    with Pages(data_file(many)) as pages:
        chunks = [Chunk(*item) for item in (*old.items(), *new.items())]
        found = Salvage(pages).part(7, recordlayout.ARGUMENTS, reference, chunks)
    assert found == b"new" * 1000


@pytest.mark.parametrize("bit", [0, 1, 29])
@pytest.mark.parametrize("number", range(4))
def test_a_chunk_is_found_although_its_number_is_damaged(number: int, bit: int, many: Path) -> None:
    """Without the tree, which would tell its place: its number is another's, or too large."""
    content = bytes(n // 700 for n in range(7000))
    chunks = [Chunk(*item) for item in recordlayout.chunks(7, recordlayout.ARGUMENTS, content)]
    assert len(chunks) == 4
    key = recordlayout.payload_key(7, recordlayout.ARGUMENTS, number ^ 1 << bit)
    chunks[number] = chunks[number]._replace(key=key)
    reference = recordlayout.pack_reference(content)
    with Pages(data_file(many)) as pages:
        found = Salvage(pages).part(7, recordlayout.ARGUMENTS, reference, chunks[::-1])
    assert found == content


@pytest.mark.parametrize("slot", [0, 1])
@pytest.mark.parametrize("name", [layout.JOBS, layout.PAYLOADS])
def test_a_page_that_stands_in_the_place_of_a_meta_page_is_read(
    name: bytes, slot: int, many: Path, tmp_path: Path
) -> None:
    before = jobs_of(many)
    page = _pages_of(many, name)[1]

    def swap(data: bytearray) -> None:
        meta, leaf = (data[at * PAGE : (at + 1) * PAGE] for at in (slot, page))
        data[slot * PAGE : (slot + 1) * PAGE] = leaf
        data[page * PAGE : (page + 1) * PAGE] = meta

    done = repaired(damaged_copy(many, tmp_path / "copy", swap))
    assert {key: done.jobs.get(key) for key in before} == before


def test_a_meta_page_in_the_place_of_another_page_does_not_tell_the_size_of_pages(
    many: Path, tmp_path: Path
) -> None:
    """Behind eight pages of 4 KiB it is where the second one of a file with 32 KiB would be."""

    def swap(data: bytearray) -> None:
        data[8 * PAGE : 9 * PAGE], data[PAGE : 2 * PAGE] = (
            data[PAGE : 2 * PAGE],
            data[8 * PAGE : 9 * PAGE],
        )

    with Pages(data_file(damaged_copy(many, tmp_path / "copy", swap))) as pages:
        assert pages.size == PAGE


@pytest.mark.parametrize("slots", [(0,), (1,), (0, 1)])
def test_without_meta_pages_jobs_and_names_are_found(
    slots: tuple[int, ...], many: Path, tmp_path: Path
) -> None:
    """Deleted ones may come back where nothing tells which pages are free."""
    before = jobs_of(many)
    done = repaired(damaged_copy(many, tmp_path / "copy", wipe(*slots)))
    found = {key: done.jobs[key] for key in before}
    assert found == before
    assert done.told.undone == (len(slots) == 2)
    if len(slots) == 1:
        assert done.jobs == before
        assert done.told.loose == 0
        assert "may be undone" in str(done.told.problems[0])
    assert done.told.invented == {}


def test_a_file_that_was_cut_off_gives_what_is_left(many: Path, tmp_path: Path) -> None:
    before = jobs_of(many)
    given = 0
    for size in range(0, used_bytes(many), 5 * PAGE + 1000):

        def cut(data: bytearray, size: int = size) -> None:
            del data[size:]

        copy = damaged_copy(many, tmp_path / f"copy{size}", cut)
        try:
            done = repaired(copy, f"repaired{size}")
        except quelmdb.CorruptStoreError:  # of what is shorter
            assert not given
            continue
        given += len(done.jobs)
        assert [job for key, job in done.jobs.items() if not _was(job, before.get(key))] == []
    assert given


def _was(job: Job, original: Job | None) -> bool:
    """Whether it is the job that it was, at some time."""
    if original is None:  # it was deleted
        return True
    if job.worker is not None and job.worker.startswith("unknown-worker-"):
        job = job.replace(worker=original.worker)
    if 100 <= (job.id or 0) < 110 and job.arguments == {"n": job.id}:
        return True  # before its update
    return (job.id, job.worker, job.arguments, job.created_at) == (
        original.id,
        original.worker,
        original.arguments,
        original.created_at,
    )


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("bits", [1, 20])
def test_flipped_bits_never_alter_a_job(
    bits: int, many: Path, tmp_path: Path, long: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """In this process: LMDB does not see the damage. With one flipped bit jobs are kept as
    they are or set aside; with more, older ones may come back, which is said."""
    before = jobs_of(many)
    rng = random.Random(bits)
    used = used_bytes(many)
    outcomes: Counter[str] = Counter()
    for number in range((2000 if long else 50) // (1 if bits == 1 else 2)):
        flips = [(rng.randrange(used), rng.randrange(8)) for _ in range(bits)]

        def flip(data: bytearray, flips: list[tuple[int, int]] = flips) -> None:
            for place, bit in flips:
                data[place] ^= 1 << bit

        (tmp_path / f"{number}").mkdir()
        copy = damaged_copy(many, tmp_path / f"{number}" / "copy", flip)
        done = repaired(copy)
        where = f"flips {flips}"
        invented = set(done.told.invented.values())
        assert bits > 1 or not invented, where
        altered = [
            key
            for key, job in done.jobs.items()
            if job != before.get(key)
            and not (key in before and job.worker in invented and _was(job, before[key]))
        ]
        if bits == 1 or not done.told.loose:
            assert altered == [], where
        assert [key for key in altered if not _was(done.jobs[key], before.get(key))] == [], where
        lost = before.keys() - done.jobs.keys()
        assert not lost or done.aside, where
        if bits == 1:
            assert len(lost) <= 1, where
        outcomes["jobs set aside" if lost else "loose" if done.told.loose else "all jobs"] += 1
    with capsys.disabled():
        print(f"\n{outcomes.total()} images of {bits} flips: {dict(outcomes.most_common())}")
