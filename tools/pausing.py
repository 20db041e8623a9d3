"""`quelmdb pause` and `quelmdb resume`: whether jobs of a worker are claimed."""

from __future__ import annotations

import click

from .common import changing, json_option, store_argument, worker_argument
from .many import tell
from .render import NO_WORKER, say


@click.command("pause")
@store_argument
@worker_argument
@json_option
def pause(store: str, worker: str, as_json: bool) -> None:
    """Has no job of a worker claimed.

    By no process, until it is resumed. What is started goes on. WORKER '' means the jobs
    without one.

    \b
    Example:
      quelmdb pause jobs.qdb mail.welcome
      quelmdb info jobs.qdb --json | jq .paused
    """
    _set(store, worker, True, as_json)


@click.command("resume")
@store_argument
@worker_argument
@json_option
def resume(store: str, worker: str, as_json: bool) -> None:
    """Ends the pause of a worker.

    Its jobs are claimed again. WORKER '' means the jobs without one.

    \b
    Example:
      quelmdb resume jobs.qdb mail.welcome
    """
    _set(store, worker, False, as_json)


def _set(store: str, worker: str, paused: bool, as_json: bool) -> None:
    with changing(store) as opened:
        before = (worker or None) in opened.paused()
        if paused:
            opened.pause(worker or None)
        else:
            opened.resume(worker or None)
        known = (worker or None) in opened.workers()
    name = worker or NO_WORKER
    if not known:
        say(f"quelmdb: {name} has no jobs in {store}")
    facts = {
        "command": "pause" if paused else "resume",
        "worker": worker or None,
        "paused": paused,
        "changed": before != paused,
    }
    already = "" if before != paused else " already"
    tell(facts, f"{name} is {'paused' if paused else 'not paused'}{already}", as_json)
