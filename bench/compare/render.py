"""Figures as Markdown: the whole of REPORT.md."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from bench.compare import listings, processes, queues, tasks, threads
from bench.compare.figures import Figures
from bench.compare.harness import Timing
from bench.compare.peer import Durability, Peer
from bench.compare.peers import FAIRNESS, PEERS, ours
from bench.compare.reach import reach
from bench.compare.text import duration, per_second, table, times
from bench.compare.workload import DEFAULT, TINY

OURS: Final = {Durability.FULL: ours.FULL, Durability.EPHEMERAL: ours.EPHEMERAL}
"""Whom a peer is compared with."""

_READ: Final = """\
`n×` is the speed of a peer, as a multiple of quelmdb's of the same durability in the same
run: below 1 quelmdb is faster. **Bold: quelmdb loses.** The floor is no peer but what a
program on raw py-lmdb takes that does nothing else, so it is not in bold. A dash: the peer
cannot do that."""

_METHOD: Final = """\
One run on one machine and one disk. The peers of a workload stay open side by side and take
turns round by round, a different one first each time; a figure is the best round, for one
unit of work (the appendix has the spread). A round takes a slow peer as long as a quick one, so
it does fewer units. Before a round that writes, everything is synced, so that nobody pays for
what another has written. Caches are warm, and Python's garbage collector is off while the clock
runs, for all alike. Each peer starts from plain values and hands back Python objects. One job is
a worker's name of 12 characters, one of 10, and `{"user": i, "template": "welcome"}`.

- **Threads** insert one by one, and each waits for its own. **Tasks** of asyncio do the same in
  one event loop. **Processes** are as many producers that insert one by one as consumers that
  claim 32 and complete them; every job must come out exactly once. Rounds of processes are two.
- **Latency** is that of one claim, of a queue that never empties, while another process inserts
  one by one as fast as it can.
- **Stores that are read** hold jobs in all statuses, mixed at random: 65 % completed, 20 %
  queued, 8 % failed, 3 % started, 2 % scheduled, 2 % cancelled. Durability has no bearing on
  reading.
- **Memory** is the growth of a fresh process's anonymous memory while it goes over every job."""

_TITLES: Final = {
    Durability.FULL: "“full”: what a call has returned survives loss of power",
    Durability.EPHEMERAL: "“ephemeral”: it survives the death of any process, not loss of power",
}


def report(figures: Figures, charts: Sequence[str]) -> str:
    """All of it, with charts by name."""
    parts = [
        "# How fast quelmdb is, beside others",
        f"Made by `{figures.command}` on {figures.made}. Do not edit: run it again.",
        *(f"**{warning}**" for warning in figures.warnings),
        *(f"{name} took no part: {why}." for name, why in figures.missing.items()),
        "## Reach",
        table(
            ("workload", "wanted", "measured", ""),
            (
                (line.workload, line.wanted, line.measured, "pass" if line.holds else "**FAIL**")
                for line in reach(figures)
            ),
        ),
        *(f"![{name}](charts/{name}.svg)" for name in charts),
        _READ,
        *_writing(figures),
        *_tasks(figures),
        *_latency(figures),
        *_reading(figures),
        *_space(figures),
        "## Who takes part",
        *_fairness(figures),
        "## How it is measured",
        _METHOD,
        "## Machine and versions",
        table(("", ""), (figures.machine | figures.versions).items()),
        *_appendix(figures),
    ]
    return "\n\n".join(parts) + "\n"


def titles() -> dict[str, str]:
    """Of all workloads that have timings, by key."""
    found = {workload.key: workload.title for workload in queues.WORKLOADS}
    for scale in (DEFAULT, TINY):
        found |= {threads.key(count): threads.title(count) for count in scale.threads}
        found |= {tasks.key(count): tasks.title(count) for count in scale.tasks}
        found |= {processes.key(count): processes.title(count) for count in scale.processes}
    return found | {workload.key: workload.title for workload in listings.WORKLOADS}


def compared(peer: Peer, timings: Mapping[str, Timing]) -> str:
    """The speed of a peer as a multiple of quelmdb's; bold where quelmdb loses."""
    mine = timings.get(OURS[peer.durability])
    if mine is None or peer.family == "quelmdb":
        return ""
    ratio = mine.best / timings[peer.name].best
    text = times(ratio)
    return f"**{text}**" if ratio > 1 and peer.family != "floor" else text


def _peers(figures: Figures, durability: Durability | None = None) -> list[Peer]:
    found = [PEERS[name] for name in figures.peers]
    return [peer for peer in found if durability in (None, peer.durability)]


# --- Sections -----------------------------------------------------------------


def _writing(figures: Figures) -> Iterator[str]:
    alone = [workload.key for workload in queues.WORKLOADS]
    together = [key for key in titles() if key.startswith((threads.PREFIX, processes.PREFIX))]
    for durability in Durability:
        peers = _peers(figures, durability)
        tables = [
            _rates(figures, peers, [key for key in keys if figures.timings(key)])
            for keys in (alone, together)
        ]
        if any(tables):
            yield f"## {_TITLES[durability]}"
            yield from filter(None, tables)
    remarks = [
        f"- {workload.title}: {workload.remark}."
        for workload in queues.WORKLOADS
        if workload.remark and figures.timings(workload.key)
    ]
    if remarks:
        yield "\n".join(remarks)


def _rates(figures: Figures, peers: Sequence[Peer], keys: Sequence[str]) -> str:
    """Jobs a second, a row a peer and a column a workload."""
    names = titles()
    rows = [(peer.name, *(_rate(peer, figures.timings(key)) for key in keys)) for peer in peers]
    return table(("", *(names[key] for key in keys)), rows) if keys and rows else ""


def _rate(peer: Peer, timings: Mapping[str, Timing]) -> str:
    if peer.name not in timings:
        return "–"
    timing = timings[peer.name]
    ratio = compared(peer, timings)
    return ", ".join(filter(None, (per_second(timing.best), ratio, timing.note)))


def _tasks(figures: Figures) -> Iterator[str]:
    keys = [key for key in titles() if key.startswith(tasks.PREFIX) and figures.timings(key)]
    peers = [peer for peer in _peers(figures) if any(peer.name in figures.timings(k) for k in keys)]
    if keys and peers:
        yield "## asyncio"
        yield _rates(figures, peers, keys)


def _latency(figures: Figures) -> Iterator[str]:
    if not figures.latency:
        return
    yield "## Latency of a claim, while another process inserts"
    rows = []
    for peer in _peers(figures):
        if peer.name not in figures.latency:
            continue
        found = figures.latency[peer.name]
        mine = figures.latency.get(OURS[peer.durability])
        cells = []
        for share in (0.5, 0.99, 0.999):
            text = duration(found.within(share))
            if mine is not None and mine is not found:
                ratio = found.within(share) / mine.within(share)
                lost = ratio < 1 and peer.family != "floor"
                text += f", **{times(ratio)}**" if lost else f", {times(ratio)}"
            cells.append(text)
        errors = f"{found.errors} × locked" if found.errors else ""
        rows.append((peer.name, peer.durability, *cells, f"{found.claims:,}", errors))
    yield table(("", "", "p50", "p99", "p99.9", "claims", ""), rows)
    yield "Here `n×` is the time of a peer as a multiple of quelmdb's: above 1 quelmdb is faster."


def _reading(figures: Figures) -> Iterator[str]:
    found = [w for w in listings.WORKLOADS if figures.at_sizes(w.key)]
    if found:
        yield "## Reading stores of growing size"
        yield (
            "A time is for one listing, one job, one id or one call. "
            f"The ratios are to {ours.FULL}, but for {ours.EPHEMERAL} itself."
        )
    for workload in found:
        at_sizes = figures.at_sizes(workload.key)
        rows = []
        for peer in _peers(figures):
            if any(peer.name in timings for timings in at_sizes.values()):
                cells = []
                for timings in at_sizes.values():
                    timing = timings[peer.name]
                    rate = per_second(timing.best)
                    cells.append(
                        ", ".join(
                            filter(None, (duration(timing.best), rate, compared(peer, timings)))
                        )
                    )
                rows.append((peer.name, *cells))
        remark = f" ({workload.remark})" if workload.remark else ""
        yield f"### {workload.title}{remark}"
        yield table(("", *(f"{size:,} jobs" for size in at_sizes)), rows)


def _space(figures: Figures) -> Iterator[str]:
    if figures.memory:
        yield "## Memory while listing every job"
        yield table(
            ("jobs", "", "arguments untouched", "arguments decoded"),
            (
                (
                    f"{size:,}",
                    name,
                    f"{grown['untouched'] / 1e6:.1f} MB",
                    f"{grown['decoded'] / 1e6:.1f} MB",
                )
                for size, by_name in figures.memory.items()
                for name, grown in by_name.items()
            ),
        )
    rows = [
        (kind, name, f"{taken.used / jobs:.0f}", f"{taken.used / 1e6:.1f} MB", _file(taken.file))
        for kind, jobs, by_name in (
            (f"{figures.depth:,} that wait", figures.depth, figures.queue_sizes),
            *((f"{n:,} in all statuses", n, by_name) for n, by_name in figures.sizes.items()),
        )
        for name, taken in by_name.items()
    ]
    if rows:
        yield "## On disk"
        yield table(("jobs", "", "bytes a job", "used", "file"), rows)
        yield (
            "quelmdb allocates ahead of what it uses, and the capacity of an ephemeral store at "
            "its creation; what huey and litequeue keep of a job is less (no history of it, no "
            "worker). Redis keeps every job in memory as well."
        )


def _file(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


def _fairness(figures: Figures) -> Iterator[str]:
    peers = _peers(figures)
    yield table(
        ("", "", "durability"), ((peer.name, peer.durability, peer.setting) for peer in peers)
    )
    for fairness in FAIRNESS:
        if any(peer.family == fairness.family for peer in peers):
            lines = [f"**{fairness.family}**: {fairness.used}"]
            if fairness.more:
                lines.append(f"- what it does that quelmdb does not: {fairness.more}")
            if fairness.less:
                lines.append(f"- what it lacks, or costs: {fairness.less}")
            yield "\n".join(lines)


def _appendix(figures: Figures) -> Iterator[str]:
    names = titles()
    rows = [
        (
            names[result.workload] + ("" if result.size is None else f", {result.size:,} jobs"),
            name,
            duration(timing.best),
            *_spread(timing),
            str(timing.rounds),
        )
        for result in figures.results
        for name, timing in result.timings.items()
    ]
    if rows:
        yield "## Appendix: every figure, and its spread"
        yield "The median round and the worst one are multiples of the best."
        yield table(("", "", "best", "median", "worst", "rounds"), rows)


def _spread(timing: Timing) -> Iterable[str]:
    return f"{timing.median / timing.best:.2f}", f"{timing.worst / timing.best:.2f}"
