"""What several commands share: their arguments and options, and opening a store."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from contextlib import closing
from datetime import timedelta
from typing import NoReturn

import click
from click.shell_completion import CompletionItem

import quelmdb
from quelmdb import ANY, Status, Store
from quelmdb.errors import QuelmdbError
from quelmdb.values import WorkerFilter


def _directories(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Has the shell complete a directory."""
    return [CompletionItem(incomplete, type="dir")]


def _workers(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The workers of the store that was typed before, where it can be read."""
    # Behind an option that has no value yet click has not given the arguments their places.
    path = context.params.get("store") or next(iter(context.args), "")
    try:
        with looking_at(path) as opened:
            names = [name for name in opened.workers() if name is not None]
    except (QuelmdbError, OSError, ValueError):
        return []
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


store_argument = click.argument("store", metavar="STORE", shell_complete=_directories)
json_option = click.option("--json", "as_json", is_flag=True, help="JSON, whole and exact.")
worker_argument = click.argument("worker", metavar="WORKER", shell_complete=_workers)
worker_option = click.option(
    "--worker",
    metavar="NAME",
    help="Only jobs of this worker; '' means those without one.",
    shell_complete=_workers,
)


def worker_filter(worker: str | None) -> WorkerFilter:
    """What the option --worker means."""
    return ANY if worker is None else worker or None


def status_choice(statuses: Sequence[Status]) -> click.Choice[str]:
    """The type of an option: one of these."""
    return click.Choice([status.value for status in statuses])


def time_span(text: str) -> timedelta:
    """The type of an option: a number with s, min, h, d or w behind it."""
    found = re.fullmatch(r"(\d{1,9}) ?(s|min|m|h|d|w)", text)
    if found is None:
        raise click.BadParameter(f"{text!r} is no span of time, such as 90s, 15min, 6h, 7d or 4w")
    seconds = {"s": 1, "min": 60, "m": 60, "h": 3600, "d": 86400, "w": 604800}[found[2]]
    try:
        return timedelta(seconds=int(found[1]) * seconds)
    except OverflowError:
        raise click.BadParameter(f"{text!r} is longer than time itself") from None


def byte_count(text: str) -> int:
    """The type of an option: bytes, with KiB, MiB, GiB or TiB behind their number."""
    found = re.fullmatch(r"(\d+) ?(|[KMGT]iB)", text)
    if found is None:
        raise click.BadParameter(f"{text!r} is no number of bytes, such as 4096, 512MiB or 4GiB")
    unit: int = 1024 ** ("", "KiB", "MiB", "GiB", "TiB").index(found[2])
    return int(found[1]) * unit


def looking_at(path: str) -> closing[Store]:
    """The store at `path` for a `with` block, neither changed nor created."""
    return closing(quelmdb.open(path, create=False, readonly=True))


def changing(path: str) -> closing[Store]:
    """The store at `path` for a `with` block, to be changed, and not created."""
    return closing(quelmdb.open(path, create=False))


def program() -> str:
    """What to type to run this program again, from the same directory."""
    name = click.get_current_context().find_root().info_name or "quelmdb"
    typed = sys.argv[0]
    found = shutil.which(name)
    if os.path.basename(typed) != name or (found and os.path.samefile(found, typed)):
        return name
    return shlex.quote(typed)


def answer_no() -> NoReturn:
    """Ends the command with the exit code for "no"."""
    click.get_current_context().exit(1)
