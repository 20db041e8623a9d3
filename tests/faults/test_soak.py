"""A store that is used in every way for long stays as it is: as fast, as large, as clean."""

from __future__ import annotations

import os
from operator import attrgetter
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from quelmdb import Compacted, Store
from quelmdb.filesystem import MIB
from tests.durabilities import full_and_ephemeral
from tests.faults.figures import Tell
from tests.faults.seeds import new_seed
from tests.faults.soaking import KEEPER, PROCESSES, Measure, Soaked, of_process, soak

pytest_plugins = ["tests.fixtures"]

SECONDS: Final = 1800.0  # of each of both durabilities
FEW_SECONDS: Final = 3.0

_DURABILITIES: Final = full_and_ephemeral(64 * MIB)


class Most(NamedTuple):
    """What a measure may have grown to, as a part of what it was, in the long form and, of which
    a tenth is no more than a few looks, in the short one; and by how much in any case."""

    at_length: float
    in_short: float
    more: int


_OF_STORE: Final = {
    "file": Most(1.15, 3.0, 2 * MIB),  # at any moment it is as many jobs as happen to be there
    "directory": Most(1.15, 3.0, 9 * MIB),  # two generations with their reserves, or one
    "readers": Most(1.0, 1.0, 8),
    "owners": Most(1.0, 1.0, 2),
}
_OF_PROCESS: Final = {
    "memory": Most(1.15, 1.5, 2 * MIB),
    "descriptors": Most(1.0, 1.0, 2),
    "threads": Most(1.0, 1.0, 1),
}
_LEAST_RATE: Final = 0.7


def assert_level(soaked: Soaked, *, long: bool) -> None:
    """That nothing has grown, or slowed down: the store, and each process by itself."""
    for name, most in _OF_STORE.items():
        _assert_level(name, attrgetter(name), most, soaked, long=long)
    for process in PROCESSES:
        for name, most in _OF_PROCESS.items():
            measure = of_process(process, name)
            _assert_level(f"{name} of {process}", measure, most, soaked, long=long)
    if long:
        assert soaked.late_rate() >= soaked.early_rate() * _LEAST_RATE


def _assert_level(name: str, measure: Measure, most: Most, soaked: Soaked, *, long: bool) -> None:
    early, late = soaked.early(measure), soaked.late(measure)
    factor = most.at_length if long else most.in_short
    assert late <= max(early * factor, early + most.more), f"{name}: {early:,} {late:,}"


def told(seconds: float, soaked: Soaked) -> str:
    def mib(measure: Measure) -> str:
        return f"{soaked.early(measure) / MIB:.1f}, {soaked.late(measure) / MIB:.1f} MiB"

    def of(process: str) -> str:
        descriptors = of_process(process, "descriptors")
        return (
            f"{process}: memory {mib(of_process(process, 'memory'))}, "
            f"descriptors {soaked.early(descriptors):.0f}, {soaked.late(descriptors):.0f}"
        )

    duration = f"{seconds / 60:.0f} min" if seconds >= 60 else f"{seconds:.0f} s"
    return (
        f"{duration}, 4 processes: {soaked.jobs:,} jobs; at first and at last: "
        f"claims a second {soaked.early_rate():,.0f}, {soaked.late_rate():,.0f}; "
        f"file {mib(attrgetter('file'))}; {'; '.join(map(of, PROCESSES))}; "
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


def test_a_leak_in_what_the_keeper_alone_does_is_found(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compact = Store.compact

    def leaking(store: Store) -> Compacted:
        for _ in range(10):
            os.dup(0)
        return compact(store)

    monkeypatch.setattr(Store, "compact", leaking)  # in the keeper, too, which is forked
    soaked = soak(path, FEW_SECONDS, new_seed())
    with pytest.raises(AssertionError, match=f"descriptors of {KEEPER}"):
        assert_level(soaked, long=False)
