"""What can be read of a leaf page whose frame, or that of a node on it, is damaged; and which
keys may be missing.

The pointers, the bounds and the frames of the nodes each tell where the nodes are: what one of
them has lost another has. What is found by its looks alone is to be confirmed by a checksum.
"""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any, Final, NamedTuple

from quelmdb.pages import (
    BRANCH,
    FRAME,
    HEAD,
    META,
    OVERFLOW,
    SUBDATA,
    Hole,
    Node,
    kind_of,
    lower_of,
    upper_of,
)

_OTHERS: Final = (BRANCH, OVERFLOW, META)  # pages that are certainly no leaf


class Within:
    """The keys that the holes of a tree may have had."""

    def __init__(self, holes: Iterable[Hole]) -> None:
        # They come by ascending keys, and none reaches into another, or both are the same.
        holes = list(holes)
        self._everything = any(hole.low is None and hole.high is None for hole in holes)
        self._first = [hole.high for hole in holes if hole.low is None]
        self._last = [hole.low for hole in holes if hole.high is None]
        bounded = [h for h in holes if h.low is not None and h.high is not None]
        self._lows: list[Any] = [hole.low for hole in bounded]
        self._highs: list[Any] = [hole.high for hole in bounded]

    def has(self, place: Any) -> bool:
        """Whether one of them may have had that key. O(log n)."""
        if self._everything:
            return True
        if any(place < high for high in self._first) or any(place >= low for low in self._last):
            return True
        at = bisect_right(self._lows, place) - 1
        return at >= 0 and bool(place < self._highs[at])


def fitting_nodes(page: bytes) -> list[Node]:
    """Those plain nodes and databases of a leaf page that are within it, whatever the others
    are. For what no checksum confirms this is little to go by."""
    found = []
    for at in _pointers(page)[0]:
        frame = _frame(page, at)
        if frame.end <= len(page) and frame.flags in (0, SUBDATA):
            found.append(frame.node(page))
    return found


def raw_nodes(page: bytes, key_length: int) -> Iterator[Node]:
    """What may be a plain node of a leaf page with a key of such a length: where a pointer
    says so, as long as its frame says, or up to the next one; and whatever looks like one
    where the pointers are not all. What was deleted may be among it."""
    if kind_of(page) in _OTHERS:
        return
    pointers, are_all = _pointers(page)
    for at, following in pairwise([*sorted(pointers), len(page)]):
        key_at = at + FRAME
        # It ends where the next one begins, at an even place: a byte may lie between them.
        for end in {_frame(page, at).end, following, following - 1}:
            if key_at + key_length <= end <= len(page):
                yield _node(page, key_at, key_length, end)
    if not are_all:
        for at in _by_looks(page, key_length, upper_of(page) if _bounded(page) else HEAD):
            if at not in pointers:
                yield _frame(page, at).node(page)


class _Frame(NamedTuple):
    at: int
    flags: int
    key_length: int
    end: int

    def node(self, page: bytes) -> Node:
        return _node(page, self.at + FRAME, self.key_length, self.end, self.flags)


def _node(page: bytes, key_at: int, key_length: int, end: int, flags: int = 0) -> Node:
    value_at = key_at + key_length
    return Node(page[key_at:value_at], flags, page[value_at:end])


def _frame(page: bytes, at: int) -> _Frame:
    low, high, flags, key_length = memoryview(page)[at : at + FRAME].cast("H")
    return _Frame(at, flags, key_length, at + FRAME + key_length + (low | high << 16))


def _bounded(page: bytes) -> bool:
    """Whether its bounds can be right."""
    return HEAD < lower_of(page) <= upper_of(page) <= len(page)


def _pointers(page: bytes) -> tuple[list[int], bool]:
    """Those of a page that can be some, and whether they are certainly all."""
    if kind_of(page) in _OTHERS:
        return [], True
    words = memoryview(page).cast("H")
    lower, upper = lower_of(page), upper_of(page)
    found: list[int] = []
    lowest, filled, by_lower = len(page), 0, 0
    # One of both bounds, and nodes that fill all that is behind the lowest, are enough. Where
    # they differ it is the upper one: of a page filled in order so do those up to any pointer,
    # and there may be pointers to deleted nodes behind the last one.
    while HEAD + 2 * len(found) < lowest:
        at = words[HEAD // 2 + len(found)]
        if not _can_stand(page, at):
            break
        found.append(at)
        lowest = min(lowest, at)
        filled += _frame(page, at).end - at + 1 & ~1
        if filled == len(page) - lowest:
            if lowest == upper:
                return found, True
            if HEAD + 2 * len(found) == lower:
                by_lower = len(found)
    if by_lower:
        return found[:by_lower], True
    if not _bounded(page):
        return found, False
    told = dict.fromkeys(words[HEAD // 2 : lower // 2])
    return [at for at in told if at >= upper and _can_stand(page, at)], False


def _can_stand(page: bytes, at: int) -> bool:
    return at % 2 == 0 and HEAD <= at <= len(page) - FRAME


def _by_looks(page: bytes, key_length: int, start: int) -> Iterator[int]:
    """Where there are bytes like the frame of a plain node."""
    pattern = bytes(2) + key_length.to_bytes(2, sys.byteorder)  # its flags and key length
    at = page.find(pattern, start + 4)
    while at >= 0:
        begin = at - 4
        if begin % 2 == 0 and page[at - 2 : at] == b"\0\0" and _frame(page, begin).end <= len(page):
            yield begin
        at = page.find(pattern, at + 1)
