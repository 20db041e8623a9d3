"""What can be read of a damaged data file, whatever has become of its pages.

Each database is walked from its root, as LMDB would, and every page looked at before it is
believed. Where one of `jobs` or `payloads` is damaged, what it held is looked for among the
pages that no tree has: records tell by their checksums whose they are. Pages that are free
hold what is older or deleted, and are left out where the list of them is sound. The number of
entries tells whether more is missing than what the damaged pages held.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import lru_cache
from itertools import groupby, islice, product
from typing import Final, NamedTuple

from quelmdb import layout, recordlayout
from quelmdb.maintenance.databases import BY_LOOKS, find_databases, problem_of
from quelmdb.maintenance.remains import Within, fitting_nodes, raw_nodes
from quelmdb.maintenance.states import is_of_index, order_of
from quelmdb.pages import EMPTY, Hole, Leaf, Node, Pages, as_number
from quelmdb.persistence import Problem
from quelmdb.values import MAX_WORKER_BYTES

_WHOLE_TREE: Final = Hole(None, None, 0, "it may lack any key")
_MOST_TRIES: Final = 256  # ways to put a part together of chunks that are there twice
_DATABASES: Final = frozenset(
    (
        *(*BY_LOOKS, layout.BY_STATUS, layout.BY_WORKER_STATUS, layout.BY_OPTION),
        *(layout.META, layout.WORKERS, layout.WORKER_NAMES, layout.OWNERS),
    )
)


class Record(NamedTuple):
    """A record, sound or not."""

    key: bytes
    record: bytes
    loose: bool
    """Whether it was found by its looks alone, and may not be what was stored last."""


class Chunk(NamedTuple):
    """An entry of `payloads`."""

    key: bytes
    value: bytes


# Pages, by how certain it is that what is on them is what was stored last.
_OF_NONE, _BROKEN, _WHOLE = range(3)  # no tree has it; one has, and its frame is damaged, or not


class _Version(NamedTuple):
    """What speaks for one of several records of a job: the page, where any may be a free one;
    what is larger in the newer one; and the page again."""

    certain: int
    state: tuple[int, int]
    page: int


class Salvage:
    """The content of a data file."""

    def __init__(self, pages: Pages) -> None:
        """Walks the trees of jobs and payloads, and, where one has a hole, every page."""
        self._pages = pages
        self.problems = [Problem("structure", problem) for problem in pages.problems]
        self.damaged: list[Hole] = []
        """The pages of jobs and payloads that are."""
        databases = find_databases(pages, self.problems)
        self._trees, self._free, self._refused, last_page, self.undone = databases
        self.foreign = sorted(self._trees.keys() - _DATABASES)
        """The names of databases that no store of this version has."""
        self.count = min(self._trees.get(layout.JOBS, EMPTY).entries, pages.count * pages.size)
        """How many jobs there are, about."""
        self._reached = bytearray(pages.count)
        self._loose: dict[int, tuple[_Version, int]] = {}  # with the page
        self._loose_chunks: dict[int, list[tuple[bytes, int]]] = {}
        jobs, lacking = self._survey(layout.JOBS)
        payloads, _ = self._survey(layout.PAYLOADS)
        if jobs or payloads:
            self._free = self._with_unused(last_page)
            self._look_everywhere(Within(jobs), lacking)
        self._candidates = lru_cache(64)(self._nodes_of)  # neighbours are asked for in turn

    # --- What there is ------------------------------------------------------

    def entries(self, name: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Those of a small database, in which nothing has a checksum."""
        for found in self._leaves(name):
            if isinstance(found, Hole):
                self.problems.append(problem_of(name, found))
                nodes = fitting_nodes(self._pages.page(found.page) or b"")
            else:
                nodes = found.nodes
            yield from ((node.key, node.value) for node in nodes)

    def records(self) -> Iterator[Record]:
        """Every record, by ascending id. One that is damaged may come beside a loose one; of
        two that are sound the newer one comes: the tree may have a page as it was before."""
        loose = iter(sorted(self._loose))
        waiting = next(loose, None)
        for found in self._leaves(layout.JOBS):
            if isinstance(found, Hole):
                continue
            for key, _, record in found.nodes:
                job_id = as_number(key)
                while waiting is not None and waiting < job_id:
                    yield self._loose_record(waiting)
                    waiting = next(loose, None)
                if waiting != job_id:
                    yield Record(key, record, False)
                    continue
                if not _is_sound(key, record):
                    yield Record(key, record, False)
                    yield self._loose_record(job_id)
                elif _state(key, record) < self._loose[job_id][0].state:
                    yield self._loose_record(job_id)
                else:
                    yield Record(key, record, False)
                waiting = next(loose, None)
        while waiting is not None:
            yield self._loose_record(waiting)
            waiting = next(loose, None)

    def chunks(self) -> Iterator[tuple[int | None, list[Chunk]]]:
        """The chunks in the tree, by ascending id, those of a job together; None for what
        is no chunk's key, one by one."""

        def entries() -> Iterator[Chunk]:
            for found in self._leaves(layout.PAYLOADS):
                if not isinstance(found, Hole):
                    yield from (Chunk(key, value) for key, _, value in found.nodes)

        for job_id, chunks in groupby(entries(), lambda chunk: _owner_of(chunk.key)):
            if job_id is None:
                yield from ((None, [chunk]) for chunk in chunks)
            else:
                yield job_id, list(chunks)

    def part(self, job_id: int, part: int, reference: bytes, chunks: Iterable[Chunk]) -> bytes:
        """The content of a part of a job, of these chunks and such as are loose.
        Raises `layout.Damaged` where none has its checksum."""
        found: dict[int, list[bytes]] = {}
        for chunk in (*chunks, *self._loose_chunks_of(job_id)):
            _, of, number = recordlayout.split_payload_key(chunk.key)
            if of == part and chunk.value not in found.setdefault(number, []):
                found[number].append(chunk.value)
        for pieces in islice(product(*_candidates(found, reference)), _MOST_TRIES):
            content = b"".join(pieces)
            if recordlayout.fits_reference(reference, content):
                return content
        raise layout.Damaged(f"what it has outside of its record (part {part}) is damaged")

    def witnesses(self) -> set[tuple[int, str]]:
        """Numbers and names of workers that the pages, also free ones, have both ways: as number
        and name, and as name and number. They never change. O(pages)."""
        forward: set[tuple[int, str]] = set()
        backward: set[tuple[int, str]] = set()
        for number in range(self._pages.count):
            for key, _, value in fitting_nodes(self._pages.page(number) or b""):
                if len(value) == layout.NUMBER_BYTES and (pair := pair_of(value, key)):
                    forward.add(pair)
                if len(key) == layout.NUMBER_BYTES and (pair := pair_of(key, value)):
                    backward.add(pair)
        return forward & backward

    # --- Trees --------------------------------------------------------------

    def _leaves(self, name: bytes) -> Iterator[Leaf | Hole]:
        return self._pages.leaves(self._trees.get(name, EMPTY), order_of(name), self._refused)

    def _survey(self, name: bytes) -> tuple[list[Hole], int]:
        """The holes of a tree, the other pages of which are marked as reached; and how many
        entries it should have besides theirs."""
        if name not in self._trees:
            self.problems.append(Problem("structure", f"{name.decode()} is not found"))
            return [_WHOLE_TREE], 0
        holes: list[Hole] = []
        count = 0
        order = order_of(name)
        # As far as the sound pages on both sides: a key between two pages may be damaged, too.
        last, unended = None, 0
        for found in self._leaves(name):
            if isinstance(found, Hole):
                holes.append(found._replace(low=last, high=None))
                self.problems.append(problem_of(name, found))
            else:
                first = order(found.nodes[0].key)
                holes[unended:] = [hole._replace(high=first) for hole in holes[unended:]]
                last, unended = order(found.nodes[-1].key), len(holes)
                count += len(found.nodes)
                self._reached[found.page] = 1
        self.damaged += holes
        entries = self._trees[name].entries
        if not holes and count != entries:
            message = f"{name.decode()} has {count} entries, and should have {entries}"
            self.problems.append(Problem("structure", message))
            holes.append(_WHOLE_TREE)  # it may be the root of another tree
        return holes, entries - count

    # --- Pages that no tree has ---------------------------------------------

    def _with_unused(self, last_page: int) -> bytearray | None:
        """The free pages, with those behind the last one of the state, which a transaction has
        written that was not ended. That number is damaged where a tree goes beyond it."""
        unused = range(last_page + 1, self._pages.count)
        damaged = any(hole.page in unused for hole in self.damaged)
        if self._free is None or damaged or any(self._reached[number] for number in unused):
            return self._free
        return self._free[: unused.start] + b"\1" * len(unused)

    def _is_free(self, number: int) -> bool:
        return self._free is not None and self._free[number] == 1

    def _rank(self, number: int) -> int:
        """Of a page that a tree has, and that is damaged."""
        if self._is_free(number):
            return _OF_NONE  # the tree, or the list of free pages: one of both is wrong
        try:
            self._pages.nodes(self._pages.page(number) or b"")
        except ValueError:
            return _BROKEN
        return _WHOLE

    def _look_everywhere(self, holes: Within, lacking: int) -> None:
        """Notes every record of the holes, and every chunk, that is on pages which were not
        reached: chunks count only where a record that is kept has their checksum. Where they
        are less than are lacking, also such records as no hole has lost."""
        referred = {hole.page for hole in self.damaged}
        others: dict[int, tuple[_Version, int]] = {}
        for number in range(self._pages.count):
            rank = _OF_NONE
            if number in referred:
                rank = self._rank(number)
            elif self._reached[number] or self._is_free(number):
                continue
            page = self._pages.page(number) or b""
            # It is certainly in use. Behind the entries of an index may stand what was a record.
            certain = self._free is not None and not is_of_index(number, page)
            beyond_holes = certain and number not in referred
            for key, _, value in self._nodes_on(page):
                if len(key) != layout.NUMBER_BYTES:
                    if (owner := _owner_of(key)) is not None:
                        self._loose_chunks.setdefault(owner, []).append((key, number))
                    continue
                job_id = as_number(key)
                within = holes.has(job_id)
                if not (within or beyond_holes) or not _is_sound(key, value):
                    continue
                found = self._loose if within else others
                version = self._version(key, value, rank)
                if job_id not in found or found[job_id][0] < version:
                    found[job_id] = version, number
        # Behind no hole is what a page hides that stands, whole, where another should.
        if len(self._loose) < lacking:
            self._loose |= others

    def _version(self, key: bytes, record: bytes, rank: int) -> _Version:
        certain = 0 if self._free is not None else rank
        return _Version(certain, _state(key, record), rank)

    def _nodes_of(self, number: int) -> list[Node]:
        return self._nodes_on(self._pages.page(number) or b"")

    def _nodes_on(self, page: bytes) -> list[Node]:
        """What looks like records and chunks on a page."""
        if page.count(0) == len(page):
            return []
        with suppress(ValueError):
            nodes = self._pages.nodes(page)
            if all(len(node.key) in _KEYS for node in nodes):
                return nodes
        return [node for length in _KEYS for node in raw_nodes(page, length)]

    def _loose_record(self, job_id: int) -> Record:
        """The record that was chosen, read once more: only its page was noted."""
        version, page = self._loose[job_id]
        key = layout.pack_number(job_id)
        for node in self._candidates(page):
            if (
                node.key == key
                and _is_sound(key, node.value)
                and self._version(key, node.value, version.page) == version
            ):
                return Record(key, node.value, version.page < _WHOLE)
        raise AssertionError("the file has changed while it was read")

    def _loose_chunks_of(self, job_id: int) -> Iterator[Chunk]:
        for key, page in self._loose_chunks.get(job_id, ()):
            yield from (
                Chunk(key, node.value) for node in self._candidates(page) if node.key == key
            )


_KEYS: Final = (layout.NUMBER_BYTES, recordlayout.PAYLOAD_KEY_BYTES)


def pair_of(number: bytes, name: bytes) -> tuple[int, str] | None:
    """Number and name of a worker, where they can be that."""
    value = layout.unpack_number(number) if len(number) == layout.NUMBER_BYTES else 0
    try:
        text = name.decode()
    except UnicodeDecodeError:
        return None
    if not 0 < value <= layout.MAX_WORKER or not 0 < len(name) <= MAX_WORKER_BYTES:
        return None
    return value, text


def _is_sound(key: bytes, record: bytes) -> bool:
    try:
        recordlayout.unpack_record(key, record)
    except layout.Damaged:
        return False
    return True


def _state(key: bytes, record: bytes) -> tuple[int, int]:
    """What is larger in the newer of two records of a job: its time, and its claim."""
    *_, updated_at, claim = recordlayout.unpack_record(key, record)
    return updated_at, claim


def _candidates(found: dict[int, list[bytes]], reference: bytes) -> list[list[bytes]]:
    """Of each chunk of a content, those that may be it, by number and length: there may be others
    on old pages, or on damaged ones what only looks like some, or is cut too late. Where none has
    its number that may be damaged, and be one that is too large, or another's, too."""
    lengths = list(recordlayout.chunk_lengths(reference))
    strays = [
        chunk
        for number, chunks in found.items()
        if number >= len(lengths) or len(chunks) > 1
        for chunk in chunks
    ]
    return [
        [chunk[:length] for chunk in found.get(number, strays) if len(chunk) >= length]
        for number, length in enumerate(lengths)
    ]


def part_of(chunk: Chunk) -> int:
    """The part of its job that a chunk belongs to."""
    return recordlayout.split_payload_key(chunk.key)[1]


def _owner_of(key: bytes) -> int | None:
    try:
        return recordlayout.split_payload_key(key)[0]
    except layout.Damaged:
        return None
