"""Writes a report: REPORT.md, report.json, and the charts."""

from __future__ import annotations

from pathlib import Path

from bench.compare.charts import draw
from bench.compare.figures import Figures
from bench.compare.render import report


def write(figures: Figures, output: Path) -> None:
    """Into a directory that is there."""
    figures.write(output / "report.json")
    charts = draw(figures, output / "charts")
    (output / "REPORT.md").write_text(report(figures, charts))
