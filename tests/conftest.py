"""Options of the whole suite."""

import os

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="random tests at length: many minutes")


def pytest_xdist_auto_num_workers() -> int:
    """Two a processor: much of the suite waits for children, disks and locks."""
    return 2 * (os.cpu_count() or 1)
