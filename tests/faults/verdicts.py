"""What came of a damaged image of a data file, at each stage of its examination."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class Stage(Enum):
    """What is done to an image, in this order."""

    READ = "reading"
    CHECK = "check"
    WRITE = "writing"
    REPAIR = "repair"


class Verdict(NamedTuple):
    """What came of an image."""

    number: int
    kind: str
    where: str
    right: bool = True
    """Whether all that was asked was answered as of the sound store."""
    errors: bool = False
    omissions: bool = False
    """Whether an answer was another one: jobs were left out, or a number was wrong."""
    older: bool = False
    """Whether a job was told as it was before."""
    before_last: bool = False
    """Whether all that was read is the state before the last transaction: the meta pages are
    damaged."""
    found: bool | None = None
    """Whether `check` found anything; None where it died."""
    crashes: tuple[str, ...] = ()
    """Stage and signal."""
    failures: tuple[str, ...] = ()
    """What must not be."""
    repaired: tuple[int, int, int] | None = None
    """How many jobs the repaired store has, how many are missing, how many are older."""
    undone: bool = False
    """Whether it is without the last transaction."""
