"""The figures of a run of runners, and how they are kept in a file."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.compare.harness import Timing


@dataclass(frozen=True)
class Delays:
    """Seconds, of so many times."""

    count: int
    p50: float
    p90: float
    p99: float
    worst: float

    @classmethod
    def of(cls, seconds: Iterable[float]) -> Delays:
        found = sorted(seconds)
        last = len(found) - 1
        return cls(len(found), *(found[round(share * last)] for share in (0.5, 0.9, 0.99, 1.0)))


@dataclass
class Figures:
    """All that the report is made of, by name of the contender or, of `wait`, by durability."""

    made: str
    """The date."""
    command: str
    machine: dict[str, str]
    versions: dict[str, str]
    warnings: list[str] = field(default_factory=list)
    """What makes the figures worth less."""
    rounds: int = 0
    jobs: dict[str, int] = field(default_factory=dict)
    """No-op jobs of a round, by family."""
    pauses: tuple[float, float] = (0.0, 0.0)
    """Seconds between single jobs for an idle runner."""
    idle_seconds: float = 0.0
    """How long it is looked at afterwards."""
    throughput: dict[str, Timing] = field(default_factory=dict)
    """Seconds a job."""
    starts: dict[str, Delays] = field(default_factory=dict)
    """From the call that adds a job to an idle runner's store until the job runs."""
    adds: dict[str, Delays] = field(default_factory=dict)
    """Of these that call alone."""
    idle: dict[str, Timing] = field(default_factory=dict)
    """Seconds of CPU a second, of all processes of an idle runner."""
    wait_after_return: dict[str, Delays] = field(default_factory=dict)
    """From the return of another process's insert until `store.wait` returns; 0 where it was
    quicker still."""
    wait_after_call: dict[str, Delays] = field(default_factory=dict)
    """From the call of that insert."""
    wait_idle: dict[str, Timing] = field(default_factory=dict)
    """Seconds of CPU a second, of a process in `store.wait`."""

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n")

    @classmethod
    def read(cls, path: Path) -> Figures:
        content: dict[str, Any] = json.loads(path.read_text())
        content["pauses"] = tuple(content["pauses"])
        for key, kind in _KINDS.items():
            content[key] = {name: kind(**found) for name, found in content[key].items()}
        return cls(**content)


_KINDS: dict[str, type[Timing] | type[Delays]] = {
    "throughput": Timing,
    "starts": Delays,
    "adds": Delays,
    "idle": Timing,
    "wait_after_return": Delays,
    "wait_after_call": Delays,
    "wait_idle": Timing,
}
