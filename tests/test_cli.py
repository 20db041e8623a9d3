"""The command line: what it prints for scripts, its exit codes, its help."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

import quelmdb
from quelmdb import Job, Problem, Status, Store
from quelmdb.maintenance.dump import dump_cbor, dump_jsonl
from tests import cli
from tests.cli import HOSTILE, invoke
from tools import app, render

COMMANDS = tuple(app.commands.commands)

path, empty = cli.path, cli.empty


def rows(result: Result) -> list[list[str]]:
    assert result.exit_code == 0, result.stderr
    return [line.split("\t") for line in result.stdout.splitlines()]


# --- For scripts -----------------------------------------------------------


def test_info_gives_lines_of_name_and_value(path: str) -> None:
    lines = rows(invoke("info", path))
    facts = {fields[0]: fields[1] for fields in lines if len(fields) == 2}
    assert facts["path"] == path
    assert facts["durability"] == "full"
    jobs = [fields[1:] for fields in lines if fields[0] == "jobs"]
    assert ["mail.welcome", "failed", "1"] in jobs
    assert ["", "queued", "2"] in jobs
    assert sum(int(count) for _, _, count in jobs) == 8


def test_info_as_json_is_whole(path: str) -> None:
    info = json.loads(invoke("info", path, "--json").stdout)
    assert info["counts"] == {
        "scheduled": 0,
        "queued": 5,
        "started": 1,
        "completed": 1,
        "failed": 1,
        "cancelled": 0,
    }
    assert {worker["worker"] for worker in info["workers"]} == {
        *("mail.welcome", "big", "started"),
        HOSTILE,
        None,
    }


def test_list_gives_a_line_a_job_and_fields_between_tabs(path: str) -> None:
    lines = rows(invoke("list", path))
    assert [int(fields[0]) for fields in lines] == list(range(1, 9))
    assert {len(fields) for fields in lines} == {8}
    job, status, worker, created, _, attempt, arguments, error = lines[1]
    assert (job, status, worker, attempt) == ("2", "failed", "mail.welcome", "1")
    assert created.endswith("+00:00")
    assert json.loads(arguments) == {"user": 1}
    assert error == "SMTPError: no such host"
    assert lines[2][2] == ""


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        (["--status", "failed"], [2]),
        (["--status", "failed", "--status", "completed"], [1, 2]),
        (["--worker", "mail.welcome"], [1, 2]),
        (["--worker", ""], [3, 4]),
        (["--worker", "unknown"], []),
        (["--after", "6"], [7, 8]),
        (["--after", "0"], [1, 2, 3, 4, 5, 6, 7, 8]),
        (["--limit", "2"], [1, 2]),
        (["--limit", "0"], [1, 2, 3, 4, 5, 6, 7, 8]),
        (["--reverse", "--limit", "2"], [8, 7]),
        (["--reverse", "--after", "3"], [2, 1]),
        (["--status", "queued", "--worker", "", "--after", "3", "--limit", "5"], [4]),
    ],
)
def test_list_takes_the_options_of_a_listing(path: str, options: list[str], ids: list[int]) -> None:
    assert [int(fields[0]) for fields in rows(invoke("list", path, *options))] == ids
    whole = invoke("list", path, "--json", *options).stdout.splitlines()
    assert [json.loads(line)["id"] for line in whole] == ids


def test_list_shortens_large_arguments_and_json_does_not(path: str) -> None:
    (line,) = rows(invoke("list", path, "--worker", "big"))
    assert len(line[6]) <= 200
    assert line[6].endswith("…")
    whole = json.loads(invoke("list", path, "--worker", "big", "--json").stdout)
    assert whole["arguments"]["text"] == "x" * 100_000


def test_list_leaves_out_a_job_that_cannot_be_read_and_names_it(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quelmdb.maintenance.dump.fields_of", all_but_the_third)
    result = invoke("list", path, "--json")
    assert [json.loads(line)["id"] for line in result.stdout.splitlines()] == [1, 2, 4, 5, 6, 7, 8]
    assert result.stderr == "quelmdb list: job 3 is left out: 3 bytes are no value\n"


def all_but_the_third(job: Job) -> dict[str, Any]:
    if job.id == 3:
        raise quelmdb.DecodeError("3 bytes are no value")
    return {"id": job.id}


def test_show_gives_the_whole_job(path: str) -> None:
    fields = dict(line for line in rows(invoke("show", path, "7")))
    assert json.loads(fields["arguments"]) == {"text": "x" * 100_000, "rest": list(range(1000))}
    failed = json.loads(invoke("show", path, "2", "--json").stdout)
    assert failed["error"] == "SMTPError: no such host\nsecond line"


def test_show_of_a_missing_job_exits_with_1(path: str) -> None:
    result = invoke("show", path, "99")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"quelmdb show: no job 99 in {path}\n"


def test_check_of_a_sound_store_prints_nothing_and_exits_with_0(path: str) -> None:
    result = invoke("check", path)
    assert (result.exit_code, result.output) == (0, "")
    assert json.loads(invoke("check", path, "--json").stdout) == []


def test_check_lists_problems_and_exits_with_1(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    problems = [Problem("index", "in the wrong place", 5), Problem("meta", "is\nmissing")]
    monkeypatch.setattr(Store, "check", lambda self: problems)
    result = invoke("check", path)
    assert result.exit_code == 1
    assert result.stdout == "index\t5\tin the wrong place\nmeta\t\tis\\nmissing\n"
    result = invoke("check", path, "--json")
    assert result.exit_code == 1
    assert [problem["rule"] for problem in json.loads(result.stdout)] == ["index", "meta"]
    monkeypatch.undo()


def test_a_dump_is_that_of_the_library(path: str) -> None:
    for form, dump in (("cbor", dump_cbor), ("jsonl", dump_jsonl)):
        stream = io.BytesIO()
        with quelmdb.open(path) as store:
            dump(store, stream)
        assert invoke("dump", path, "--format", form).stdout_bytes == stream.getvalue()


@pytest.mark.parametrize("form", ["cbor", "jsonl"])
def test_a_dump_loads_into_another_store_and_is_identical(
    path: str, tmp_path: Path, form: str
) -> None:
    dump = invoke("dump", path, "--format", form).stdout_bytes
    file = tmp_path / "dump"
    file.write_bytes(dump)
    other = str(tmp_path / "other.qdb")
    loaded = invoke("load", other, str(file))
    assert (loaded.exit_code, loaded.stdout) == (0, f"8 jobs loaded into {other}\n")
    assert jobs_of(other) == [job.replace(status=loaded_status(job)) for job in jobs_of(path)]
    third = str(tmp_path / "third.qdb")
    assert invoke("load", third, "-", input=dump).exit_code == 0
    assert jobs_of(third) == jobs_of(other)
    assert invoke("check", third).exit_code == 0


def test_a_dump_loads_into_a_new_store_of_another_durability(path: str, tmp_path: Path) -> None:
    dump = invoke("dump", path).stdout_bytes
    other = str(tmp_path / "other.qdb")
    options = ("--durability", "ephemeral", "--capacity")
    refused = invoke("load", other, "-", *options, "8 bananas", input=dump)
    assert (refused.exit_code, "'8 bananas' is no number of bytes" in refused.stderr) == (2, True)
    assert invoke("load", other, "-", *options, "8MiB", input=dump).exit_code == 0
    facts = json.loads(invoke("info", other, "--json").stdout)
    assert (facts["durability"], facts["file_bytes"]) == ("ephemeral", 8 * 2**20)
    assert len(jobs_of(other)) == len(jobs_of(path))
    full = invoke("load", other, "-", "--durability", "full", input=dump)
    assert (full.exit_code, "was created with the durability 'ephemeral'" in full.stderr) == (
        2,
        True,
    )
    assert invoke("check", other).exit_code == 0


def jobs_of(path: str) -> list[Job]:
    with quelmdb.open(path, create=False) as store:
        return list(store.all())


def loaded_status(job: Job) -> Status:
    return Status.QUEUED if job.status is Status.STARTED else job.status


def test_a_dump_that_leaves_a_job_out_says_so_and_exits_with_1(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quelmdb.maintenance.dump.fields_of", all_but_the_third)
    result = invoke("dump", path)
    assert result.exit_code == 1
    assert result.stderr == (
        "quelmdb: job 3 is left out: 3 bytes are no value\nquelmdb dump: 1 of 8 jobs left out\n"
    )


def test_looking_writes_nothing(path: str) -> None:
    def state() -> dict[str, tuple[int, bytes]]:
        files = [file for file in Path(path).rglob("*") if file.name == "data.mdb"]
        return {str(file): (file.stat().st_mtime_ns, file.read_bytes()) for file in files}

    before = state()
    assert before
    for arguments in (["info"], ["list"], ["dump"], ["check"], ["show"]):
        last = ["1"] if arguments == ["show"] else []
        assert invoke(*arguments, path, *last).exit_code == 0
    assert state() == before


def test_looking_at_what_is_not_there_creates_nothing(tmp_path: Path) -> None:
    for command in ("info", "list", "dump", "check"):
        result = invoke(command, str(tmp_path / "nowhere"))
        assert result.exit_code == 2
        assert len(result.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_no_output_for_scripts_has_control_characters(path: str) -> None:
    for arguments in (["info", path], ["list", path], ["show", path, "5"]):
        output = invoke(*arguments).stdout
        assert not set(output) & {"\x1b", "\u202e"}
        assert "evil\\x1b[31m\\t\\nname\\u202e [bold]" in output


# --- Help ------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_each_command_has_an_example(command: str) -> None:
    result = invoke(command, "--help")
    assert result.exit_code == 0
    assert f"Example:\n    quelmdb {command}" in result.stdout


def test_the_help_names_every_command_and_exit_code() -> None:
    text = invoke("--help").stdout
    assert all(re.search(rf"^  {name} ", text, re.MULTILINE) for name in COMMANDS)
    for code in (0, app.NO, app.FAILED, app.INTERRUPTED, app.PIPE_CLOSED):
        assert str(code) in text


def test_the_installed_command_is_the_same() -> None:
    installed = shutil.which("quelmdb", path=str(Path(sys.executable).parent))
    if installed is None:
        pytest.skip("quelmdb is not installed in this environment")
    done = subprocess.run([installed, "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "quelmdb, version 0.1.0\n")


# --- Rendering -------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "width", "text"),
    [
        ({"a": [1, None, "b"]}, 80, '{"a": [1, null, "b"]}'),
        ("x" * 10**6, 5, '"xxx…'),
        (list(range(10**6)), 10, "[0, 1, 2, …"[:9] + "…"),
        ({b"\0": b"\1"}, 80, '{{"$bytes":"AA=="}: {"$bytes":"AQ=="}}'),
        ("\x9b\u200b", 80, '"\\u009b\\u200b"'),
    ],
)
def test_values_are_shortened_to_a_width(value: Any, width: int, text: str) -> None:
    assert render.shortened(value, width) == text
    assert len(render.shortened(value, width)) <= width


def test_sizes_are_told_in_their_unit() -> None:
    sizes: Sequence[tuple[int, str]] = [
        (0, "0 bytes"),
        (1023, "1,023 bytes"),
        (1536, "1.5 KiB"),
        (5 * 2**40, "5.0 TiB"),
    ]
    for count, text in sizes:
        assert render.size(count) == text
