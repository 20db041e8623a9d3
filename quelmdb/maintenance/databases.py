"""Where the databases of a data file are, in the last of its states that can be read."""

from __future__ import annotations

from typing import Final, NamedTuple

from quelmdb import layout
from quelmdb.maintenance.remains import fitting_nodes
from quelmdb.maintenance.states import free_marks, is_main, last_states, named_trees, order_of
from quelmdb.pages import Hole, Leaf, Meta, Pages, Tree, as_bytes
from quelmdb.persistence import Problem

BY_LOOKS: Final = (layout.JOBS, layout.PAYLOADS)
"""The databases whose entries have checksums, and are known without a tree."""


class Databases(NamedTuple):
    """What was found."""

    trees: dict[bytes, Tree]
    free: bytearray | None
    """A mark for every page that is free in the last state, where that is certain,"""
    refused: bytearray | None
    """and in the one of which the trees are."""
    last_page: int
    """The last page in use of the last state, as its meta page says."""
    undone: bool
    """Whether what the last transaction changed is not there, or may not be."""


def find_databases(pages: Pages, problems: list[Problem]) -> Databases:
    """Those of the latest state that tells where they are; adds to the problems what is in the
    way. O(free pages) where the meta pages and main are sound, and some leaf of jobs and of
    payloads; else O(pages and entries)."""
    return _Finding(pages, problems).databases()


def problem_of(name: bytes, hole: Hole) -> Problem:
    """What a hole in the tree of a database is told as."""
    return Problem("structure", f"page {hole.page} of {name.decode()}: {hole.reason}")


class _Finding:
    def __init__(self, pages: Pages, problems: list[Problem]) -> None:
        self._pages = pages
        self._problems = problems

    def databases(self) -> Databases:
        states, undone = last_states(self._pages)
        if states and states[0] not in self._pages.metas and not states[0].marks:
            self._tell("no meta page has the last transaction: it is brought back")
        # The free pages of the last state, where its databases are not found.
        latest: bytearray | None = None
        last_page = 0
        for state in states:
            free = self._free_pages(state)
            if latest is None:
                last_page = state.last_page
            if trees := self._named(state.main, free) or self._unreferred(free):
                break
            latest = latest or free
            self._tell(f"no database of transaction {state.transaction} is found")
            undone = True
        else:
            free, trees = None, self._unreferred(None)
        by_looks = {name: trees.pop(name) for name in BY_LOOKS if name in trees}
        if latest is not None:  # jobs are known wherever they stand; all else is as it was before
            return Databases(trees, latest, free, last_page, undone)
        trees |= {name: self._levelled(name, tree, free) for name, tree in by_looks.items()}
        return Databases(trees, free, free, last_page, undone)

    def _named(self, main: Tree, free: bytearray | None) -> dict[bytes, Tree]:
        """The databases with a name."""
        found: dict[bytes, Tree] = {}
        for leaf in self._pages.leaves(main, as_bytes, free, plain=False):
            if isinstance(leaf, Hole):
                self._problems.append(problem_of(b"main", leaf))
                nodes = fitting_nodes(self._pages.page(leaf.page) or b"")
            else:
                nodes = leaf.nodes
            found |= named_trees(nodes)
        return found

    def _levelled(self, name: bytes, tree: Tree, free: bytearray | None) -> Tree:
        """A tree without the level of its leaves where that is damaged: they are on another."""

        def has_leaf(tree: Tree) -> bool:
            leaves = self._pages.leaves(tree, order_of(name), free)
            return any(isinstance(leaf, Leaf) for leaf in leaves)

        without = tree._replace(depth=0)
        if has_leaf(tree) or not has_leaf(without):
            return tree
        self._tell(f"{name.decode()} has no sound leaf on its level {tree.depth}")
        return without

    def _unreferred(self, free: bytearray | None) -> dict[bytes, Tree]:
        """The databases that a page tells of to which nothing refers, if it is one alone."""
        found = []
        for number in range(self._pages.count):
            if free is not None and free[number]:
                continue
            trees = named_trees(fitting_nodes(self._pages.page(number) or b""))
            if is_main(trees):
                found.append(trees)
        return found[0] if len(found) == 1 else {}

    def _free_pages(self, state: Meta) -> bytearray | None:
        """A mark for every page of the file that is free; None where that is not certain."""
        try:
            if self._pages.number_of(state) != state.transaction:
                raise ValueError("the list of free pages is of another transaction")
            return free_marks(self._pages, state.free)
        except ValueError as error:
            self._tell(str(error))
            return None

    def _tell(self, message: str) -> None:
        self._problems.append(Problem("structure", message))
