"""Errors of the command line: a line each, and an exit code; and what is no error to it."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import quelmdb
from quelmdb import Job
from tests import cli
from tests.cli import QUELMDB, ROOT, invoke, run
from tools import app

path, empty = cli.path, cli.empty


@pytest.mark.parametrize(
    "arguments",
    [
        ["info"],
        ["nonsense"],
        ["list", "STORE", "--nonsense"],
        ["list", "STORE", "--limit", "-1"],
        ["list", "STORE", "--limit", "many"],
        ["list", "STORE", "--status", "lost"],
        ["list", "STORE", "--after", str(2**80)],
        ["show", "STORE", "0"],
        ["show", "STORE", "first"],
        ["dump", "STORE", "--format", "pickle"],
        ["load", "STORE", "no such file"],
        ["load", "STORE", "."],
        ["demo", "no such directory"],
        ["demo", "--processes", "0"],
        ["info", "no such store"],
        ["info", "/dev/null"],
        ["info", "."],
        ["list", "STORE", "--worker", "w" * 1000],
        ["list", "a\nb\x1b[31mc"],
        ["info", "null\0byte"],
    ],
)
def test_an_error_is_one_line_on_stderr_and_exits_with_2(path: str, arguments: list[str]) -> None:
    result = invoke(*(path if argument == "STORE" else argument for argument in arguments))
    assert (result.exit_code, result.stdout) == (2, "")
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert "\x1b" not in result.stderr
    assert "Traceback" not in result.stderr


def test_a_bad_dump_is_one_line_that_names_the_place(path: str, tmp_path: Path) -> None:
    lines = invoke("dump", path, "--format", "jsonl").stdout_bytes.splitlines(keepends=True)
    (tmp_path / "bad").write_bytes(b"".join(lines[:3]) + lines[3][:10])
    result = invoke("load", str(tmp_path / "new.qdb"), str(tmp_path / "bad"))
    assert result.exit_code == 2
    assert re.fullmatch(r"quelmdb: line 4: .*before it: 2\)\n", result.stderr)


def test_without_click_or_rich_it_says_in_one_line_what_to_install() -> None:
    for missing in ("click", "rich"):
        code = f"import sys; sys.modules[{missing!r}] = None; from tools.cli import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout) == (2, "")
        assert len(done.stderr.splitlines()) == 1
        assert "pip install 'quelmdb[cli]'" in done.stderr


def test_a_closed_pipe_ends_it_quietly(tmp_path: Path) -> None:
    path = tmp_path / "many.qdb"
    with quelmdb.open(path) as store:
        store.insert_many([Job("w", "x" * 100)] * 200)
        store.restore([Job("w", "x" * 1000, id=n) for n in range(1000, 1200)])
    for arguments in (
        ["list", str(path)],
        ["list", str(path), "--json"],
        ["dump", str(path)],
        ["info", str(path)],
    ):
        child = subprocess.Popen(
            [*QUELMDB, *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.close()
        errors = child.stderr.read()
        child.stderr.close()
        assert (child.wait(60), errors) == (app.PIPE_CLOSED, b"")


def test_a_full_disk_under_the_output_is_an_error(path: str) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*QUELMDB, "list", path],
            cwd=ROOT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr == "quelmdb: No space left on device\n"


def _loading(path: str, preexec_fn: Callable[[], object] | None = None) -> subprocess.Popen[bytes]:
    """A load that waits for more, of which it has read the first line."""
    child = subprocess.Popen(
        [*QUELMDB, "load", path, "-"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=preexec_fn,
    )
    assert child.stdin is not None
    child.stdin.write(b'{"quelmdb":"dump","version":1}\n')
    child.stdin.flush()
    while unread(child.stdin.fileno()):
        os.sched_yield()
    return child


def test_ctrl_c_ends_it_quietly(path: str) -> None:
    child = _loading(path)
    child.send_signal(signal.SIGINT)
    output, errors = child.communicate(timeout=60)
    assert (child.returncode, output, errors.strip()) == (app.INTERRUPTED, b"", b"")


@pytest.mark.usefixtures("hears_hangups")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_backup_to_a_stream_that_is_ended_leaves_no_temporary_copy(
    number: signal.Signals, tmp_path: Path
) -> None:
    path, temporary = tmp_path / "large.qdb", tmp_path / "tmp"
    temporary.mkdir()
    with quelmdb.open(path) as store:
        store.insert_many([Job("w", "x" * 5_000)] * 200)
    child = subprocess.Popen(
        [*QUELMDB, "backup", str(path), "-"],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert child.stdout is not None
    assert child.stderr is not None
    child.stdout.read(1)  # and no more of it: the pipe is full then
    assert list(temporary.iterdir())
    child.send_signal(number)
    assert child.wait(60) == 128 + number
    assert child.stderr.read() == b""
    assert list(temporary.iterdir()) == []
    child.stdout.close()
    child.stderr.close()


def test_a_signal_that_the_process_was_begun_without_does_not_end_it(path: str) -> None:
    # As nohup does.
    child = _loading(path, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    child.send_signal(signal.SIGHUP)
    _, errors = child.communicate(timeout=60)
    assert child.returncode == app.FAILED  # by what it was given, which has no end
    assert b"line 2" in errors


_TELLING = """
import sys

class Finder:
    def find_spec(self, name, *more):
        if name == "tools.app":
            print(flush=True)

sys.meta_path.insert(0, Finder())
from tools.cli import main
main()
"""  # says when it begins to import


def test_ctrl_c_while_modules_are_imported_ends_it_quietly(path: str) -> None:
    for milliseconds in (0, 5, 10, 20, 40, 80, 160):
        child = subprocess.Popen(
            [sys.executable, "-c", _TELLING, "load", path, "-"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(milliseconds / 1000)
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=60)
        assert child.returncode in (app.INTERRUPTED, -signal.SIGINT), errors
        assert errors.strip() == b""


def unread(pipe: int) -> int:
    """How many bytes in the pipe nobody has read."""
    answer = fcntl.ioctl(pipe, termios.FIONREAD, b"\0" * 4)
    return int.from_bytes(answer, sys.byteorder)


def test_an_encoding_that_lacks_a_character_is_no_error(path: str) -> None:
    with quelmdb.open(path) as store:
        store.insert(Job("größe", "é" * 300))
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    for arguments in (["list", path], ["info", path], ["show", path, "9"]):
        done = run(*arguments, env=environment)
        assert (done.returncode, done.stderr) == (0, "")
