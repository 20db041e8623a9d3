"""The command line on a terminal: tables for people."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios

import pytest

import quelmdb
from quelmdb import Job
from tests import cli
from tests.cli import QUELMDB, ROOT

path, empty = cli.path, cli.empty


def in_terminal(*arguments: str, columns: int = 80) -> tuple[int, str]:
    """Exit code, and all that a terminal of that width is sent."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color"}
    environment.pop("COLUMNS", None)
    child = subprocess.Popen(
        [*QUELMDB, *arguments],
        cwd=ROOT,
        env=environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    output = bytearray()
    while True:
        try:
            data = os.read(ours, 65536)
        except OSError:  # how Linux tells that the other end is closed
            break
        if not data:
            break
        output += data
    os.close(ours)
    return child.wait(60), output.decode()


def seen(text: str) -> list[str]:
    """The lines without colours."""
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text).replace("\r", "").split("\n")


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_tables_fit_the_terminal(path: str, columns: int) -> None:
    for arguments in (["list", path], ["info", path]):
        code, output = in_terminal(*arguments, columns=columns)
        assert code == 0
        assert max(len(line) for line in seen(output) if path not in line) <= columns


def test_on_a_terminal_list_is_a_table(path: str) -> None:
    code, output = in_terminal("list", path)
    assert code == 0
    lines = seen(output)
    assert lines[0].split() == ["id", "status", "worker", "age", "tries", "arguments"]
    assert "SMTPError" in lines[2]
    assert "(none)" in lines[3]
    assert "\x1b[31m\t" not in output


def test_on_a_terminal_list_shows_a_screenful_and_says_how_to_go_on(empty: str) -> None:
    with quelmdb.open(empty) as store:
        store.insert_many([Job("w")] * 120)
    _, output = in_terminal("list", empty)
    lines = seen(output)
    assert [line.split()[0] for line in lines[1:51]] == [str(n) for n in range(1, 51)]
    assert lines[51].startswith("--after 50 ")
    _, output = in_terminal("list", empty, "--limit", "2", "--after", "118")
    assert len(seen(output)) == 4
    _, output = in_terminal("list", empty, "--limit", "0")
    assert len(seen(output)) == 122


def test_on_a_terminal_show_is_indented_and_safe(path: str) -> None:
    code, output = in_terminal("show", path, "5")
    assert code == 0
    assert "evil\\x1b[31m\\t\\nname\\u202e [bold]" in "\n".join(seen(output))
    _, output = in_terminal("show", path, "7")
    assert "x" * 100_000 in "".join(seen(output))


def test_on_a_terminal_check_says_that_all_is_well(path: str) -> None:
    code, output = in_terminal("check", path)
    assert code == 0
    assert "8 jobs, no problems" in output


def test_on_a_terminal_an_empty_store_says_so(empty: str) -> None:
    for command in ("info", "list"):
        code, output = in_terminal(command, empty)
        assert code == 0
        assert "no jobs" in output


def test_cbor_does_not_go_to_a_terminal(path: str) -> None:
    code, output = in_terminal("dump", path)
    assert code == 2
    assert "--format jsonl" in output
    code, output = in_terminal("dump", path, "--format", "jsonl")
    assert code == 0
    assert len(seen(output)) == 11
