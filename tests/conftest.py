"""Options of the whole suite, the order in which its modules begin, and what any may ask for."""

import os
import signal
from collections.abc import Iterator

import pytest

# Of what takes long, those that the alphabet puts last: a worker would be alone with them.
_FIRST = ("test_store_contract.py", "test_reopened_contract.py", "test_state_machine.py")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="random tests at length: many minutes")


def pytest_configure() -> None:
    # The interpreters that the tests start, by the hundred, compile what they import but once.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in _FIRST)


def pytest_xdist_auto_num_workers() -> int:
    """Two a processor: much of the suite waits for children, disks and locks."""
    return 2 * (os.cpu_count() or 1)


@pytest.fixture
def hears_hangups() -> Iterator[None]:
    """What a test starts hears SIGHUP, also where this process was begun to ignore it (nohup)."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)
