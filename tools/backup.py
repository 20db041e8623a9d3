"""`quelmdb backup`: a copy of a store that is in use."""

from __future__ import annotations

import json
import sys
from typing import Any

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

    The archive is made of a temporary copy, which needs as much space as the store has in use
    in the directory that TMPDIR names (/tmp, if none), until the archive is written.

    \b
    Example:
      quelmdb backup jobs.qdb /backups/jobs-monday.qdb
      quelmdb backup jobs.qdb - | ssh host 'mkdir jobs.qdb && tar -x -C jobs.qdb'
    """
    if target == "-" and to_terminal():
        raise click.UsageError("the archive is for a pipe or a file, not for a terminal")
    with looking_at(store) as opened:
        copied = opened.backup(_Output() if target == "-" else target)
    if target == "-":
        return
    if as_json:
        click.echo(json.dumps({"path": target, "bytes": copied}))
    else:
        say(f"{target} has it, {size(copied)}")


class _Output:
    """stdout, for an archive. Where it is broken off in the middle, its end is not written:
    nobody may read it any more, and whoever waits for that deletes no temporary copy."""

    def __init__(self) -> None:
        sys.stdout.flush()
        buffer: Any = sys.stdout.buffer
        self._raw = getattr(buffer, "raw", buffer)  # what is buffered is written at the exit

    def write(self, data: bytes) -> None:
        if isinstance(sys.exc_info()[1], KeyboardInterrupt | SystemExit):
            return
        rest = memoryview(data)
        while rest:
            rest = rest[self._raw.write(rest) :]
