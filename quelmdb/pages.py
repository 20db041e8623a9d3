"""The pages of a data file, read as bytes: a damaged file could make LMDB crash.

    file := meta meta page*                         (mdb.c of LMDB 0.9, 64 bits)
    page := number(8) pad(2) flags(2) lower(2) upper(2) pointer(2)* ... node*
    node := low(2) high(2) flags(2) key length(2) key value

A page of a tree counts only where all of it holds together: its kind, its keys, and that
its nodes fill exactly what lies behind `upper` (LMDB keeps them without a gap). So where a
bit of its frame has flipped it is a hole in its tree, and never a page with fewer nodes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple, Self

HEAD: Final = 16
"""Bytes of a page before its pointers, and of a meta page before the meta."""
FRAME: Final = 8
"""Bytes of a node before its key."""
BRANCH, LEAF, OVERFLOW, META = 0x01, 0x02, 0x04, 0x08
_KINDS: Final = 0xFF
_BIG: Final = 0x01  # flag of a node: its value stands on pages of its own
SUBDATA: Final = 0x02
"""Flag of a node: its value is a database."""

_MAGIC: Final = 0xBEEFC0DE
_VERSION: Final = 1
_SLOTS: Final = (0, 1)  # of the meta pages
META_BYTES: Final = 152
"""Of a meta page, up to the number of its transaction, which comes last."""
_FREE_AT, _MAIN_AT = 40, 88  # where the trees stand in a meta page
_TREE_BYTES: Final = 48
_NO_ROOT: Final = 2**64 - 1
_DEEPEST: Final = 32
_MARKS: Final = 4  # of a meta page: its kind, magic number, version and size of pages
_ENOUGH: Final = 3  # for one that has a flipped bit

Place = int | bytes
"""A key as LMDB compares it."""

Order = Callable[[bytes], Place]
"""The place of a key. Raises `ValueError` where the tree has no such keys."""


class Tree(NamedTuple):
    """A database: where its root is, how many entries it says that it has, its flags, and on
    which level its leaves are, below a root on the first; 0 where that is not known."""

    root: int | None
    entries: int
    kind: int = 0
    depth: int = 0


EMPTY: Final = Tree(None, 0)


class Meta(NamedTuple):
    """What one of the two meta pages says: a point in time."""

    transaction: int
    free: Tree
    main: Tree
    last_page: int
    marks: int
    """How many of those that every meta page has are right."""


class Node(NamedTuple):
    """An entry of a leaf page."""

    key: bytes
    flags: int
    value: bytes


class Hole(NamedTuple):
    """What of a tree cannot be read: keys from `low` to below `high` (None: no bound)."""

    low: Place | None
    high: Place | None
    page: int
    reason: str


class Leaf(NamedTuple):
    """A page at the end of a tree, sound."""

    page: int
    nodes: list[Node]


def as_number(key: bytes) -> int:
    """The place of a native number of 8 bytes. Raises `ValueError`."""
    if len(key) != 8:
        raise ValueError("a key that is no number")
    return _number(key)


def as_bytes(key: bytes) -> bytes:
    """The place of any other key."""
    return key


class Pages:
    """A data file, which is only read, and not through a map: it might be cut short."""

    def __init__(self, path: Path) -> None:
        """Raises `OSError`."""
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._bytes = os.fstat(self._file).st_size
        self.size = self._page_size()
        self.count = -(-self._bytes // self.size)
        self.problems: list[str] = []
        """What is wrong with the meta pages."""
        self.metas = self._metas()
        """The points in time that the file has, the latest first."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *reason: object) -> None:
        os.close(self._file)

    def page(self, number: int) -> bytes | None:
        """A page of the file, with zeros for what was cut off; None beyond the end."""
        if not 0 <= number < self.count:
            return None
        return os.pread(self._file, self.size, number * self.size).ljust(self.size, b"\0")

    def leaves(
        self, tree: Tree, order: Order, refused: bytearray | None = None, *, plain: bool = True
    ) -> Iterator[Leaf | Hole]:
        """A tree in the order of its keys, leaf by leaf. `refused` marks pages that are
        none of it; `plain`: no node is a database, or has duplicates. Never raises."""
        if tree.root is None:
            return
        seen: set[int] = set()
        stack: list[tuple[int, Place | None, Place | None, int]] = [(tree.root, None, None, 1)]
        while stack:
            number, low, high, depth = stack.pop()
            try:
                if number in seen or depth > _DEEPEST:
                    raise ValueError("it is below itself")
                if refused is not None and number < len(refused) and refused[number]:
                    raise ValueError("it is both free and in use")
                seen.add(number)
                page = self.sound_page(number)
                if kind_of(page) == BRANCH:
                    children = _children(page, order)
                    ends = [place for _, place in children[1:]]
                    _check_places(ends, low, high)
                    bounds = [low, *ends, high]
                    stack += [
                        (child, bounds[at], bounds[at + 1], depth + 1)
                        for at, (child, _) in enumerate(children)
                    ][::-1]
                    continue
                nodes = self.nodes(page)
                if tree.depth and depth != tree.depth:
                    raise ValueError("it is on another level than the leaves of its tree")
                if plain and any(node.flags & ~_BIG for node in nodes):
                    raise ValueError("its entries are of another kind")
                _check_places([order(node.key) for node in nodes], low, high)
            except ValueError as error:
                yield Hole(low, high, number, str(error))
            else:
                yield Leaf(number, nodes)

    def freed(self, tree: Tree) -> Iterator[tuple[int, list[int]]]:
        """What a list of free pages says: which transaction has freed which pages, ascending.
        Raises `ValueError` where it is damaged."""
        for leaf in self.leaves(tree, as_number):
            if isinstance(leaf, Hole):
                raise ValueError(f"page {leaf.page} of free pages: {leaf.reason}")
            for key, _, value in leaf.nodes:
                length, *free = memoryview(value[: len(value) // 8 * 8]).cast("Q").tolist() or [0]
                descends = all(a > b for a, b in pairwise(free))
                if len(value) != 8 * length + 8 or not descends:
                    raise ValueError("the list of free pages is damaged")
                yield as_number(key), free

    def number_of(self, meta: Meta) -> int:
        """The transaction of a meta page, by its list of free pages: each frees at least a page
        of main. Raises `ValueError` where the list is damaged."""
        last, *before = self.metas
        if meta in before and meta.free == last.free:
            return meta.transaction  # a commit that failed was settled: both are the same state
        return max((number for number, _ in self.freed(meta.free)), default=meta.transaction)

    def ends_with_free_pages(self) -> bool:
        """Whether all pages that the file lacks are free: LMDB does not write what it takes and
        frees in one transaction. To be asked in a read transaction, where others write."""
        first = self._bytes // self.size
        for meta in self.metas[:1]:
            with suppress(ValueError):
                lists = (freed for _, freed in self.freed(meta.free))
                free = {
                    page for freed in lists for page in freed if first <= page <= meta.last_page
                }
                return first >= len(_SLOTS) and len(free) == meta.last_page + 1 - first
        return False

    def problems_at_opening(self, names: Iterable[bytes]) -> list[str]:
        """What is wrong with the pages that LMDB reads to open the file and the databases of
        these `names`: it believes whatever stands there. O(free pages)."""
        problems = [*self.problems]
        for meta in self.metas:
            with suppress(ValueError):
                if (told := self.number_of(meta)) != meta.transaction:
                    problems.append(f"a meta page says {meta.transaction}, and is of {told}")
        for meta in self.metas[:1]:
            trees = {b"main": meta.main}
            for name in (b"main", *names):
                for leaf in self.leaves(trees.get(name, EMPTY), as_bytes, plain=name != b"main"):
                    if isinstance(leaf, Hole):
                        problems.append(f"page {leaf.page} of {name.decode()}: {leaf.reason}")
                    elif name == b"main":
                        trees |= {n.key: tree_of(n.value) for n in leaf.nodes if is_tree(n)}
                if trees.get(name, EMPTY).kind:
                    problems.append(f"{name.decode()} is a database of another kind")
        return problems

    def nodes(self, page: bytes) -> list[Node]:
        """All of a leaf page. Raises `ValueError` where it is none that is sound."""
        if kind_of(page) != LEAF:
            raise ValueError("it is no leaf")
        words = memoryview(page).cast("H")
        found = []
        pointers = _pointers(page)
        ends = []
        for at in pointers:
            low, high, flags, key_length = words[at >> 1 : (at >> 1) + 4]
            length = low | high << 16
            value_at = at + FRAME + key_length
            end = value_at + (8 if flags & _BIG else length)
            if end > len(page):
                raise ValueError("an entry goes beyond it")
            ends.append(end + 1 & ~1)
            value = page[value_at:end]
            if flags & _BIG:
                value = self._big(_number(value), length)
            found.append(Node(page[at + FRAME : value_at], flags, value))
        _check_ends(page, pointers, ends)
        return found

    def _big(self, number: int, length: int) -> bytes:
        """A value on pages of its own."""
        first = self.page(number)
        pages = -(-(HEAD + length) // self.size)
        if (
            first is None
            or _number(first[:8]) != number
            or kind_of(first) != OVERFLOW
            or int.from_bytes(first[12:16], sys.byteorder) < pages
            or number + pages > self.count
        ):
            raise ValueError("the value of an entry is not where it should be")
        return os.pread(self._file, length, number * self.size + HEAD)

    def sound_page(self, number: int) -> bytes:
        """A page of a tree. Raises `ValueError` where it is none."""
        page = self.page(number) if number not in _SLOTS else None
        if page is None:
            raise ValueError("there is no such page")
        if _number(page[:8]) != number:
            raise ValueError("it has the number of another")
        if kind_of(page) not in (BRANCH, LEAF):
            raise ValueError(f"it is of the kind {kind_of(page):#x}")
        return page

    # --- Meta pages ---------------------------------------------------------

    def _page_size(self) -> int:
        """What most speaks for: it stands on both meta pages, and moves the second. A sound
        one outweighs all others, which may stand in the place of another page."""
        found = {}
        for size in (2**power for power in range(15, 8, -1)):
            marks = [self._meta(slot, size).marks for slot in _SLOTS]
            found[size] = max(marks) == _MARKS, sum(marks)
        best = max(found, key=lambda size: found[size])
        return best if found[best][1] >= _ENOUGH else os.sysconf("SC_PAGE_SIZE")

    def _meta(self, slot: int, size: int) -> Meta:
        page = os.pread(self._file, META_BYTES, slot * size).ljust(META_BYTES, b"\0")
        marks = (
            kind_of(page) == META,
            int.from_bytes(page[16:20], sys.byteorder) == _MAGIC,
            int.from_bytes(page[20:24], sys.byteorder) == _VERSION,
            int.from_bytes(page[40:44], sys.byteorder) == size,
        )
        free, main = tree_of(page[_FREE_AT:_MAIN_AT]), tree_of(page[_MAIN_AT:])
        return Meta(_number(page[144:152]), free, main, _number(page[136:144]), sum(marks))

    def _metas(self) -> list[Meta]:
        found = []
        for slot in _SLOTS:
            meta = self._meta(slot, self.size)
            if meta.marks < _ENOUGH:
                self.problems.append(
                    f"meta page {slot} is none: what the last transaction changed may be undone"
                )
                continue
            found.append(meta)
            if meta.marks < _MARKS:
                self.problems.append(f"meta page {slot} is damaged")
            # Commits alternate between the two: odd ones are on the odd page.
            if meta.transaction % 2 != slot and meta.transaction:
                self.problems.append(f"meta page {slot} has the number {meta.transaction}")
        found.sort(key=lambda meta: meta.transaction, reverse=True)
        if len(found) == len(_SLOTS) and found[0].transaction - found[1].transaction > 1:
            self.problems.append(
                "the meta pages are not of two transactions one after the other: what the last "
                "one changed may be undone"
            )
        return found


def kind_of(page: bytes) -> int:
    """What a page says that it is."""
    return int.from_bytes(page[10:12], sys.byteorder) & _KINDS


def lower_of(page: bytes) -> int:
    """Where the pointers of a page end."""
    return int.from_bytes(page[12:14], sys.byteorder)


def upper_of(page: bytes) -> int:
    """Where its nodes begin."""
    return int.from_bytes(page[14:16], sys.byteorder)


def tree_of(data: bytes) -> Tree:
    """The tree of a database that is told in 48 bytes."""
    root = _number(data[40:48])
    kind, depth = memoryview(data[4:8]).cast("H")
    return Tree(None if root == _NO_ROOT else root, _number(data[32:40]), kind, depth)


def is_tree(node: Node) -> bool:
    """Whether a node is a database with a name."""
    return node.flags == SUBDATA and len(node.value) == _TREE_BYTES


def _number(data: bytes) -> int:
    return int.from_bytes(data, sys.byteorder)


def _pointers(page: bytes) -> list[int]:
    """Where the nodes of a page stand. Raises `ValueError`."""
    lower, upper = lower_of(page), upper_of(page)
    if not HEAD < lower <= upper <= len(page) or lower % 2 or upper % 2:
        raise ValueError("its bounds are none")
    pointers = memoryview(page)[HEAD:lower].cast("H").tolist()
    if min(pointers) < upper or max(pointers) + FRAME > len(page) or any(p % 2 for p in pointers):
        raise ValueError("an entry is outside of it")
    return pointers


def _children(page: bytes, order: Order) -> list[tuple[int, Place]]:
    """The pages below a branch page, each with the place of its first key; that of the
    first one means nothing. Raises `ValueError`."""
    words = memoryview(page).cast("H")
    found: list[tuple[int, Place]] = []
    pointers = _pointers(page)
    ends = []
    for at in pointers:
        low, high, highest, key_length = words[at >> 1 : (at >> 1) + 4]
        end = at + FRAME + key_length
        if end > len(page):
            raise ValueError("a key goes beyond it")
        ends.append(end + 1 & ~1)
        place: Place = order(page[at + FRAME : end]) if found else 0
        found.append((low | high << 16 | highest << 32, place))
    _check_ends(page, pointers, ends)
    return found


def _check_ends(page: bytes, pointers: list[int], ends: list[int]) -> None:
    """Raises `ValueError` where the nodes do not stand one behind the other, up to the end."""
    begins = {*pointers}
    if len(begins) < len(pointers) or {upper_of(page), *ends} != {*begins, len(page)}:
        raise ValueError("its entries do not fill it")


def _check_places(places: list[Place], low: Place | None, high: Place | None) -> None:
    """Raises `ValueError` where these do not ascend, from `low` to below `high`."""
    bounded = [*([] if low is None else [low]), *places, *([] if high is None else [high])]
    # Of one order: all are numbers, or all are bytes. The first may be the bound itself.
    for at, (before, after) in enumerate(pairwise(bounded)):
        if before > after or (before == after and (at or low is None)):  # type: ignore[operator]
            raise ValueError("its keys are not in order")
