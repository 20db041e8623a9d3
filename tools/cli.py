"""The entry point. It imports nothing beyond the standard library until it must: what
it needs may be missing, and the worker processes of `quelmdb demo` import it again."""

from __future__ import annotations

import sys
from typing import NoReturn

MISSING_EXTRA = 2


def main() -> NoReturn:
    """Runs the command that the arguments of the process name, and exits with its code."""
    try:
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
    except KeyboardInterrupt:
        sys.exit(130)
    commands()
    raise AssertionError("commands() exits")
