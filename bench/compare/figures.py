"""The figures of a run, and how they are kept in a file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.compare.harness import Result, Timing
from bench.compare.latency import Latency
from bench.compare.memory import Growth
from bench.compare.peer import Size


@dataclass
class Figures:
    """All that a report is made of. Times are seconds a unit, sizes bytes."""

    made: str
    """The date."""
    command: str
    machine: dict[str, str]
    versions: dict[str, str]
    peers: list[str]
    """Who took part."""
    missing: dict[str, str]
    """Who did not, and why."""
    warnings: list[str] = field(default_factory=list)
    """What makes the figures worth less."""
    results: list[Result] = field(default_factory=list)
    latency: dict[str, Latency] = field(default_factory=dict)
    memory: dict[int, dict[str, Growth]] = field(default_factory=dict)
    """By number of jobs and peer."""
    sizes: dict[int, dict[str, Size]] = field(default_factory=dict)
    """By number of jobs and peer: of stores with jobs in all statuses."""
    queue_sizes: dict[str, Size] = field(default_factory=dict)
    depth: int = 0
    """How many jobs waited in those queues, and before each round of claims."""

    def timings(self, workload: str, size: int | None = None) -> dict[str, Timing]:
        """By peer; empty where it was not measured."""
        for result in self.results:
            if (result.workload, result.size) == (workload, size):
                return result.timings
        return {}

    def at_sizes(self, workload: str) -> dict[int, dict[str, Timing]]:
        """By number of jobs and peer, ascending."""
        found = {
            result.size: result.timings
            for result in self.results
            if result.workload == workload and result.size is not None
        }
        return dict(sorted(found.items()))

    def write(self, path: Path) -> None:
        content = asdict(self)  # which keeps a `Size` as a pair
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")

    @classmethod
    def read(cls, path: Path) -> Figures:
        content: dict[str, Any] = json.loads(path.read_text())
        content["results"] = [
            Result(
                result["workload"],
                {name: Timing(**timing) for name, timing in result["timings"].items()},
                result["size"],
            )
            for result in content["results"]
        ]
        content["latency"] = {
            name: Latency(**latency) for name, latency in content["latency"].items()
        }
        content["memory"] = {int(size): grown for size, grown in content["memory"].items()}
        content["sizes"] = {
            int(size): {name: Size(*taken) for name, taken in by_name.items()}
            for size, by_name in content["sizes"].items()
        }
        content["queue_sizes"] = {
            name: Size(*taken) for name, taken in content["queue_sizes"].items()
        }
        return cls(**content)
