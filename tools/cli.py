"""The entry point. It imports nothing beyond the standard library until it must: what it needs
may be missing, and the worker processes of `quelmdb demo` import it again. (Installed, it is
inside of the package `quelmdb`, which is imported before it.)"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

MISSING_EXTRA = 2
INTERRUPTED = 130  # what a shell reports for SIGINT


def main() -> NoReturn:
    """Runs the command that the arguments of the process name, and exits with its code."""
    try:
        with _quiet_interrupts():
            from .app import commands
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in ("click", "rich"):
            raise
        print(
            f"quelmdb: the command line needs {missing}; install it: pip install 'quelmdb[cli]'",
            file=sys.stderr,
        )
        sys.exit(MISSING_EXTRA)
    try:
        commands()
    except KeyboardInterrupt:  # before or behind what click takes care of
        sys.exit(INTERRUPTED)
    raise AssertionError("commands() exits")


@contextmanager
def _quiet_interrupts() -> Iterator[None]:
    """Ctrl-C ends the process without a word. As an exception it could come out in the middle of
    an import, where Python prints some and others are taken for another error."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # else it is ignored, or a test's
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
