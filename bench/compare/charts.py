"""Figures as charts, each as SVG and as PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log10
from pathlib import Path
from typing import Any, Final

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from bench.compare import listings, processes, threads
from bench.compare.figures import Figures
from bench.compare.harness import Timing
from bench.compare.latency import SHARES
from bench.compare.peer import Durability
from bench.compare.peers import PEERS
from bench.compare.text import duration, per_second
from bench.compare.workload import DEFAULT, TINY

# Of Okabe and Ito: told apart with every kind of colour blindness.
_COLOURS: Final = {
    "quelmdb": "#D55E00",
    "floor": "#999999",
    "sqlite3": "#0072B2",
    "huey": "#E69F00",
    "litequeue": "#009E73",
    "persist-queue": "#CC79A7",
    "redis": "#56B4E9",
}
_MARKERS: Final = {
    "quelmdb": "o",
    "floor": "x",
    "sqlite3": "s",
    "huey": "^",
    "litequeue": "D",
    "persist-queue": "v",
    "redis": "P",
}
_DASHED: Final = ("sqlite3 OFF",)
"""Told by the line from another peer of its family in the same panel."""
_TITLES: Final = {
    Durability.FULL: "survives loss of power",
    Durability.EPHEMERAL: "survives the death of processes",
}
_BARS: Final = {
    "insert_each": "insert, one by one",
    threads.key(64): "insert, 64 threads",
    "claim_each": "claim and complete,\none by one",
    processes.key(2): "2 producing and\n2 consuming processes",
}
_SIZES: Final = {
    "of_worker_rare": "list the 100 jobs of a worker",
    "ids_of_status": "an id of a status",
    "status_decoded": "a job of a status, decoded",
    "count_failed": "count a status",
}
_STYLE: Final[Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "svg.hashsalt": "quelmdb",
    "savefig.dpi": 130,
}


def draw(figures: Figures, directory: Path) -> list[str]:
    """Draws what there are figures for; returns the names of the charts."""
    directory.mkdir(exist_ok=True)
    made = []
    with matplotlib.rc_context(_STYLE):
        for name, chart in (
            ("throughput", _throughput(figures)),
            ("threads", _threads(figures)),
            ("size", _by_size(figures)),
            ("latency", _latency(figures)),
        ):
            if chart is not None:
                chart.draw_without_rendering()
                chart.set_layout_engine("none")  # once for both files
                chart.savefig(directory / f"{name}.svg", metadata={"Date": None})
                chart.savefig(directory / f"{name}.png")
                made.append(name)
    return made


def _of(figures: Figures, names: Sequence[str], durability: Durability) -> list[str]:
    return [n for n in figures.peers if n in names and PEERS[n].durability == durability]


# --- Throughput by peer -------------------------------------------------------


def _throughput(figures: Figures) -> Figure | None:
    keys = [key for key in _BARS if figures.timings(key)]
    if not keys:
        return None
    chart = Figure(figsize=(3.0 * len(keys) + 1.5, 6.4), layout="constrained")
    panels = chart.subplots(2, len(keys), squeeze=False)
    for row, durability in enumerate(Durability):
        for column, key in enumerate(keys):
            axes: Axes = panels[row][column]
            timings = figures.timings(key)
            taking = [n for k in keys for n in figures.timings(k)]
            names = _of(figures, taking, durability)
            _bars(axes, names, timings)
            if row == 0:
                axes.set_title(_BARS[key], fontweight="bold")
            if row == 1:
                axes.set_xlabel("jobs a second (log scale)")
            if column:
                axes.set_yticklabels([])
            else:
                axes.set_ylabel(_TITLES[durability], fontweight="bold")
    for column in range(len(keys)):
        lows, highs = zip(*(panels[row][column].get_xlim() for row in range(2)), strict=True)
        for row in range(2):
            panels[row][column].set_xlim(min(lows), max(highs))
    return chart


def _bars(axes: Axes, names: Sequence[str], timings: Mapping[str, Timing]) -> None:
    rates = [1 / timings[name].best for name in names if name in timings]
    axes.set_xscale("log")
    if rates:
        low, high = min(rates) / 3, max(rates) * 9  # room for the label
        axes.set_xlim(low, high)
    for place, name in enumerate(names):
        if name not in timings:
            axes.text(0.02, place, "–", transform=axes.get_yaxis_transform(), va="center")
            continue
        rate = 1 / timings[name].best
        is_floor = PEERS[name].family == "floor"
        axes.barh(
            place,
            rate,
            color="white" if is_floor else _colour(name) if _is_ours(name) else "#9DB7CC",
            edgecolor="#777777" if is_floor else "none",
            hatch="////" if is_floor else None,
            height=0.7,
        )
        axes.annotate(
            per_second(timings[name].best),
            (rate, place),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            fontweight="bold" if _is_ours(name) else "normal",
        )
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_formatter(FuncFormatter(_rate_label))
    axes.xaxis.set_minor_formatter(NullFormatter())


# --- Lines --------------------------------------------------------------------


def _threads(figures: Figures) -> Figure | None:
    found = {
        count: timings
        for count in (*TINY.threads, *DEFAULT.threads)
        if (timings := figures.timings(threads.key(count)))
    }
    if len(found) < 2:
        return None
    chart = Figure(figsize=(10, 4.4), layout="constrained")
    panels = chart.subplots(1, 2, sharey=True)
    for axes, durability in zip(panels, Durability, strict=True):
        for name in _of(figures, [*found[min(found)]], durability):
            rates = [1 / timings[name].best for timings in found.values()]
            _line(axes, name, list(found), rates)
        axes.set_title(_TITLES[durability], fontweight="bold")
        axes.set_xscale("log", base=2)
        axes.set_xticks(list(found), list(map(str, found)))
        axes.set_xlabel("threads that insert one by one")
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(_rate_label))
        axes.legend(fontsize=8)
    panels[0].set_ylabel("jobs a second (log scale)")
    return chart


def _by_size(figures: Figures) -> Figure | None:
    keys = [key for key in _SIZES if len(figures.at_sizes(key)) > 1]
    if not keys:
        return None
    chart = Figure(figsize=(3.2 * len(keys), 3.8), layout="constrained")
    panels = chart.subplots(1, len(keys), squeeze=False)[0]
    for axes, key in zip(panels, keys, strict=True):
        found = figures.at_sizes(key)
        for name in (n for n in listings.LISTED if all(n in t for t in found.values())):
            if PEERS[name].family != "quelmdb" or name.endswith("full"):
                label = PEERS[name].family
                _line(axes, name, list(found), [t[name].best for t in found.values()], label)
        axes.set_title(_SIZES[key], fontweight="bold")
        axes.set_xscale("log")
        axes.set_xlabel("jobs in the store (log scale)")
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        axes.set_ylim(low / 2, high * 2)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(_time_label))
        axes.yaxis.set_minor_formatter(NullFormatter())
    panels[0].set_ylabel("time (log scale)")
    panels[0].legend(fontsize=8)
    return chart


def _latency(figures: Figures) -> Figure | None:
    if not figures.latency:
        return None
    chart = Figure(figsize=(10, 4.6), layout="constrained")
    panels = chart.subplots(1, 2, sharey=True)
    shares = [share for share in SHARES if share < 1]
    places = [-log10(1 - share) for share in shares]
    ticks = {0.0: "0 %", 0.5: "50 %", 0.9: "90 %", 0.99: "99 %", 0.999: "99.9 %"}
    for axes, durability in zip(panels, Durability, strict=True):
        for name in _of(figures, [*figures.latency], durability):
            seconds = figures.latency[name].seconds[: len(shares)]
            _line(axes, name, places, seconds, marked=[shares.index(s) for s in ticks])
        axes.set_title(_TITLES[durability], fontweight="bold")
        axes.set_xticks([-log10(1 - share) for share in ticks], list(ticks.values()))
        axes.set_xlabel("share of the claims that were done within…")
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(_time_label))
        axes.legend(fontsize=8)
    panels[0].set_ylabel("time of a claim (log scale)")
    return chart


def _line(
    axes: Axes,
    name: str,
    x: Sequence[float],
    y: Sequence[float],
    label: str | None = None,
    marked: Sequence[int] | None = None,
) -> None:
    axes.plot(
        x,
        y,
        label=label or name,
        color=_colour(name),
        marker=_MARKERS[PEERS[name].family],
        markevery=marked,
        markersize=5,
        linestyle="--" if name in _DASHED else "-",
        linewidth=2.6 if _is_ours(name) else 1.4,
        zorder=3 if _is_ours(name) else 2,
    )


def _colour(name: str) -> str:
    return _COLOURS[PEERS[name].family]


def _is_ours(name: str) -> bool:
    return PEERS[name].family == "quelmdb"


def _rate_label(value: float, place: int | None = None) -> str:
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:g} {unit}"
    return f"{value:g}"


def _time_label(value: float, place: int | None = None) -> str:
    number, _, unit = duration(value).partition(" ")
    return f"{float(number):g} {unit}"
