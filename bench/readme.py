"""Puts the measured table into README.md, from bench/report.json: `python -m bench.readme`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from bench.compare import processes, tasks, threads
from bench.compare.figures import Figures
from bench.compare.peers import PEERS, floor, huey, litequeue, persistqueue, redis, sqlite
from bench.compare.render import OURS, titles
from bench.compare.text import duration, per_second, table, times

BEGIN: Final = "<!-- bench:begin -->"
END: Final = "<!-- bench:end -->"

_HERE: Final = Path(__file__).parent
README: Final = _HERE.parent / "README.md"
FIGURES: Final = _HERE / "report.json"

_COLUMNS: Final = {
    "sqlite3 FULL": (sqlite.FULL,),
    "sqlite3 NORMAL / OFF": (sqlite.NORMAL, sqlite.OFF),
    "huey / fsync=False": (huey.DEFAULT, huey.OFF),
    "litequeue": (litequeue.NAME,),
    "persist-queue": (persistqueue.NAME,),
    "redis always / everysec": (redis.ALWAYS, redis.EVERYSEC),
    "floor full / ephemeral": (floor.FULL, floor.EPHEMERAL),
}
_WRITES: Final = (
    "insert_each",
    "insert_batches",
    "insert_all",
    threads.key(64),
    tasks.key(1000),
    "claim_each",
    "claim_batches",
    processes.key(2),
)
_READS: Final = (
    "of_worker_rare",
    "ids_of_status",
    "status_untouched",
    "status_decoded",
    "count_failed",
)


class _Row(NamedTuple):
    title: str
    values: dict[str, float]
    """By peer; less is better."""
    text: Callable[[float], str]
    """How a value reads."""
    by_ratio: bool = True
    """Whether peers are shown by their ratio to quelmdb."""


def with_table(text: str, figures: Figures) -> str:
    """The README with what stands between the markers replaced.

    Raises `ValueError` where the markers are not there once each, in order.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in after or END in before + after:
        raise ValueError(f"the text needs {BEGIN} and {END}, once each and in this order")
    return f"{before}{BEGIN}\n{readme_table(figures)}\n{END}{after}"


def readme_table(figures: Figures) -> str:
    """What stands between the markers."""
    machine, versions = figures.machine, figures.versions
    return "\n".join(
        (
            table(("", "quelmdb full", "quelmdb ephemeral", *_COLUMNS), _cells(figures)),
            "",
            "`n×`: quelmdb of the same durability is n times as fast in the same run. "
            "**Bold: quelmdb loses.**",
            "The floor is raw py-lmdb that does nothing else; a dash: it cannot do that. Reading "
            "is the same at every durability.",
            "",
            "![Jobs a second, by peer](bench/charts/throughput.svg)",
            "",
            f"Measured on {machine['CPU']}, {machine['cores']} cores, {machine['file system']} "
            f"(one sync: {machine['one fdatasync of 4 KiB, median']}),",
            f"{versions['Python']}, lmdb {versions['lmdb']}, SQLite {versions['SQLite']}, "
            f"Redis {versions['redis-server']}. LMDB syncs twice a commit and SQLite once,",
            "so a lone durable write is slower here: batches, threads and tasks share commits. "
            "What each peer does that",
            "quelmdb does not and the reverse, the method, all figures and sizes: "
            "[bench/REPORT.md](bench/REPORT.md); again",
            f"with `{figures.command}`.",
        )
    )


def _cells(figures: Figures) -> Iterator[Sequence[str]]:
    for row in _rows(figures):
        mine = [row.text(row.values[name]) if name in row.values else "–" for name in OURS.values()]
        peers = [" / ".join(_cell(name, row) for name in names) for names in _COLUMNS.values()]
        yield row.title, *mine, *(cell if cell.strip(" /–") else "–" for cell in peers)


def _cell(name: str, row: _Row) -> str:
    if name not in row.values:
        return "–"
    if not row.by_ratio:
        return row.text(row.values[name])
    mine = row.values.get(OURS[PEERS[name].durability])
    if mine is None:
        return "–"
    ratio = row.values[name] / mine
    return f"**{times(ratio)}**" if ratio < 1 and PEERS[name].family != "floor" else times(ratio)


def _rows(figures: Figures) -> Iterator[_Row]:
    names = titles()
    for key in _WRITES:
        if found := figures.timings(key):
            values = {name: timing.best for name, timing in found.items()}
            yield _Row(names[key], values, per_second)
    if figures.latency:
        values = {name: found.within(0.99) for name, found in figures.latency.items()}
        yield _Row("a claim while another process inserts, p99", values, duration)
    for key in _READS:
        if at_sizes := figures.at_sizes(key):
            size, found = max(at_sizes.items())
            values = {name: timing.best for name, timing in found.items()}
            text = duration if key in _CALLS else per_second
            yield _Row(f"{names[key]}, of {size:,}", values, text)
    for size, grown in list(figures.memory.items())[-1:]:
        values = {name: float(max(found.values())) for name, found in grown.items()}
        yield _Row(
            f"memory while listing {size:,} jobs", values, lambda n: f"{n / 1e6:.1f} MB", False
        )
    for size, taken in list(figures.sizes.items())[-1:]:
        values = {name: found.used / size for name, found in taken.items()}
        yield _Row(f"on disk, a job of {size:,}", values, lambda n: f"{n:.0f} bytes", False)


_CALLS: Final = ("of_worker_rare", "count_failed")


def main() -> int:
    README.write_text(with_table(README.read_text(), Figures.read(FIGURES)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
