"""Damaged images of the data file of a specimen."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from typing import Final, NamedTuple

from quelmdb.pages import BRANCH, HEAD, kind_of, lower_of
from tests.damage import PAGE
from tests.faults.specimens import Piece, Specimen

_SECTOR: Final = 512
_METAS: Final = {0, 1}
_CHILD: Final = 4  # bytes that tell a page below another; two more do for more than 16 TiB
_FRAME: Final = 64  # the first bytes of a page: its head, and where its first nodes stand


class Image(NamedTuple):
    """A damaged copy of a data file."""

    kind: str
    where: str
    data: bytes

    def hides_the_last_state(self, whole: Specimen) -> bool:
        """Whether a meta page is damaged, or else both the page that tells where its databases
        are and the list of free pages, without which nothing tells what is in use."""
        damaged = {
            number
            for number in whole.used
            if not whole.data.startswith(self._page(number), number * PAGE)
        }
        return bool(damaged & _METAS or (whole.main in damaged and damaged & whole.free))

    def shows_an_older_state(self, whole: Specimen) -> bool:
        """Whether a meta page is as it was before. Beside that of the transaction behind it, it
        is that of a sound store."""
        return any(self._page(number) in whole.older.get(number, ()) for number in _METAS)

    def has(self, piece: Piece, whole: Specimen) -> bool:
        """Whether it is in its place, or its page in the place of another."""
        here = piece.page * PAGE + piece.at
        if self.data.startswith(piece.key + piece.value, here):
            return True
        page = whole.data[piece.page * PAGE : (piece.page + 1) * PAGE]
        return any(self.data.startswith(page, other * PAGE) for other in whole.used)

    def _page(self, number: int) -> bytes:
        return self.data[number * PAGE : (number + 1) * PAGE]


def random_image(seed: int, whole: Specimen, number: int) -> Image:
    """Any one."""
    rng = random.Random(f"{seed} {number}")
    kind = rng.choices(list(_KINDS), _WEIGHTS)[0]
    data = bytearray(whole.data)
    where = _KINDS[kind](whole, rng, data)
    return Image(kind, where, bytes(data))


def with_several_faults(seed: int, whole: Specimen, number: int) -> Image:
    """One with two to four of any faults, also such as no single one makes."""
    rng = random.Random(f"{seed} {number}")
    data = bytearray(whole.data)
    faults = _KINDS | _OF_TREES
    kinds = rng.choices([*faults], k=rng.randrange(2, 5))
    where = [faults[kind](whole, rng, data) for kind in kinds]
    return Image(STALE if STALE in kinds else SEVERAL, "; ".join(where), bytes(data))


def lost_write(whole: Specimen, number: int) -> Image:
    """One of as many as `lost_writes` counts."""
    page, old = [(page, old) for page in whole.older for old in whole.older[page]][number]
    data = whole.data[: page * PAGE] + old + whole.data[(page + 1) * PAGE :]
    return Image(STALE, f"page {page} as it was before", data)


def lost_writes(whole: Specimen) -> int:
    """How many images there are with one of them."""
    return sum(map(len, whole.older.values()))


def _flip(whole: Specimen, rng: random.Random, data: bytearray) -> str:
    """Half of them in the frame of a page, where LMDB has no checksum to ask."""
    place = rng.choice(whole.used) * PAGE + rng.randrange(rng.choice((_FRAME, PAGE)))
    bit = rng.randrange(8)
    data[place] ^= 1 << bit
    return f"bit {bit} of byte {place % PAGE} of page {place // PAGE}"


def _flip_several(whole: Specimen, rng: random.Random, data: bytearray) -> str:
    return ", ".join(_flip(whole, rng, data) for _ in range(rng.randrange(2, 17)))


def _swap(whole: Specimen, rng: random.Random, data: bytearray) -> str:
    one, other = rng.sample(whole.used, 2)
    here, there = (slice(page * PAGE, (page + 1) * PAGE) for page in (one, other))
    data[here], data[there] = data[there], data[here]
    return f"pages {one} and {other} swapped"


def _zero_a_sector(whole: Specimen, rng: random.Random, data: bytearray) -> str:
    place = rng.choice(whole.used) * PAGE + rng.randrange(PAGE // _SECTOR) * _SECTOR
    data[place : place + _SECTOR] = bytes(_SECTOR)
    return f"zeros from byte {place % PAGE} of page {place // PAGE}"


def _lose_a_write(whole: Specimen, rng: random.Random, data: bytearray) -> str:
    page = rng.choice(list(whole.older))
    data[page * PAGE : (page + 1) * PAGE] = rng.choice(whole.older[page])
    return f"page {page} as it was before"


def _change_a_child(whole: Specimen, rng: random.Random, data: bytearray) -> str:
    branch = rng.choice([number for number in whole.used if _children(data, number)])
    place, child = rng.choice(_children(data, branch))
    return _point(data, place, rng.choice(whole.used), f"instead of {child} below {branch}")


def _skip_a_level(whole: Specimen, rng: random.Random, data: bytearray) -> str:
    """Keys are in order then, and one page stands where many should."""
    below = {
        (place, child): _children(data, child)
        for branch in whole.used
        for place, child in _children(data, branch)
    }
    places = [key for key, children in below.items() if children]
    if not places:
        return "no tree has three levels any more"
    place, child = rng.choice(places)
    return _point(data, place, rng.choice(below[place, child])[1], f"instead of {child}, its own")


def _point(data: bytearray, place: int, to: int, told: str) -> str:
    data[place : place + _CHILD] = to.to_bytes(_CHILD, sys.byteorder)
    return f"page {to} {told}"


def _children(data: bytearray, number: int) -> list[tuple[int, int]]:
    """Where a branch page names the pages below it, and which; none of any other page."""
    page = bytes(data[number * PAGE : (number + 1) * PAGE])
    lower = lower_of(page)
    if number in _METAS or kind_of(page) != BRANCH or not HEAD < lower <= PAGE or lower % 2:
        return []
    pointers = memoryview(page)[HEAD:lower].cast("H")
    return [
        (number * PAGE + at, int.from_bytes(page[at : at + _CHILD], sys.byteorder))
        for at in pointers
        if at + _CHILD <= PAGE
    ]


FLIPS: Final = ("a flipped bit", "several of them")
STALE: Final = "a lost write"
_KINDS: Final[dict[str, Callable[[Specimen, random.Random, bytearray], str]]] = {
    FLIPS[0]: _flip,
    FLIPS[1]: _flip_several,
    "two pages swapped": _swap,
    "a zeroed sector": _zero_a_sector,
    STALE: _lose_a_write,
}
SEVERAL: Final = "several faults"
_OF_TREES: Final = {"another child": _change_a_child, "a level skipped": _skip_a_level}
_WEIGHTS: Final = (7, 1, 1, 1, 1)
