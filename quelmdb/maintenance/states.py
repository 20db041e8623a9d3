"""Which state of a data file is the last one, where its two meta pages do not tell.

Pages have no number of a transaction, in LMDB 0.9, but its lists of free pages do: each
transaction replaces at least the page of the named databases, and enters what it has replaced
under its own number. So the largest number in the list of a state is that of the state; and
of all pages of named databases in the file its own is the one that its list does not have.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import suppress
from itertools import pairwise
from typing import Final

from quelmdb import layout
from quelmdb.pages import (
    BRANCH,
    Hole,
    Meta,
    Node,
    Order,
    Pages,
    Tree,
    as_bytes,
    as_number,
    is_tree,
    kind_of,
    tree_of,
)

_NUMBERED: Final = frozenset((layout.JOBS, layout.WORKER_NAMES, layout.OWNERS))
_FIRST: Final = 2  # page behind the meta pages
_INDEX: Final = 0x04  # flag of a database: a key has several values
_FIXED: Final = 0x22  # kind of a leaf that has nothing but such values, all of one length


def last_states(pages: Pages) -> tuple[list[Meta], bool]:
    """The states of a file that can be read, the last one first; and whether there may have been
    a later one. O(free pages) where the meta pages are of two transactions, one after the
    other; else O(pages and entries)."""
    numbers = [_number(pages, meta) for meta in pages.metas]
    if _follow(pages.metas) and numbers == [meta.transaction for meta in pages.metas]:
        return pages.metas, False
    # The number of one of them may be damaged: LMDB takes the older state for the last one.
    metas = [
        meta._replace(transaction=number) if _is_whole(pages, meta) else meta
        for meta, number in zip(pages.metas, numbers, strict=True)
    ]
    metas.sort(key=lambda meta: meta.transaction, reverse=True)
    if _follow(metas):
        return metas, False
    if not metas:
        return [], True
    later, certain = _next(pages, metas[0])
    return ([later, *metas], False) if later else (metas, not certain)


def free_marks(pages: Pages, tree: Tree) -> bytearray:
    """A mark for every page of the file that a list of free pages has. Raises `ValueError`
    where that is damaged."""
    marks = bytearray(pages.count)
    for _, freed in pages.freed(tree):
        for page in freed:
            if page < len(marks):  # free ones may be beyond the end of the file
                marks[page] = 1
    return marks


def named_trees(nodes: Iterable[Node]) -> dict[bytes, Tree]:
    """The databases among the entries of main."""
    return {node.key: tree_of(node.value) for node in nodes if is_tree(node)}


def is_main(trees: dict[bytes, Tree]) -> bool:
    """Whether these are the databases of a store, and not what only looks like some."""
    return trees.keys() >= {layout.JOBS, layout.PAYLOADS, layout.META}


def order_of(name: bytes) -> Order:
    """The order of the keys of a database."""
    return as_number if name in _NUMBERED else as_bytes


def is_of_index(number: int, page: bytes) -> bool:
    """Whether a page is certainly a leaf with nothing but numbers of jobs."""
    head = number.to_bytes(8, sys.byteorder) + layout.NUMBER_BYTES.to_bytes(2, sys.byteorder)
    return page.startswith(head) and kind_of(page) == _FIXED


def _follow(metas: list[Meta]) -> bool:
    return any(one.transaction == other.transaction + 1 for one, other in pairwise(metas))


def _number(pages: Pages, meta: Meta) -> int:
    with suppress(ValueError):
        return pages.number_of(meta)
    return meta.transaction


def _numbers(pages: Pages, tree: Tree) -> list[int]:
    """The transactions that a list of free pages has, ascending; none where it is damaged."""
    with suppress(ValueError):
        return [number for number, _ in pages.freed(tree)]
    return []


def _is_whole(pages: Pages, meta: Meta) -> bool:
    """Whether all databases of a state but indexes, which are made anew, can be walked, on pages
    that are not free in it, and have as many entries as they should."""
    trees: dict[bytes, Tree] = {}
    with suppress(ValueError):
        free = free_marks(pages, meta.free)
        for leaf in pages.leaves(meta.main, as_bytes, free, plain=False):
            if isinstance(leaf, Hole):
                return False
            trees |= named_trees(leaf.nodes)
        return is_main(trees) and all(
            _count(pages, tree, order_of(name), free) == tree.entries
            for name, tree in trees.items()
            if not tree.kind & _INDEX
        )
    return False


def _count(pages: Pages, tree: Tree, order: Order, free: bytearray) -> int | None:
    """The entries of a tree; None where it has a hole."""
    count = 0
    for leaf in pages.leaves(tree, order, free):
        if isinstance(leaf, Hole):
            return None
        count += len(leaf.nodes)
    return count


def _next(pages: Pages, last: Meta) -> tuple[Meta | None, bool]:
    """The state of the transaction behind the last one that a meta page has, where it is whole;
    if not, whether it is certain that there was none."""
    following = last.transaction + 1
    lists: list[Tree] = []
    mains: list[Tree] = []
    certain = True
    try:
        unused = free_marks(pages, last.free)
    except ValueError:
        unused = bytearray(b"\1") * pages.count
    for number in range(_FIRST, pages.count):
        # It was written where the state before it, which stays readable, has nothing.
        if number <= last.last_page and not unused[number]:
            continue
        page, tree = pages.page(number) or b"", Tree(number, 0)
        if not any(page) or is_of_index(number, page):
            continue
        try:
            page = pages.sound_page(number)
            if kind_of(page) != BRANCH and is_main(named_trees(pages.nodes(page))):
                mains.append(tree)
        except ValueError:
            certain = False  # it may have been of it
        numbers = _numbers(pages, tree)
        if numbers and numbers[-1] == following:
            lists.append(tree._replace(entries=len(numbers)))
    if not lists:
        return None, certain
    # The others are parts of the longest one. It has the pages that the state before it had.
    free = max(lists, key=lambda tree: tree.entries)
    found = [Meta(following, free, main, pages.count - 1, 0) for main in mains]
    whole = [meta for meta in found if _is_whole(pages, meta)]
    before = last.main.root
    if len(whole) == 1 and (before is None or any(before in f for _, f in pages.freed(free))):
        return whole[0], True
    return None, False
