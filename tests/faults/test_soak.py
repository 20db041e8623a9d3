"""A store that is used in every way for long stays as it is: as fast, as large, as clean."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from quelmdb.filesystem import MIB
from tests.durabilities import full_and_ephemeral
from tests.faults.figures import Tell
from tests.faults.seeds import new_seed
from tests.faults.soaking import Soaked, soak

pytest_plugins = ["tests.fixtures"]

SECONDS: Final = 900.0  # of each of both durabilities
FEW_SECONDS: Final = 3.0

_DURABILITIES: Final = full_and_ephemeral(64 * MIB)


# What a measure may have grown to, as a part of what it was, in the long form and, of which a
# tenth is no more than a few looks, in the short one; and by how much in any case.
_MOST: Final = {
    "file": (1.3, 3.0, MIB),
    "directory": (1.3, 3.0, 9 * MIB),  # two generations with their reserves, or one
    "memory": (1.3, 1.5, 2 * MIB),
    "descriptors": (1.0, 1.0, 2),
    "threads": (1.0, 1.0, 1),
    "readers": (1.0, 1.0, 8),
    "owners": (1.0, 1.0, 2),
}
_LEAST_RATE: Final = 0.5


def assert_level(soaked: Soaked, *, long: bool) -> None:
    """That nothing has grown, or slowed down."""
    form = 0 if long else 1
    for name, (*most, more) in _MOST.items():
        early, late = soaked.early(name), soaked.late(name)
        assert late <= max(early * most[form], early + more), f"{name}: {early:,} {late:,}"
    if long:
        assert soaked.late_rate() >= soaked.early_rate() * _LEAST_RATE


def told(seconds: float, soaked: Soaked) -> str:
    def mib(name: str) -> str:
        return f"{soaked.early(name) / MIB:.1f}, {soaked.late(name) / MIB:.1f} MiB"

    duration = f"{seconds / 60:.0f} min" if seconds >= 60 else f"{seconds:.0f} s"
    return (
        f"{duration}, 4 processes: {soaked.jobs:,} jobs; claims a second "
        f"{soaked.early_rate():,.0f} at first, {soaked.late_rate():,.0f} at last; "
        f"file {mib('file')}; memory a process {mib('memory')}; "
        f"descriptors {soaked.early('descriptors'):.0f}, {soaked.late('descriptors'):.0f}; "
        f"{soaked.compactions} compactions, {soaked.backups} backups, {soaked.kills} kills"
    )


@pytest.mark.parametrize("durability", _DURABILITIES)
def test_a_store_that_is_used_for_long_neither_grows_nor_slows_down(
    durability: str, long: bool, path: Path, figure: Tell
) -> None:
    seed = new_seed()
    seconds = SECONDS if long else FEW_SECONDS
    soaked = soak(path, seconds, seed, **_DURABILITIES[durability])
    for look in soaked.looks:
        print(look)
    print(told(seconds, soaked))
    assert_level(soaked, long=long)
    figure(f"{durability}, {told(seconds, soaked)}")
