"""A disk that loses power: what a process did to the files of a directory is recorded, and the
directory rebuilt as it may be found after a loss of power at any moment.

The model, of a local file system with a journal (ext4, XFS) on a disk that keeps what it has
acknowledged to a flush:

- What was written to a file is durable once an fsync or fdatasync of that file that began
  afterwards has returned; so is its size. Before that any part of it may be there, in any order,
  in sectors of 512 bytes, each of them whole. What is written through a descriptor with O_DSYNC
  is durable when it returns, itself alone.
- A name (of a new file or directory, a new name of one, a deletion) is durable once an fsync of
  the directory that it stands in has returned. Before that it may be lost. A journal
  keeps the order of names: those that survive are the first ones. The tests also try any subset of
  them, which is more than such a file system does. A new name comes with the loss of the old one,
  or not at all.
- A file whose name is durable may be empty still, and one that was synced be without its name.
- After an fsync or fdatasync that failed, what was written before it may be durable or not, and may
  have been dropped by the kernel without another try: a later sync says nothing about it. A
  write through a descriptor with O_DSYNC that failed may be durable or not; who reads the file
  sees it.
- What is mapped (lock.mdb, `wakeup`) is never synced: after a loss of power they have the
  size that they had been given, and zeros.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from tests.faults.recorder import Event

PAGE: Final = 4096
SECTOR: Final = 512

# --- Files as they are on the disk ------------------------------------------------


class Change(NamedTuple):
    """Of a file: a write, or a new size."""

    offset: int
    data: bytes | None
    """None: the size becomes `offset`."""

    def split(self, size: int) -> Iterator[Change]:
        """The same in parts that do not cross a multiple of `size`."""
        if self.data is None:
            yield self
            return
        place = self.offset
        while place < self.offset + len(self.data):
            end = min((place // size + 1) * size, self.offset + len(self.data))
            yield Change(place, self.data[place - self.offset : end - self.offset])
            place = end


@dataclass
class Content:
    """A file: pages that are not all zeros, and its size."""

    size: int = 0
    pages: dict[int, bytes] = field(default_factory=dict)

    def changed(self, changes: Iterable[Change]) -> Content:
        content = Content(self.size, dict(self.pages))
        for change in changes:
            content._change(change)
        return content

    def _change(self, change: Change) -> None:
        if change.data is None:
            self.size = change.offset
            for number in [each for each in self.pages if each * PAGE >= self.size]:
                del self.pages[number]
            return
        for part in change.split(PAGE):
            number, start = divmod(part.offset, PAGE)
            page = bytearray(self.pages.get(number, bytes(PAGE)))
            page[start : start + len(part.data or b"")] = part.data or b""
            self.pages[number] = bytes(page)
        self.size = max(self.size, change.offset + len(change.data))

    def write(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.ftruncate(descriptor, self.size)
            for number, page in self.pages.items():
                os.pwrite(descriptor, page[: self.size - number * PAGE], number * PAGE)
        finally:
            os.close(descriptor)


Names = dict[tuple[int, str], int | None]
"""What stands under names of directories: numbers of files and directories, None for nothing."""

Image = dict[str, Content | None]
"""A directory: paths and files; None is a directory."""

_ROOT: Final = 0


class Disk:
    """What is durable of a directory, and what may be, after each event."""

    def __init__(self, rng: random.Random | None = None) -> None:
        """`rng` decides what becomes of what has failed."""
        self._rng = rng or random.Random(0)
        self.ignored: tuple[str, ...] = ()
        """The last parts of paths whose syncs do nothing, as on a broken disk."""
        self._current: Names = {}
        self._durable: Names = {}
        self._files: dict[int, Content] = {}
        self._numbers = 0
        self.names: list[Names] = []
        """Changes that are not durable, in their order: what is in one comes together."""
        self.changes: dict[int, list[Change]] = {}
        """The same of files."""

    def apply(self, event: Event) -> None:
        match event.kind:
            case "create" | "mkdir":
                self._numbers += 1
                if event.kind == "create":
                    self._files[self._numbers] = Content()
                    self.changes[self._numbers] = []
                self._rename({self._place(event.path): self._numbers})
            case "rename":
                moved = self._number(event.path)
                self._rename({self._place(event.path): None, self._place(event.data): moved})
            case "remove":
                self._rename({self._place(event.path): None})
            case "write" | "size" if (number := self._number(event.path)) is not None:
                data = event.data if event.kind == "write" else None
                change = Change(event.offset if event.kind == "write" else event.data, data)
                if event.is_durable:
                    self._files[number] = self._files[number].changed([change])
                else:
                    self.changes[number].append(change)
            case "not synced" if (number := self._number(event.path)) is not None:
                tried = self.changes[number]
                self.changes[number] = [each for each in tried if self._rng.random() < 0.5]
            case "doubtful" if (number := self._number(event.path)) is not None:
                if self._rng.random() < 0.5:
                    change = Change(event.offset, event.data)
                    self._files[number] = self._files[number].changed([change])
            case "sync" if not event.path.endswith(self.ignored):
                self._sync(self._number(event.path))

    def image(self, names: Iterable[Names], changes: dict[int, list[Change]]) -> Image:
        """The directory with these of the changes that are not durable."""
        tree = dict(self._durable)
        for each in names:
            tree.update(each)
        found: Image = {}
        below = [(_ROOT, "")]
        while below:
            parent, path = below.pop()
            for (directory, name), number in tree.items():
                if directory == parent and number is not None:
                    if number in self._files:
                        content = self._files[number].changed(changes.get(number, ()))
                        found[path + name] = content
                    else:
                        found[path + name] = None
                        below.append((number, path + name + "/"))
        return found

    def number(self, path: str) -> int:
        """Of a file or directory that there is."""
        found = self._number(path)
        assert found is not None
        return found

    def _rename(self, names: Names) -> None:
        self._current.update(names)
        self.names.append(names)

    def _sync(self, number: int | None) -> None:
        if number is None:
            return
        if number in self._files:
            self._files[number] = self._files[number].changed(self.changes[number])
            self.changes[number] = []
            return
        for names in self.names:
            if any(directory == number for directory, _ in names):
                self._durable.update(names)
        self.names = [
            names for names in self.names if all(directory != number for directory, _ in names)
        ]

    def _place(self, path: str) -> tuple[int, str]:
        parent, _, name = path.rpartition("/")
        return self.number(parent), name

    def _number(self, path: str) -> int | None:
        """None where it was deleted."""
        number: int | None = _ROOT
        for name in path.split("/") if path not in ("", ".") else ():
            if number is None:
                return None
            number = self._current.get((number, name))
        return number


def write_image(image: Image, place: Path) -> None:
    """Makes it a directory, which is not there yet."""
    place.mkdir(0o700)
    for path, content in sorted(image.items()):
        if content is None:
            (place / path).mkdir(0o700)
        else:
            content.write(place / path)


def fingerprint(image: Image) -> int:
    """The same for equal ones alone, about."""
    return hash(
        frozenset(
            (path, content and (content.size, frozenset(content.pages.items())))
            for path, content in image.items()
        )
    )


# --- What may be left of what is not durable ---------------------------------------


def parts_kept(changes: Sequence[Change], rng: random.Random) -> Iterator[list[Change]]:
    """What may have been written of them: none, all, each page alone missing or alone there, the
    last alone, random pages, random sectors, and each write torn: up to a sector or to a page."""
    pages = [part for change in changes for part in change.split(PAGE)]
    yield []
    yield list(pages)
    for number, page in enumerate(pages):
        yield [page]
        yield pages[:number] + pages[number + 1 :]
    yield pages[-1:]
    for likely in (0.2, 0.5, 0.8):
        yield [page for page in pages if rng.random() < likely]
    for number, change in enumerate(changes):
        for size in (SECTOR, PAGE):
            torn = list(change.split(size))
            yield [*changes[:number], *torn[: rng.randrange(len(torn) + 1)]]
    sectors = [part for change in changes for part in change.split(SECTOR)]
    for likely in (0.1, 0.5, 0.9):
        yield [sector for sector in sectors if rng.random() < likely]


def names_kept(names: Sequence[Names], rng: random.Random) -> Iterator[list[Names]]:
    """Which changes of names may have come into the journal: the first ones; and any of them."""
    for count in range(len(names) + 1):
        yield list(names[:count])
    for _ in range(len(names) and 4):
        yield [each for each in names if rng.random() < 0.5]
