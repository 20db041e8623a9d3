"""Figures as Markdown: the whole of RUNNERS.md."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from bench.compare.harness import Timing
from bench.compare.peer import Durability
from bench.compare.text import duration, per_second, table, times
from bench.runners.contenders import CONTENDERS, HUEY, LITEQUEUE, OURS, Contender, ours
from bench.runners.figures import Figures
from bench.runners.reach import at_least_zero, reach, share_of_core

_TITLES: Final = {
    Durability.FULL: "“full”: what a call has returned survives loss of power",
    Durability.EPHEMERAL: "“ephemeral”: it survives the death of any process, not loss of power",
}
_METHOD: Final = """\
One run on one machine and one disk. Each runner is started as its users start it, in processes
of its own; another process adds the jobs, in the way of its users. The contenders take turns
round by round, a different one first each time. Logs are as they are by default, into a file:
huey writes two lines a job, quelmdb one every ten seconds, so huey takes part without them, too.

- **No-op jobs**: all are added before, and a slow runner gets fewer of them in a round:
  {jobs}. The function looks into its arguments
  (`{{"user": i, "template": "welcome"}}`) and returns. The clock (of the wall) runs from the
  start of the first job until the last one's completion, so no start of a process counts:
  quelmdb's last completion is the latest time that the store has on a job, which is when the
  transaction begins that completes it; the others keep none, and their clock stops when the
  last job runs. The best round counts.
- **A job for an idle runner** is added alone, {pauses} apart, at random. Its
  arguments carry the time just before the call that adds it, so the delay has that whole write
  in it; the clock is CLOCK_MONOTONIC, which all processes share. Delays are of all rounds.
- **Idle CPU** is what `/proc/<pid>/stat` counts for all processes of the runner over {idle}
  after those jobs, in steps of 10 ms: the median round, as a share of one core.
- **`store.wait()`** has no runner: one process waits, and works off what comes, another one
  inserts one by one at random intervals. The commit lies between the call of the insert and its
  return, so a delay is given from both; 0 is where `wait` has returned before the insert has.
  Its idle CPU is that of the waiting process, by its own clock."""

_FAIRNESS: Final = {
    OURS: "`quelmdb run` claims ahead and completes many jobs a transaction (none is held back "
    "for more than some milliseconds), keeps every job with its times and status, and claims "
    "again what a dead process held. It waits for a commit, and does not poll for it.",
    HUEY: "`huey_consumer` dequeues one job a transaction, which deletes it: what a worker held "
    "when it died is lost, there is nothing to complete and no history. It polls: by default "
    "after 0.1 s, then 15 % longer each time, up to 10 s, so a job that comes after a long "
    "idle time may wait for 10 s; here the pauses are short. What it does besides: periodic "
    "tasks, pipelines, locks, rate limits, Redis and other storages, greenlets.",
    LITEQUEUE: "no runner, but the loop that its users write: `pop`, the job, `done`; arguments "
    "as JSON. A pop sorts all that waits, so it gets slower as the queue grows. Nobody gives "
    "back what a dead process held.",
}
_VERSIONS: Final = ("quelmdb", "Python", "lmdb", "cbor2", "SQLite", "huey", "litequeue")


def report(figures: Figures) -> str:
    """All of it."""
    parts = [
        "# How fast quelmdb's runner is, beside others",
        f"Made by `{figures.command}` on {figures.made}. Do not edit: run it again.",
        *(f"**{warning}**" for warning in figures.warnings),
        *summary(figures),
        "## Reach",
        table(
            ("what", "wanted", "measured", ""),
            (
                (line.workload, line.wanted, line.measured, "pass" if line.holds else "**FAIL**")
                for line in reach(figures)
            ),
        ),
        "## Where quelmdb loses",
        "\n".join(f"- {loss}" for loss in _losses(figures)) or "Nowhere, in this run.",
        "## Who takes part",
        table(
            ("", "started as", "setting"),
            (
                (contender.name, f"`{contender.command}`", contender.setting)
                for contender in _measured(figures)
            ),
        ),
        "\n".join(f"- **{family}**: {text}" for family, text in _FAIRNESS.items()),
        "## How it is measured",
        _method(figures),
        "## Machine and versions",
        table(
            ("", ""),
            (figures.machine | {name: figures.versions[name] for name in _VERSIONS}).items(),
        ),
        *_appendix(figures),
    ]
    return "\n\n".join(parts) + "\n"


def summary(figures: Figures) -> Iterator[str]:
    """The tables that are worth quoting, with their titles."""
    for durability in (Durability.EPHEMERAL, Durability.FULL):
        found = [one for one in _measured(figures) if one.durability == durability]
        if found:
            yield f"## {_TITLES[durability]}"
            yield table(
                (
                    "",
                    "no-op jobs",
                    "quelmdb is",
                    "an idle runner starts a job after, p50",
                    "p99",
                    "idle CPU",
                ),
                (_row(figures, contender) for contender in found),
            )
    if figures.throughput or figures.starts:
        yield (
            "`n× as fast`: quelmdb, with the same durability and as many processes, does n times "
            "as many no-op jobs a second. **Bold: quelmdb loses.** A dash: not measured, or "
            "there is no runner that could be idle."
        )
    if figures.wait_after_return:
        yield "## `store.wait()`, woken by another process's insert"
        yield table(
            (
                "",
                "after insert returned, p50",
                "p99",
                "after insert was called, p50",
                "p99",
                "idle CPU",
            ),
            (_wait_row(figures, durability) for durability in figures.wait_after_return),
        )


# --- Rows ---------------------------------------------------------------------


def _measured(figures: Figures) -> list[Contender]:
    names = figures.throughput | figures.starts
    return [contender for contender in CONTENDERS.values() if contender.name in names]


def _row(figures: Figures, contender: Contender) -> Sequence[str]:
    name = contender.name
    cells = [name, "–", "–", "–", "–", "–"]
    if name in figures.throughput:
        cells[1] = per_second(figures.throughput[name].best)
    if name in figures.starts:
        delays = figures.starts[name]
        cells[3:] = [
            duration(delays.p50), duration(delays.p99), share_of_core(figures.idle[name].median)
        ]  # fmt: skip
    for figure in _compared(figures, contender):
        if figure.is_rate:
            cells[figure.column] = f"{times(figure.theirs / figure.mine)} as fast"
        if figure.theirs < figure.mine:
            cells[figure.column] = f"**{cells[figure.column]}**"
    return cells


def _wait_row(figures: Figures, durability: str) -> Sequence[str]:
    returned, called = figures.wait_after_return[durability], figures.wait_after_call[durability]
    return (
        durability,
        at_least_zero(returned.p50),
        at_least_zero(returned.p99),
        duration(called.p50),
        duration(called.p99),
        share_of_core(figures.wait_idle[durability].median),
    )


# --- Comparing ----------------------------------------------------------------


class _Compared(NamedTuple):
    """One figure of another contender, beside quelmdb's; less is better."""

    column: int
    what: str
    theirs: float
    mine: float
    text: str
    """What quelmdb's is to be said of."""
    is_rate: bool = False


def _compared(figures: Figures, contender: Contender) -> Iterator[_Compared]:
    if contender.family == OURS:
        return
    name, mine = contender.name, ours(contender)
    if name in figures.throughput and mine in figures.throughput:
        theirs, own = figures.throughput[name].best, figures.throughput[mine].best
        said = f"{per_second(theirs)} beside {per_second(own)}"
        yield _Compared(2, "no-op jobs", theirs, own, said, is_rate=True)
    if name in figures.starts and mine in figures.starts:
        start, my_start = figures.starts[name], figures.starts[mine]
        for column, what, theirs, own in (
            (3, "the start of a job, p50", start.p50, my_start.p50),
            (4, "the start of a job, p99", start.p99, my_start.p99),
        ):
            said = f"{duration(theirs)} beside {duration(own)}"
            yield _Compared(column, what, theirs, own, said)
        theirs, own = figures.idle[name].median, figures.idle[mine].median
        said = f"{share_of_core(theirs)} beside {share_of_core(own)} of a core"
        yield _Compared(5, "idle CPU", theirs, own, said)


def _losses(figures: Figures) -> Iterator[str]:
    for contender in _measured(figures):
        for figure in _compared(figures, contender):
            if figure.theirs < figure.mine:
                yield f"{figure.what}: {contender.name} has {figure.text} of {ours(contender)}"
    for line in reach(figures):
        if not line.holds:
            yield f"its own target: {line.workload}, {line.wanted}; measured: {line.measured}"


# --- The rest -----------------------------------------------------------------


def _method(figures: Figures) -> str:
    jobs = ", ".join(f"{count:,} of {family}" for family, count in figures.jobs.items())
    pauses = " to ".join(duration(seconds) for seconds in figures.pauses)
    return _METHOD.format(jobs=jobs, pauses=pauses, idle=duration(figures.idle_seconds))


def _appendix(figures: Figures) -> Iterator[str]:
    yield "## Appendix: every figure, and its spread"
    timings = [("no-op job", name, timing) for name, timing in figures.throughput.items()]
    if timings:
        yield "Of no-op jobs the time of one; the median round and the worst one are multiples."
        yield table(
            ("", "best", "median", "worst", "rounds"),
            (
                (
                    name,
                    duration(timing.best),
                    f"{timing.median / timing.best:.2f}",
                    f"{timing.worst / timing.best:.2f}",
                    str(timing.rounds),
                )
                for _, name, timing in timings
            ),
        )
    delays = [
        *((f"idle runner, {name}", found) for name, found in figures.starts.items()),
        *((f"of that the call that adds, {name}", found) for name, found in figures.adds.items()),
        *((f"wait, {name}, after return", f) for name, f in figures.wait_after_return.items()),
        *((f"wait, {name}, after call", f) for name, f in figures.wait_after_call.items()),
    ]
    if delays:
        yield table(
            ("delay", "p50", "p90", "p99", "worst", "times"),
            (
                (name, *map(duration, (f.p50, f.p90, f.p99, f.worst)), f"{f.count:,}")
                for name, f in delays
            ),
        )
    idle = [*figures.idle.items(), *((f"wait, {n}", t) for n, t in figures.wait_idle.items())]
    if idle:
        yield table(("idle CPU", "best", "median", "worst"), map(_spread_of_idle, idle))


def _spread_of_idle(named: tuple[str, Timing]) -> Sequence[str]:
    name, timing = named
    return name, *map(share_of_core, (timing.best, timing.median, timing.worst))
