"""The jobs as quelmdb's workers: `quelmdb run STORE bench.runners.jobs`."""

from __future__ import annotations

from typing import Any

from bench.runners import work
from quelmdb.runner import worker


@worker
def no_op(arguments: dict[str, Any]) -> None:
    work.do_nothing(arguments)


@worker
def stamp(arguments: dict[str, Any]) -> None:
    work.stamp(arguments)
