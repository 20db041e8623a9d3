"""Puts the measured table into README.md, from bench/report.json: `python -m bench.readme`."""

from __future__ import annotations

import sys
from pathlib import Path

from bench.figures import Figures
from bench.render import readme_table

BEGIN = "<!-- bench:begin -->"
END = "<!-- bench:end -->"

_HERE = Path(__file__).parent
README = _HERE.parent / "README.md"
FIGURES = _HERE / "report.json"


def with_table(text: str, figures: Figures) -> str:
    """The README with what stands between the markers replaced.

    Raises `ValueError` where the markers are not there once each, in order.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in after or END in before + after:
        raise ValueError(f"the text needs {BEGIN} and {END}, once each and in this order")
    return f"{before}{BEGIN}\n{readme_table(figures)}\n{END}{after}"


def main() -> int:
    README.write_text(with_table(README.read_text(), Figures.read(FIGURES)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
