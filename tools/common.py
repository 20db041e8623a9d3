"""What several commands share: their arguments and options, and opening a store to look."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from contextlib import closing
from typing import NoReturn

import click

import quelmdb
from quelmdb import Store

store_argument = click.argument("store", metavar="STORE")
json_option = click.option("--json", "as_json", is_flag=True, help="JSON, whole and exact.")


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
