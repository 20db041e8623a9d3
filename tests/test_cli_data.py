"""The command line around the jobs: filters of dump, conflicts of load, completion, --json."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete

import quelmdb
from quelmdb import Job
from tests.cli import invoke
from tools import app

ROOT = Path(__file__).parents[1]
WITHOUT_JSON = {"dump", "run", "demo", "completion"}
"""What they print is no answer, or has a form of its own."""


@pytest.fixture
def path(tmp_path: Path) -> Iterator[str]:
    """1 to 3 of mail.welcome, 2 cancelled; 4 and 5 without a worker."""
    path = tmp_path / "jobs.qdb"
    with quelmdb.open(path) as store:
        store.insert_many(Job("mail.welcome", n) for n in range(3))
        store.cancel(2)
        store.insert_many([Job(), Job()])
    yield str(path)
    with quelmdb.open(path) as store:
        assert store.check() == []


# --- Dump and load ---------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        ([], [1, 2, 3, 4, 5]),
        (["--status", "cancelled"], [2]),
        (["--status", "queued", "--status", "cancelled", "--worker", "mail.welcome"], [1, 2, 3]),
        (["--worker", ""], [4, 5]),
        (["--after", "3"], [4, 5]),
        (["--after", "1", "--limit", "2"], [2, 3]),
        (["--worker", "unknown"], []),
    ],
)
@pytest.mark.parametrize("form", ["cbor", "jsonl"])
def test_a_dump_takes_the_options_of_a_filter_and_loads(
    path: str, tmp_path: Path, options: list[str], ids: list[int], form: str
) -> None:
    dumped = invoke("dump", path, "--format", form, *options)
    assert (dumped.exit_code, dumped.stderr) == (0, "")
    other = str(tmp_path / "other.qdb")
    result = invoke("load", other, "-", "--json", input=dumped.stdout_bytes)
    assert json.loads(result.stdout) == {
        "command": "load",
        "store": other,
        "loaded": len(ids),
        "skipped": 0,
        "replaced": 0,
    }
    with quelmdb.open(other) as store:
        assert list(store.all().ids()) == ids
        assert store.check() == []


def test_load_says_what_became_of_jobs_whose_ids_are_taken(path: str) -> None:
    dump = invoke("dump", path).stdout_bytes
    with quelmdb.open(path) as store:
        store.destroy_many((1, 5))
        store.update(Job("mine", id=3))
    refused = invoke("load", path, "-", input=dump)
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "item 3: job 2 is stored already" in refused.stderr
    skipped = invoke("load", path, "-", "--on-conflict", "skip", input=dump)
    assert skipped.output == f"1 job loaded into {path}, 4 skipped\n"
    with quelmdb.open(path) as store:
        assert [job.worker for job in store.jobs(after=2, limit=1)] == ["mine"]
    replaced = invoke("load", path, "-", "--on-conflict", "replace", input=dump)
    assert replaced.output == f"0 jobs loaded into {path}, 5 replaced\n"
    assert invoke("dump", path).stdout_bytes == dump


def stored(path: str) -> int:
    """How many jobs; none where the store is not made yet."""
    try:
        with quelmdb.open(path, create=False, readonly=True) as store:
            return len(store.all())
    except quelmdb.StoreError:
        return 0


def test_a_load_that_is_interrupted_says_how_far_it_was(tmp_path: Path) -> None:
    copy = str(tmp_path / "copy.qdb")
    job = b'{"id":%d,"status":"queued","worker":"w"}\n'
    with subprocess.Popen(
        [sys.executable, "-m", "tools", "load", copy, "-"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as child:
        assert child.stdin is not None
        assert child.stderr is not None
        child.stdin.write(b'{"quelmdb":"dump","version":1}\n')
        child.stdin.writelines(job % n for n in range(1, 5001))
        child.stdin.flush()
        end = time.monotonic() + 60
        while stored(copy) < 4000:  # it reads the pipe in blocks
            assert time.monotonic() < end
            time.sleep(0.05)
        child.send_signal(signal.SIGINT)
        assert child.wait(60) == 130
        told = child.stderr.read().decode()
    # A batch that is stored may not be told of yet.
    says = r"quelmdb load: interrupted, with [34],000 jobs done: --on-conflict skip does the rest"
    assert re.fullmatch(says, told.strip())


# --- Completion ------------------------------------------------------------


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_for_the_shell_is_printed(shell: str) -> None:
    result = invoke("completion", shell)
    assert result.exit_code == 0
    assert f"_QUELMDB_COMPLETE={shell}_complete" in result.stdout


def test_a_shell_without_a_script_is_an_error_in_one_line() -> None:
    result = invoke("completion", "csh")
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)


def completed(words: list[str], incomplete: str) -> list[str]:
    found = ShellComplete(app.commands, {}, "quelmdb", "_Q").get_completions(words, incomplete)
    return [item.value for item in found]


def test_commands_options_and_workers_are_completed(path: str) -> None:
    assert completed([], "re") == ["readers", "requeue", "resume", "retry"]
    assert completed(["retry", path], "--d") == ["--dry-run"]
    assert completed(["list", path, "--status"], "c") == ["completed", "cancelled"]
    assert completed(["list", path, "--worker"], "m") == ["mail.welcome"]
    assert completed(["pause", path], "") == ["mail.welcome"]
    assert completed(["pause", "no such store"], "") == []


def test_a_store_is_completed_as_a_directory() -> None:
    found = ShellComplete(app.commands, {}, "quelmdb", "_Q").get_completions(["info"], "jo")
    assert [item.type for item in found] == ["dir"]


def test_the_program_answers_the_shell(path: str) -> None:
    environment = {
        **os.environ,
        "_QUELMDB_COMPLETE": "bash_complete",
        "COMP_WORDS": "quelmdb pa",
        "COMP_CWORD": "1",
    }
    code = "import sys; sys.argv[0] = 'quelmdb'; from tools.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "plain,pause\n", "")


# --- Every command ---------------------------------------------------------


@pytest.mark.parametrize("name", app.commands.commands)
def test_every_command_has_json_where_a_script_wants_it(name: str) -> None:
    options = {flag for option in app.commands.commands[name].params for flag in option.opts}
    assert ("--json" in options) == (name not in WITHOUT_JSON)


@pytest.mark.parametrize("name", app.commands.commands)
def test_every_option_of_a_command_has_a_help(name: str) -> None:
    for option in app.commands.commands[name].params:
        assert not isinstance(option, click.Option) or option.help, option.name
