"""Who waits in tests of wakeup: by each mechanism, in a thread, for a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from quelmdb import wakeup
from quelmdb.wakeup import Wakeup

WAIT: Final = 30.0  # seconds: whoever waits as long was not woken
SOON: Final = 15.0

_NO_CALL: Final = 9999

_MECHANISMS: Final = {
    "futex": wakeup._FUTEX,
    "refused": wakeup._Futex(_NO_CALL),  # the kernel answers as a filter of calls may
    "polling": wakeup._NoFutex(),
}


@pytest.fixture(params=_MECHANISMS)
def mechanism(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    name: str = request.param
    if name == "futex" and isinstance(wakeup._FUTEX, wakeup._NoFutex):
        pytest.skip("there is no futex here")
    monkeypatch.setattr(wakeup, "_FUTEX", _MECHANISMS[name])
    return name


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "wakeup"


@pytest.fixture
def waiter(path: Path, mechanism: str) -> Iterator[Wakeup]:
    with closing(Wakeup(path)) as opened:
        yield opened


@contextmanager
def closing(opened: Wakeup) -> Iterator[Wakeup]:
    try:
        yield opened
    finally:
        opened.close()


def seconds_of(work: Callable[..., object], *arguments: object) -> float:
    start = time.monotonic()
    work(*arguments)
    return time.monotonic() - start


def is_woken_by(waiter: Wakeup, wake: Callable[[], object], seconds: float = WAIT) -> bool:
    """Whether a thread that waits for another number returns after `wake`."""
    ready = threading.Event()
    seen = waiter.seen()

    def wait() -> None:
        ready.set()
        waiter.wait(seen, seconds)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    ready.wait()
    wake()
    thread.join(SOON)
    return not thread.is_alive()
