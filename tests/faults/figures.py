"""What the proofs have measured: a line each, told by a fixture and kept in a report."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import pytest

FIXTURE: Final = "figure"
"""What a test asks for that tells one."""

PROPERTY: Final = "figure"

Tell = Callable[[str], None]
"""Takes what a test has measured, in a line: how many of what, and what came of them."""


def told_in(report: pytest.TestReport) -> Iterator[str]:
    """What a test has told, of the report of its end; nothing of its other reports."""
    if report.when == "teardown":
        for name, value in report.user_properties:
            if name == PROPERTY:
                yield str(value)
