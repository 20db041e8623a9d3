"""`quelmdb run`: works off a store with the workers of a Python module."""

from __future__ import annotations

import os
import sys

import click

from quelmdb import runner

from .common import store_argument

LEVELS = ("debug", "info", "warning", "error")


@click.command("run")
@store_argument
@click.argument("targets", metavar="MODULE:ATTRIBUTE…", nargs=-1, required=True)
@click.option(
    "--processes",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="How many processes.",
)
@click.option(
    "--threads",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="How many plain jobs each of them runs at the same time.",
)
@click.option("--until-empty", is_flag=True, help="End when nothing is left to be done.")
@click.option(
    "--log-level",
    type=click.Choice(LEVELS, case_sensitive=False),
    default="info",
    show_default=True,
    help="Debug has a line a job, info one every 10 s.",
)
def command(
    store: str,
    targets: tuple[str, ...],
    processes: int,
    threads: int,
    until_empty: bool,
    log_level: str,
) -> None:
    """Runs the jobs of a store with workers: subclasses of quelmdb.runner.Worker, or
    functions with @worker. A module alone stands for all workers that are defined in it.
    Modules are looked for in the current directory first.

    SIGTERM or Ctrl-C: no more jobs are begun, and it ends when the running ones have. A
    second one puts these back into the queue, and ends at once (exit code 1). With
    --until-empty it ends when no job of these workers is scheduled, queued or started any
    more, but of those that are paused.

    \b
    Example:
      quelmdb run jobs.qdb mypackage.mail:Welcome --processes 4
      quelmdb run jobs.qdb mypackage.mail --threads 8 --until-empty
    """
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    code = runner.run(
        store,
        targets,
        processes=processes,
        threads=threads,
        until_empty=until_empty,
        log_level=log_level.upper(),
    )
    click.get_current_context().exit(code)
