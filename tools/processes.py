"""What the system tells of a process: its name, when it began, and whether it lives."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

_STATE, _STARTED = 0, 19  # fields behind the name in /proc/PID/stat, proc(5): 3 and 22
_DEAD = ("Z", "X")


class Process(NamedTuple):
    """One process; what is not known is None."""

    pid: int
    alive: bool
    command: str | None = None
    started_at: datetime | None = None


def process(pid: int) -> Process:
    """The process that has this id now: after a death it may be another one. Where there is
    no /proc, only whether there is one."""
    try:
        name, _, rest = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")
    except OSError:
        return Process(pid, _exists(pid))
    fields = rest.split()
    ticks = int(fields[_STARTED]) / os.sysconf("SC_CLK_TCK")
    began = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + ticks
    command = _command_line(pid) or name.partition("(")[2]
    alive = fields[_STATE] not in _DEAD
    return Process(pid, alive, command, datetime.fromtimestamp(began, UTC))


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it belongs to somebody else
        return True
    return True


def _command_line(pid: int) -> str:
    """Program and arguments, the program without its directory; nothing where that is
    hidden."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return ""
    return " ".join([os.path.basename(words[0]), *words[1:]]).strip()
