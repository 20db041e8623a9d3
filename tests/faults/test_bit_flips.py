"""Damaged data files: an error, a right answer, or an omission that `check` finds; never
another job or an altered one; of `check` and repair never a crash of the interpreter."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path
from typing import Final

import pytest

from quelmdb.maintenance.offline import repair_store
from quelmdb.pages import Pages
from tests.children import Child
from tests.damage import PAGE, data_file
from tests.faults.examining import Source, serve
from tests.faults.figures import Tell
from tests.faults.images import (
    FLIPS,
    STALE,
    lost_write,
    lost_writes,
    random_image,
    with_several_faults,
)
from tests.faults.seeds import new_seed
from tests.faults.specimens import Specimen, deep, everything, specimen
from tests.faults.verdicts import Stage, Verdict

pytest_plugins = ["tests.fixtures"]

_IN_MEMORY: Final = Path("/dev/shm")
_OFTEN: Final = 8  # of so many images one is repaired
_FLIPPED: Final = 10_000  # images of the long form with flipped bits, at least; about 7 of 10 are
_SEVERAL: Final = 2_000  # images of the long form with several faults
_DEADLY: Final = {"SIGABRT", "SIGSEGV", "SIGBUS"}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """Where images are made: in memory, where that can be had."""
    if not os.access(_IN_MEMORY, os.W_OK):
        yield tmp_path
        return
    place = Path(tempfile.mkdtemp(dir=_IN_MEMORY))
    yield place
    shutil.rmtree(place)


def test_damage_never_makes_another_job_or_alters_one_and_check_finds_what_is_left_out(
    place: Path, long: bool, figure: Tell
) -> None:
    """Flipped bits, swapped pages, zeroed sectors, lost writes. A page that is as it was before
    has jobs as they were before: such a job is told as what it was, and not as any other. Where
    the meta pages are damaged all may be as it was before the last transaction: `check` finds
    it, and repair brings it back, or says that it is undone."""
    images = _FLIPPED * 3 // 2 if long else 120
    seed = new_seed()
    whole = specimen(place / "whole.qdb", everything)
    source = partial(random_image, seed)
    verdicts = list(_verdicts(whole, place, source, range(images), _OFTEN))
    assert len(verdicts) == images
    flipped = sum(verdict.kind in FLIPS for verdict in verdicts)
    assert flipped >= (_FLIPPED if long else images / 2)
    failed = [verdict for verdict in verdicts if verdict.failures]
    assert not failed, failed[:3]
    deaths = Counter(crash for verdict in verdicts for crash in verdict.crashes)
    assert {crash.partition(": ")[2] for crash in deaths} <= _DEADLY, deaths
    of = Counter(dict.fromkeys(Stage, 0))
    for crash, count in deaths.items():
        of[Stage(crash.partition(": ")[0])] += count
    assert of[Stage.CHECK] == of[Stage.REPAIR] == 0, deaths
    assert Counter(map(_outcome, verdicts))["crash"] < images / 2
    figure(_told(verdicts, of))


def test_a_list_of_free_pages_that_is_as_it_was_before_costs_no_job(place: Path) -> None:
    """Pages that are in use stand in it."""
    whole = specimen(place / "whole.qdb", everything)
    with Pages(data_file(place / "whole.qdb")) as pages:
        root = pages.metas[0].free.root
    assert root is not None
    for number, old in enumerate(whole.older[root]):
        path = place / str(number)
        data_file(path).parent.mkdir(parents=True)
        data_file(path).write_bytes(
            whole.data[: root * PAGE] + old + whole.data[root * PAGE + PAGE :]
        )
        assert repair_store(path).kept == len(whole.jobs)


def test_whichever_write_is_lost_a_repair_costs_no_job(
    place: Path, long: bool, figure: Tell
) -> None:
    """Of what stands on the page that was to be written there may be an older record left."""
    whole = specimen(place / "whole.qdb", everything)
    writes = range(0, lost_writes(whole), 1 if long else 8)
    verdicts = list(_verdicts(whole, place, lost_write, writes, 1))
    assert len(verdicts) == len(writes)
    failed = [verdict for verdict in verdicts if verdict.failures or not verdict.repaired]
    assert not failed, failed[:3]
    figure(
        f"{len(verdicts)} of {lost_writes(whole)} that may be lost, each repaired: "
        f"{_kept(verdicts)}"
    )


def test_several_faults_at_once_cost_no_job_that_is_whole(
    place: Path, long: bool, figure: Tell
) -> None:
    """In a store with a tree of three levels, where one page may stand for many; all repaired."""
    whole = specimen(place / "whole.qdb", deep)
    seed = new_seed()
    images = _SEVERAL if long else 40
    source = partial(with_several_faults, seed)
    verdicts = list(_verdicts(whole, place, source, range(images), 1))
    assert len(verdicts) == images
    failed = [verdict for verdict in verdicts if verdict.failures or not verdict.repaired]
    assert not failed, failed[:3]
    crashed = Counter(crash.partition(": ")[0] for v in verdicts for crash in v.crashes)
    assert crashed.keys() <= {Stage.READ.value, Stage.WRITE.value}, crashed
    figure(
        f"{images:,} images of a store with {len(whole.jobs):,} jobs, each with two to four "
        f"faults, each repaired: {_kept(verdicts)}"
    )


def _verdicts(
    whole: Specimen, place: Path, source: Source, numbers: range, often: int
) -> Iterator[Verdict]:
    """Of all images, which as many processes look at as there are processors."""
    count = os.cpu_count() or 1
    with ExitStack() as stack:
        servers = {}
        for number in range(count):
            work = (place / f"{number}", whole, source, numbers[number::count], often)
            server = stack.enter_context(Child(serve, *work, method="spawn"))
            servers[server.pipe] = server
        while servers:
            for pipe in wait(list(servers)):
                verdict = servers[pipe].receive()
                if verdict is None:
                    del servers[pipe]
                else:
                    yield verdict


def _told(verdicts: list[Verdict], crashes: Counter[Stage]) -> str:
    outcomes = Counter(map(_outcome, verdicts))
    older = sum(verdict.older for verdict in verdicts)
    kinds = Counter(verdict.kind for verdict in verdicts)
    unfound = sum(verdict.found is False and not verdict.right for verdict in verdicts)
    repaired = sum(verdict.repaired is not None for verdict in verdicts)
    undone = sum(verdict.undone for verdict in verdicts)
    back = sum(v.before_last and v.repaired is not None and not v.undone for v in verdicts)
    flipped = sum(kinds[kind] for kind in FLIPS)
    return (
        f"{len(verdicts):,} images, {flipped:,} of them with flipped bits "
        f"({', '.join(f'{n:,} {kind}' for kind, n in kinds.items())}): "
        f"{outcomes['right']:,} right answers, {outcomes['errors']:,} errors, "
        f"{outcomes['omissions']:,} omissions found by check, {outcomes['before']:,} answers as "
        f"before the last transaction (damaged meta pages), 0 wrong jobs; of {older:,} images a "
        f"job was told as it was before ({unfound:,} of {kinds[STALE]:,} lost writes are not found "
        f"by check); {crashes[Stage.READ]:,} crashes of readers, {crashes[Stage.WRITE]:,} of "
        f"writers, 0 of check; {repaired:,} repaired: {_kept(verdicts)}; "
        f"{back:,} times the last transaction is brought back, {undone:,} times told as undone"
    )


def _kept(verdicts: list[Verdict]) -> str:
    """Of those that were repaired."""
    repaired = (verdict.repaired for verdict in verdicts if verdict.repaired)
    jobs, missing, old = map(sum, zip(*repaired, strict=True))
    return (
        f"{jobs:,} jobs kept, {missing:,} of damaged pages set aside, {old:,} as they were "
        "before, 0 altered"
    )


def _outcome(verdict: Verdict) -> str:
    if any(crash.startswith(Stage.READ.value) for crash in verdict.crashes):
        return "crash"
    if verdict.right:
        return "right"
    if verdict.before_last and not verdict.older:
        return "before"
    return "omissions" if verdict.omissions or verdict.older else "errors"
