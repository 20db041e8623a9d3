"""What a store has given numbers to, made again of what is left: the names of workers, and
the counters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from quelmdb import layout, recordlayout
from quelmdb.maintenance.salvage import Salvage, pair_of
from quelmdb.persistence import Problem
from quelmdb.values import MAX_CHOSEN_ID, MAX_ID, MAX_OWNER

# How far a counter that is lost is moved beyond all that is seen to be in use: what it gave
# out last may have been deleted, and somebody may remember it.
_LEAP: Final = 2**16
_MOST: Final = {
    layout.NEXT_ID: MAX_ID,
    layout.NEXT_CLAIM: recordlayout.MAX_CLAIM,
    layout.NEXT_OWNER: MAX_OWNER,
    layout.NEXT_WORKER: layout.MAX_WORKER,
}

Report = Callable[[Problem], None]
_Pair = tuple[int, str]


class WorkerNames:
    """The names of workers, each of which stood twice, without a checksum."""

    def __init__(self, salvage: Salvage, report: Report) -> None:
        self._salvage = salvage
        self._report = report
        self._told: dict[int, list[str]] | None = None
        self.invented: dict[int, str] = {}
        """Names of numbers that have none any more."""
        forward = set(_pairs((number, name) for name, number in salvage.entries(layout.WORKERS)))
        backward = set(_pairs(salvage.entries(layout.WORKER_NAMES)))
        self._names: dict[int, str | None] = {layout.NO_WORKER: None}
        self._numbers: dict[str, int] = {}
        for number, name in sorted(forward & backward):
            self._add(number, name)
        self._settle((forward | backward) - (forward & backward))

    def __iter__(self) -> Iterator[tuple[int, str]]:
        """Number and name of each, ascending, None left out."""
        return ((number, name) for number, name in sorted(self._names.items()) if name is not None)

    def known(self, number: int) -> bool:
        """Whether a number has a name that was found."""
        return number in self._names and number not in self.invented

    def name(self, number: int) -> str | None:
        """The name of a number in use: invented where none is left."""
        if number not in self._names:
            self._find(number)
        return self._names[number]

    def _settle(self, doubtful: set[_Pair]) -> None:
        """Pairs that one of both databases has. What other pages have both ways is right; else,
        where neither number nor name has another, the other database has lost it."""
        if not doubtful:
            return
        for number in sorted({number for number, _ in doubtful}):
            self._add_witnessed(number)
        rivals = [
            (number, name)
            for number, name in sorted(doubtful)
            if number not in self._names and name not in self._numbers
        ]
        numbers = Counter(number for number, _ in rivals)
        names = Counter(name for _, name in rivals)
        for number, name in rivals:
            if numbers[number] == names[name] == 1:
                self._add(number, name)
        told = ", ".join(f"{number} {name!r}" for number, name in sorted(doubtful)[:10])
        self._report(
            Problem("worker names", f"their two databases do not agree, among others on {told}")
        )

    def _add_witnessed(self, number: int) -> None:
        """The name that pages, also old ones, have for a number, and the number for the name,
        if it is one alone. Never a guess."""
        if number not in self._names:
            names = self._witnesses().get(number, ())
            if len(names) == 1:
                self._add(number, names[0])

    def _find(self, number: int) -> None:
        """A number that has no name in either database, or several."""
        self._add_witnessed(number)
        if number in self._names:
            return
        name = f"unknown-worker-{number}"
        while name in self._numbers:
            name += "-"
        self._add(number, name)
        self.invented[number] = name
        self._report(
            Problem("worker names", f"the worker with the number {number} is now {name!r}")
        )

    def _witnesses(self) -> dict[int, list[str]]:
        if self._told is None:
            self._told = {}
            for number, name in self._salvage.witnesses():
                self._told.setdefault(number, []).append(name)
        return self._told

    def _add(self, number: int, name: str) -> None:
        if number not in self._names and name not in self._numbers:
            self._names[number] = name
            self._numbers[name] = number


def _pairs(entries: Iterable[tuple[bytes, bytes]]) -> Iterator[_Pair]:
    return (pair for number, name in entries if (pair := pair_of(number, name)))


class Used:
    """The largest number of each kind that is in use."""

    def __init__(self) -> None:
        self._largest = dict.fromkeys(_MOST, 0)
        self._aside = 0

    def see(self, counter: bytes, number: int) -> None:
        """A number that is in use."""
        self._largest[counter] = max(self._largest[counter], number)

    def see_aside(self, job_id: int) -> None:
        """The id of something that was set aside, which may be damaged itself."""
        if job_id <= MAX_CHOSEN_ID:
            self._aside = max(self._aside, job_id)

    def counters(self, meta: dict[bytes, bytes], report: Report) -> list[tuple[bytes, bytes]]:
        """What the counters are now: those of `meta`, where they are above all in use."""
        found = []
        for name, largest in self._largest.items():
            stored = meta.get(name, b"")
            value = layout.unpack_number(stored) if len(stored) == layout.NUMBER_BYTES else 0
            if not largest < value <= _MOST[name] + 1:
                if name == layout.NEXT_ID:
                    largest = max(largest, self._aside)
                value = min(largest + _LEAP, _MOST[name] + 1)
                report(Problem("counters", f"{name.decode()} is lost; it goes on with {value}"))
            found.append((name, layout.pack_number(value)))
        return found
