"""Figures as Markdown: the whole report, and the table of the README."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from bench.contestant import Size
from bench.figures import Figures, duration, per_second, reach
from bench.harness import Result, Timing
from bench.workloads import WORKLOADS, Workload

README_SIZE: Final = 100_000

_METHOD: Final = """\
## How it is measured

All contestants are filled with the same jobs (one shape: a worker of 12 characters out of 10,
`{"user": i, "template": "welcome"}`, statuses mixed at random: 65 % completed, 20 % queued, 8 %
failed, 3 % started, 2 % scheduled, 2 % cancelled), stay open side by side on the same disk, and
take turns round by round. A figure is the best round, for one unit of work; the spread is the
median round and the worst one, as multiples of the best. Every write is durable when it
returns. Each contestant starts from plain values and hands back Python objects. Caches are
warm, Python's garbage collector is off while the clock runs, for all alike. Writes are undone
between rounds, so that each begins with the same jobs. `pytest bench` checks that all hold the
same jobs, do the same amount of work, and give the same answers.

- **quelmdb**: the public API, durability "full", no option set.
- **floor**: a minimal program on py-lmdb that keeps the same bytes in the same databases, with
  the same transactions, and does nothing else: no checks of input, no checksums looked at on
  reading, tuples for jobs. It encodes arguments with plain cbor2 where quelmdb encodes them.
  It allocates no space ahead, which quelmdb does, and so can be slower at small durable writes.
- **puts**: the floor with every key and record made before the clock starts: LMDB alone.
- **sqlite3**: the standard library's, WAL, synchronous=FULL, the same columns and two indexes,
  JSON arguments, cache and map larger than the file. `bench/sqlite.py` says what was chosen."""


def report(figures: Figures) -> str:
    """The whole of REPORT.md."""
    parts = [
        "# How fast quelmdb is",
        f"Made by `{figures.command}` on {figures.made}. Do not edit: run it again.",
    ]
    if figures.warning:
        parts.append(f"**{figures.warning}**")
    parts += [
        "## Reach",
        _table(
            ("wanted", "measured", ""),
            (
                (line.wanted, line.measured, "pass" if line.holds else "**FAIL**")
                for line in reach(figures)
            ),
        ),
    ]
    for size in sorted(figures.sizes):
        results = [result for result in figures.results if result.size == size]
        parts += [f"## {size:,} jobs", _of_size(results), _on_disk(size, figures.sizes[size])]
    puts = [result for result in figures.results if "puts" in result.timings]
    if puts:
        parts += ["## insert_many beside LMDB alone", _beside_puts(puts)]
    parts += [
        _METHOD,
        "## Machine and versions",
        _table(("", ""), (figures.machine | figures.versions).items()),
    ]
    return "\n\n".join(parts) + "\n"


def readme_table(figures: Figures) -> str:
    """What stands between the markers of README.md."""
    size = README_SIZE if README_SIZE in figures.sizes else max(figures.sizes)
    rows = [
        (
            workload.title,
            f"{duration(ours.best)} {_article(workload.unit)}",
            per_second(ours.best),
            _against(result),
            f"{ours.best / floor.best:.1f} times",
        )
        for workload, result in _measured(figures.results)
        if result.size == size
        for ours, floor in [(result.timings["quelmdb"], result.timings["floor"])]
    ]
    head = ("", "quelmdb", "", "against sqlite3", "time of raw py-lmdb")
    machine, versions = figures.machine, figures.versions
    return "\n".join(
        (
            _table(head, rows),
            "",
            f"Measured at {size:,} jobs on {machine['CPU']}, {machine['cores']} cores, "
            f"{machine['file system']}",
            f"(one sync: {machine['one fdatasync of 4 KiB, median']}), {versions['Python']}, "
            f"lmdb {versions['lmdb']}, SQLite {versions['SQLite']} (WAL,",
            "synchronous=FULL), every write durable when it returns. LMDB syncs twice a commit "
            "and SQLite once, so",
            "small durable writes are slower here: batch them. All figures, the method and the "
            "other sizes:",
            "[bench/REPORT.md](bench/REPORT.md); again with `python -m bench.report`.",
        )
    )


def _of_size(results: Sequence[Result]) -> str:
    rows = []
    for workload, result in _measured(results):
        ours, floor, sqlite = (result.timings[name] for name in ("quelmdb", "floor", "sqlite3"))
        rows.append(
            (
                workload.title,
                workload.unit,
                duration(ours.best),
                per_second(ours.best),
                duration(floor.best),
                f"{ours.best / floor.best:.2f}",
                duration(sqlite.best),
                _against(result),
                "; ".join(map(_spread, (ours, floor, sqlite))),
                workload.remark,
            )
        )
    head = (
        "workload", "a", "quelmdb", "", "floor", "of floor", "sqlite3", "against sqlite3",
        "spread (quelmdb; floor; sqlite3)", "remark",
    )  # fmt: skip
    return _table(head, rows)


def _on_disk(size: int, sizes: dict[str, Size]) -> str:
    rows = (
        (
            name,
            f"{taken.used / size:.0f}",
            f"{taken.used / 1e6:.1f} MB",
            f"{taken.file / 1e6:.1f} MB",
        )
        for name, taken in sizes.items()
    )
    return _table(("on disk", "bytes a job", "used", "file"), rows)


def _beside_puts(results: Iterable[Result]) -> str:
    rows = []
    for result in results:
        ours, floor, puts = (result.timings[name].best for name in ("quelmdb", "floor", "puts"))
        rows.append(
            (
                f"{result.size:,}",
                duration(ours),
                duration(floor),
                f"{ours / floor:.2f}",
                duration(puts),
                f"{ours / puts:.2f}",
            )
        )
    return _table(("jobs", "quelmdb", "floor", "of floor", "puts", "of puts"), rows)


def _measured(results: Iterable[Result]) -> list[tuple[Workload, Result]]:
    """Results with their workloads, in the order of these."""
    found = list(results)
    return [(w, result) for w in WORKLOADS for result in found if result.workload == w.key]


def _against(result: Result) -> str:
    """How quelmdb compares with sqlite3; bold where it loses."""
    ratio = result.timings["sqlite3"].best / result.timings["quelmdb"].best
    if ratio >= 1:
        return f"{ratio:.1f} times faster" if ratio < 99.95 else f"{ratio:.0f} times faster"
    return f"**{1 / ratio:.1f} times slower**"


def _article(unit: str) -> str:
    return f"an {unit}" if unit[0] in "aeiou" else f"a {unit}"


def _spread(timing: Timing) -> str:
    return f"{timing.median / timing.best:.2f} to {timing.worst / timing.best:.2f}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
