"""What a store promises of a write that has returned, chosen when it is created.

    name        survives                                            costs
    full        the death of any process, a crash of the system,   two syncs of the disk
                loss of power                                       a transaction
    ephemeral   the death of any process                            no sync; all of its
                                                                    capacity on the disk

An ephemeral store is for what can be made again (a queue whose source is elsewhere):
when the system stops without a warning, its file is whatever had reached the disk. It
is verified before it is served again, and refused where that fails (`boot`).
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple, get_args

from quelmdb.errors import DurabilityError

Durability = Literal["full", "ephemeral"]

FULL: Final = "full"
EPHEMERAL: Final = "ephemeral"

DEFAULT_CAPACITY: Final = 2**30
SMALLEST_CAPACITY: Final = 4 * 2**20
LARGEST_CAPACITY: Final = 2**40
_PAGES: Final = 2**16  # a capacity is a multiple of it, whatever the size of a page


class Wanted(NamedTuple):
    """What an opener asks for; None is whatever the store has."""

    durability: Durability | None
    capacity: int | None

    def for_new(self) -> tuple[Durability, int | None]:
        """Durability and capacity (None where it has no bound) of a store that is to be made."""
        if self.durability == EPHEMERAL:
            return EPHEMERAL, self.capacity or DEFAULT_CAPACITY
        if self.capacity is not None:
            raise _no_capacity()
        return FULL, None

    def refuse_other(self, path: str, durability: str, capacity: int | None) -> None:
        """Raises `DurabilityError` where a store is not what is asked for."""
        if self.durability not in (None, durability):
            raise DurabilityError(
                f"{path} was created with the durability {durability!r}, and {self.durability!r} "
                "is asked for; it holds for every process, so open it without naming one, or "
                "load a dump of it into a new store",
                path=path,
                expected=self.durability,
                found=durability,
            )
        if self.capacity is None:
            return
        if capacity is None:
            raise DurabilityError(
                f"{path} was created with the durability {durability!r}, which has no capacity: "
                f"it grows as it is used; {self.capacity:,} bytes are asked for; open it without "
                "naming any",
                path=path,
                expected=self.capacity,
            )
        if self.capacity != capacity:
            raise DurabilityError(
                f"{path} was created with a capacity of {capacity:,} bytes, and {self.capacity:,} "
                "are asked for; open it without naming one (`compact` gives it a larger one, and a "
                "dump loaded into a new store any)",
                path=path,
                expected=self.capacity,
                found=capacity,
            )


def wanted(durability: Durability | None, capacity: int | None) -> Wanted:
    """Checks what an opener asks for; the capacity is rounded up to 64 KiB.

    Raises `DurabilityError`.
    """
    known = get_args(Durability)
    if durability is not None and durability not in known:
        raise DurabilityError(
            f"unknown durability {durability!r}; known are {', '.join(map(repr, known))}",
            expected=known,
            found=durability,
        )
    if capacity is None:
        return Wanted(durability, None)
    if durability == FULL:
        raise _no_capacity()
    if type(capacity) is not int or not SMALLEST_CAPACITY <= capacity <= LARGEST_CAPACITY:
        raise DurabilityError(
            f"a capacity is between {SMALLEST_CAPACITY:,} and {LARGEST_CAPACITY:,} bytes, "
            f"not {capacity!r}",
            expected=(SMALLEST_CAPACITY, LARGEST_CAPACITY),
            found=capacity,
        )
    return Wanted(durability, -(-capacity // _PAGES) * _PAGES)


def _no_capacity() -> DurabilityError:
    return DurabilityError("only an ephemeral store has a capacity; a full one grows as it is used")
