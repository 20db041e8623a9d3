"""The commands that change jobs: retry, cancel, prune, pause, resume."""

from __future__ import annotations

import os
import pty
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest

import quelmdb
from quelmdb import Job, Status
from tests import cli
from tests.cli import QUELMDB, ROOT, done, ids, invoke, run
from tests.damage import raw
from tools import common

path = cli.of_many_statuses


def answered(answer: bytes, *arguments: str) -> tuple[int, str]:
    """Exit code and output of a command in a terminal where that answer is typed."""
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [*QUELMDB, *arguments],
        cwd=ROOT,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    output = b""
    while True:
        try:
            data = os.read(ours, 4096)
        except OSError:  # how Linux tells that the other end is closed
            break
        output += data
        if answer and b"[y/N]" in output:
            os.write(ours, answer)
            answer = b""
    os.close(ours)
    return child.wait(60), output.decode()


# --- By ids ----------------------------------------------------------------


def test_jobs_that_are_named_are_retried_each_once(path: str) -> None:
    result = invoke("retry", path, "3", "9", "3")
    assert (result.exit_code, result.output) == (0, "2 jobs retried\n")
    assert ids(path, "queued") == [3, 7, 8, 9]


def test_one_that_cannot_be_retried_is_named_and_the_others_are_retried(path: str) -> None:
    result = invoke("retry", path, "1", "3", "99")
    assert (result.exit_code, result.stdout) == (1, "1 job retried, 2 passed over\n")
    one, other = result.stderr.splitlines()
    assert one.startswith("quelmdb retry: job 1 is completed: ")
    assert other == "quelmdb retry: job 99 is not stored (any more)"
    assert ids(path, "queued") == [3, 7, 8]


def test_refused_ids_stand_in_the_json_with_their_reasons(path: str) -> None:
    facts = done("cancel", path, "7", "1", code=1)
    assert (facts["command"], facts["cancelled"], facts["passed_over"]) == ("cancel", 1, 1)
    assert list(facts["refused"]) == ["1"]
    assert ids(path, "cancelled") == [7, 9]


def test_a_dry_run_by_ids_changes_nothing_and_tells_the_same(path: str) -> None:
    facts = done("retry", path, "1", "3", "99", "--dry-run", code=1)
    assert (facts["dry_run"], facts["retried"]) == (True, 1)
    assert list(facts["refused"]) == ["1", "99"]
    assert ids(path, "queued") == [7, 8]


def test_a_started_job_is_asked_to_end_when_it_is_cancelled(path: str) -> None:
    with quelmdb.open(path) as store:
        (job,) = store.claim("mail")
        assert run("cancel", path, str(job.id)).returncode == 0
        assert store.cancel_requested(job)
        assert store.release(job).status is Status.CANCELLED


# --- By a filter -----------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "retried"),
    [
        (["--status", "failed"], [3, 4, 5, 6, 10]),
        (["--worker", "mail"], [3, 4, 5, 6]),
        (["--worker", ""], [10]),
        (["--status", "cancelled", "--status", "failed"], [3, 4, 5, 6, 9, 10]),
        (["--older-than", "7d"], [3, 4]),
        (["--older-than", "7d", "--limit", "1"], [3]),
        (["--older-than", "0s", "--worker", "mail"], [3, 4, 5, 6]),
        (["--status", "failed", "--limit", "3"], [3, 4, 5]),
        (["--worker", "unknown"], []),
        (["--status", "scheduled"], []),
    ],
)
def test_a_filter_retries_what_its_dry_run_counts(
    path: str, options: list[str], retried: list[int]
) -> None:
    dry = done("retry", path, *options, "--dry-run")
    assert dry == {
        "command": "retry",
        "dry_run": True,
        "retried": len(retried),
        "passed_over": 0,
        "refused": {},
    }
    assert ids(path, "queued") == [7, 8]
    assert done("retry", path, *options, "--yes") == {**dry, "dry_run": False}
    assert ids(path, "queued") == sorted([7, 8, *retried])


def test_a_filter_takes_more_than_a_page(path: str) -> None:
    with quelmdb.open(path) as store:
        store.insert_many([Job("many", status="failed")] * 1201)
    result = invoke("retry", path, "--worker", "many", "--yes")
    assert (result.exit_code, result.output) == (0, "1,201 jobs retried\n")


def test_what_a_filter_finds_and_cannot_change_is_passed_over(path: str) -> None:
    with quelmdb.open(path) as store:
        store.insert_many(Job("key", unique_key="k", status=s) for s in ("failed", "queued"))
    result = invoke("retry", path, "--worker", "key", "--yes")
    assert (result.exit_code, result.output) == (0, "0 jobs retried, 1 passed over\n")


def test_a_corrupt_record_is_passed_over_and_named(tmp_path: Path) -> None:
    path = tmp_path / "damaged.qdb"
    with quelmdb.open(path) as store:
        store.insert_many([Job("w", status="failed")] * 20)
    with raw(path) as content:
        content.put_record(7, content.record(8))
    by_id = invoke("retry", str(path), "6", "7")
    assert (by_id.exit_code, by_id.stdout) == (1, "1 job retried, 1 passed over\n")
    result = invoke("retry", str(path), "--worker", "w", "--yes")
    assert (result.exit_code, result.stdout) == (0, "18 jobs retried, 1 passed over\n")
    assert "quelmdb: passed over: " in result.stderr
    assert "job 7" in result.stderr
    with quelmdb.open(path) as store:
        assert {problem.job_id for problem in store.check()} == {7}


def test_cancel_takes_what_waits_unless_started_is_named(path: str) -> None:
    with quelmdb.open(path) as store:
        store.insert(Job("mail", status="started"))
    assert done("cancel", path, "--worker", "mail", "--yes")["cancelled"] == 2
    assert ids(path, "cancelled") == [7, 8, 9]
    assert done("cancel", path, "--status", "started", "--dry-run")["cancelled"] == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["retry", "STORE"],
        ["retry", "STORE", "3", "--status", "failed"],
        ["retry", "STORE", "--status", "completed"],
        ["retry", "STORE", "--status", "failed"],
        ["retry", "STORE", "--older-than", "yesterday"],
        ["retry", "STORE", "--older-than", "999999999w"],
        ["cancel", "STORE", "--status", "failed"],
        ["cancel", "STORE", "--worker", "mail"],
        ["prune", "STORE"],
        ["prune", "STORE", "--status", "queued", "--yes"],
        ["prune", "STORE", "--keep", "1"],
        ["requeue", "STORE", "3", "--worker", "mail"],
        ["requeue", "STORE", "--force"],
        ["retry", "no such store", "3"],
        ["prune", "no such store", "--keep", "1"],
        ["requeue", "no such store"],
        ["pause", "no such store", "mail"],
        ["pause", "STORE", "w" * 1000],
    ],
)
def test_an_error_is_one_line_exits_with_2_and_changes_nothing(
    path: str, arguments: list[str]
) -> None:
    before = invoke("dump", path).stdout_bytes
    result = invoke(*(path if argument == "STORE" else argument for argument in arguments))
    assert (result.exit_code, result.stdout) == (2, "")
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert invoke("dump", path).stdout_bytes == before


def test_on_a_terminal_a_filter_names_the_number_and_asks(path: str) -> None:
    code, output = answered(b"n\n", "retry", path, "--status", "failed")
    assert (code, "retry 5 jobs (failed)? [y/N]" in output) == (1, True)
    assert ids(path, "failed") == [3, 4, 5, 6, 10]
    code, output = answered(b"y\n", "retry", path, "--worker", "mail")
    assert (code, "retry 4 jobs (failed of mail)?" in output) == (0, True)
    assert ids(path, "failed") == [10]
    code, output = answered(b"y\n", "prune", path, "--keep", "1")
    assert (code, "delete 3 jobs (completed or failed or cancelled)?" in output) == (0, True)


# --- Prune, pause, resume --------------------------------------------------


@pytest.mark.parametrize(
    ("options", "deleted"),
    [
        (["--status", "completed"], [1, 2]),
        (["--older-than", "7d"], [1, 2, 3, 4]),
        (["--older-than", "7d", "--keep", "5"], [1, 2, 3]),
        (["--keep", "3"], [1, 2, 3, 4, 5]),
        (["--keep", "0", "--worker", "mail", "--status", "failed"], [3, 4, 5, 6]),
        (["--keep", "100"], []),
        (["--worker", ""], [10]),
    ],
)
def test_prune_deletes_what_its_dry_run_counts(
    path: str, options: list[str], deleted: list[int]
) -> None:
    before = ids(path)
    dry = done("prune", path, *options, "--dry-run")
    assert dry == {"command": "prune", "dry_run": True, "deleted": len(deleted)}
    assert ids(path) == before
    assert done("prune", path, *options, "--yes") == {**dry, "dry_run": False}
    assert ids(path) == [job_id for job_id in before if job_id not in deleted]


def test_a_worker_is_paused_and_resumed(path: str) -> None:
    assert invoke("pause", path, "mail").output == "mail is paused\n"
    again = done("pause", path, "mail")
    assert (again["worker"], again["paused"], again["changed"]) == ("mail", True, False)
    with quelmdb.open(path) as store:
        assert store.paused() == ["mail"]
        assert store.claim("mail") == []
    assert invoke("resume", path, "mail").output == "mail is not paused\n"
    assert done("pause", path, "")["worker"] is None
    assert done("resume", path, "")["changed"]
    with quelmdb.open(path) as store:
        assert store.paused() == []
        assert len(store.claim("mail")) == 1


def test_pausing_a_worker_that_has_no_jobs_is_remarked(path: str) -> None:
    result = invoke("pause", path, "mial")
    assert (result.exit_code, result.stdout) == (0, "mial is paused\n")
    assert result.stderr == f"quelmdb: mial has no jobs in {path}\n"


def test_spans_of_time_have_units() -> None:
    spans = {
        "90s": timedelta(seconds=90),
        "15min": timedelta(minutes=15),
        "15 m": timedelta(minutes=15),
        "6h": timedelta(hours=6),
        "7d": timedelta(days=7),
        "4w": timedelta(weeks=4),
    }
    assert {text: common.time_span(text) for text in spans} == spans
