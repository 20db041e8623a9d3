"""The comparison of runners works, part by part, and its report says what was measured."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from bench.compare.harness import Timing
from bench.compare.peer import Durability
from bench.runners.__main__ import main
from bench.runners.contenders import CONTENDERS, HUEY, OURS, OURS_EPHEMERAL, OURS_FULL, ours
from bench.runners.figures import Delays, Figures
from bench.runners.processes import Runner, noted
from bench.runners.reach import reach
from bench.runners.render import report

HUEY_UNSYNCED = "huey fsync=False"


def _small(output: Path, *arguments: str) -> Figures:
    directory = output / "stores"
    directory.mkdir()
    main(["--small", "--output", str(output), "--directory", str(directory), *arguments])
    assert not any(directory.iterdir())
    figures = Figures.read(output / "runners.json")
    assert (output / "RUNNERS.md").read_text() == report(figures)
    return figures


def test_no_op_jobs_are_timed_for_every_family(tmp_path: Path) -> None:
    names = [OURS_EPHEMERAL, HUEY_UNSYNCED, "litequeue"]
    figures = _small(tmp_path, "--only", "throughput", "--contenders", *names)
    assert list(figures.throughput) == names
    assert all(0 < timing.best < 0.1 for timing in figures.throughput.values())


def test_an_idle_runner_is_timed_and_looked_at(tmp_path: Path) -> None:
    names = [OURS_EPHEMERAL, HUEY_UNSYNCED]
    figures = _small(tmp_path, "--only", "live", "--contenders", *names, "litequeue")
    assert [*figures.starts] == [*figures.adds] == [*figures.idle] == names
    for name in names:
        assert 0 < figures.adds[name].p50 < figures.starts[name].worst < 20
        assert 0 <= figures.idle[name].best < 2


def test_waiting_is_timed_for_both_durabilities(tmp_path: Path) -> None:
    figures = _small(tmp_path, "--only", "wait")
    for durability in Durability:
        after_return = figures.wait_after_return[durability]
        after_call = figures.wait_after_call[durability]
        assert 0 <= after_return.p50 <= after_call.p50 <= after_call.worst
        assert figures.wait_idle[durability].best < 2


def test_the_cpu_of_all_processes_of_a_runner_is_counted(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, time\n"
        "if len(sys.argv) == 1: subprocess.run([sys.executable, __file__, 'child'])\n"
        "else:\n"
        "    while time.process_time() < 0.3: pass\n"
        "    open(__file__ + '.used', 'w').write('1\\n'); time.sleep(60)\n"
    )
    script = tmp_path / "script.py"
    script.write_text(code)
    with Runner([str(script)], tmp_path / "log") as runner:
        runner.until(lambda: noted(tmp_path / "script.py.used") == [1])
        assert runner.cpu_seconds() >= 0.29


def test_a_runner_that_ends_early_is_told_of_with_its_log(tmp_path: Path) -> None:
    command = ["-c", "import sys; sys.exit('no such store')"]
    with (
        Runner(command, tmp_path / "log") as runner,
        pytest.raises(RuntimeError, match="no such store"),
    ):
        runner.until(lambda: False)


def test_delays_are_shares_of_the_sorted_times() -> None:
    seconds = [float(number) for number in range(101)]
    random.Random(1).shuffle(seconds)
    assert Delays.of(seconds) == Delays(101, 50.0, 90.0, 99.0, 100.0)


# --- The report ---------------------------------------------------------------


def _figures(mine: float, theirs: float) -> Figures:
    """Of a run in which jobs took so many seconds."""
    times = {name: (mine if one.family == OURS else theirs) for name, one in CONTENDERS.items()}
    live = {name: times[name] for name, one in CONTENDERS.items() if one.is_live}
    delays = {name: Delays(1, *[seconds] * 4) for name, seconds in live.items()}
    waits = {str(durability): Delays(1, *[mine] * 4) for durability in Durability}
    versions = "quelmdb Python lmdb cbor2 SQLite huey litequeue".split()
    return Figures(
        made=time.strftime("%Y-%m-%d"),
        command="python -m bench.runners",
        machine={"CPU": "some"},
        versions=dict.fromkeys(versions, "1"),
        throughput={name: Timing.of([seconds]) for name, seconds in times.items()},
        starts=delays,
        adds=delays,
        idle={name: Timing.of([seconds]) for name, seconds in live.items()},
        wait_after_return=waits,
        wait_after_call=waits,
        wait_idle={name: Timing.of([mine]) for name in waits},
    )


def test_targets_that_are_met_pass_and_nothing_is_lost() -> None:
    figures = _figures(mine=1e-5, theirs=1e-3)
    assert all(line.holds for line in reach(figures))
    assert "Nowhere, in this run." in report(figures)
    assert "100× as fast" in report(figures)


def test_what_is_lost_is_bold_and_listed() -> None:
    figures = _figures(mine=1e-2, theirs=1e-3)
    assert not any(line.holds for line in reach(figures))
    text = report(figures)
    assert "**0.10× as fast**" in text
    assert f"- no-op jobs: {HUEY} has 1.00 k/s beside 100 /s of {OURS_FULL}" in text
    assert f"- idle CPU: {HUEY} has 0.10% beside 1.00% of a core of {OURS_FULL}" in text
    assert "- its own target: no-op jobs, quelmdb full, at least 15.0 k/s; measured: 100 /s" in text


@pytest.mark.parametrize("contender", CONTENDERS.values(), ids=lambda contender: contender.name)
def test_each_is_compared_with_quelmdb_of_its_durability(contender: object) -> None:
    other = CONTENDERS[ours(contender)]  # type: ignore[arg-type]
    assert other.family == OURS
    assert other.durability == contender.durability  # type: ignore[attr-defined]
