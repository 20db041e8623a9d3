"""`quelmdb backup`: a copy of a store that is in use."""

from __future__ import annotations

import json
import sys

import click

from .common import json_option, looking_at, store_argument
from .render import say, size, to_terminal


@click.command("backup")
@store_argument
@click.argument("target", type=click.Path(exists=False))
@json_option
def command(store: str, target: str, as_json: bool) -> None:
    """Copies a store, as it is at one point in time, into the new directory TARGET, which is a
    store then; or to stdout, as a tar archive of it, where TARGET is -.

    Nobody waits for it. The copy has no holes. (A copy by cp of a store in use is damaged.)

    \b
    Example:
      quelmdb backup jobs.qdb /backups/jobs-monday.qdb
      quelmdb backup jobs.qdb - | ssh host 'mkdir jobs.qdb && tar -x -C jobs.qdb'
    """
    if target == "-" and to_terminal():
        raise click.UsageError("the archive is for a pipe or a file, not for a terminal")
    with looking_at(store) as opened:
        copied = opened.backup(sys.stdout.buffer if target == "-" else target)
    if target == "-":
        return
    if as_json:
        click.echo(json.dumps({"path": target, "bytes": copied}))
    else:
        say(f"{target} has it, {size(copied)}")
