"""`top` watches a store: its model, its keys and its view."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import quelmdb
from quelmdb import Job, Status
from tests.children import Child, in_child
from tests.cli import QUELMDB, ROOT, hold_snapshot, invoke
from tools import keys, topmodel, topview

PATIENCE = 30.0  # seconds


@pytest.fixture
def path(tmp_path: Path) -> Iterator[str]:
    """1 completed, 2 failed, 3 and 4 queued, 5 started without an owner."""
    path = tmp_path / "jobs.qdb"
    with quelmdb.open(path) as store:
        store.insert_many(Job("mail.welcome", {"user": n}) for n in range(4))
        done, failed = store.claim("mail.welcome", limit=2)
        store.complete(done)
        store.fail(failed, "SMTPError: no such host")
        store.insert(Job("evil\x1b[31m\nname", status="started"))
    yield str(path)
    with quelmdb.open(path) as store:
        assert store.check() == []


def claim_and_die(path: str) -> int:
    """Run in a child."""
    store = quelmdb.open(path)
    (job,) = store.claim("mail.welcome")
    return job.id or 0


# --- One look --------------------------------------------------------------


def test_once_prints_one_frame_that_fits_and_has_no_control_characters(path: str) -> None:
    result = invoke("top", path, "--once")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in result.stdout
    text = "\n".join(line.rstrip() for line in lines)
    assert "oldest queued: job 3 of mail.welcome" in text
    assert "SMTPError: no such host" in text
    assert "evil\\x1b[31m\\nna" in text


def test_a_running_job_is_as_old_as_its_claim_whatever_is_told_of_its_progress(
    path: str,
) -> None:
    before = datetime.now(UTC)
    with quelmdb.open(path, clock=lambda: int((before.timestamp() - 7200) * 1e6)) as store:
        (claimed,) = store.claim("mail.welcome")
    with quelmdb.open(path) as store:
        store.progress(claimed, 1, 2)
    (running, _) = json.loads(invoke("top", path, "--once", "--json").stdout)["running"]
    assert running["id"] == claimed.id
    assert datetime.fromisoformat(running["started_at"]) < before
    assert datetime.fromisoformat(running["updated_at"]) >= before
    (line,) = (line for line in invoke("top", path, "--once").stdout.splitlines() if "1/2" in line)
    assert " 2 h" in line


def test_once_as_json_is_one_object(path: str) -> None:
    assert in_child(claim_and_die, path, method="spawn") == 3
    facts = json.loads(invoke("top", path, "--once", "--json").stdout)
    assert facts["counts"]["queued"] == 1
    assert facts["rates"] is None
    assert facts["oldest_queued"]["id"] == 4
    assert [(job["id"], job["alive"]) for job in facts["running"]] == [(3, False), (5, True)]
    assert facts["running"][0]["pid"] in facts["dead_owners"]
    assert facts["running"][1]["pid"] is None
    assert facts["running"][0]["started_at"] == facts["running"][0]["updated_at"]
    assert [(job["id"], job["error"]) for job in facts["failed"]] == [
        (2, "SMTPError: no such host")
    ]
    assert 0 <= facts["free_bytes"] <= facts["used_bytes"] <= facts["file_bytes"]


def close_in_order(path: str) -> int:
    """Run in a child: it has claimed, and holds nothing any more."""
    with quelmdb.open(path) as store:
        (job,) = store.claim("mail.welcome")
        store.complete(job)
    return os.getpid()


def test_who_has_ended_and_holds_nothing_is_not_told_as_dead(path: str) -> None:
    ended = in_child(close_in_order, path, method="spawn")
    assert json.loads(invoke("top", path, "--once", "--json").stdout)["dead_owners"] == []
    assert in_child(claim_and_die, path, method="spawn") == 4
    (dead,) = json.loads(invoke("top", path, "--once", "--json").stdout)["dead_owners"]
    assert dead != ended


def test_with_an_interval_once_has_rates(path: str) -> None:
    facts = json.loads(invoke("top", path, "--once", "--json", "--interval", "0.1").stdout)
    assert facts["rates"] == {"inserted": 0, "claimed": 0, "completed": 0, "failed": 0}


@pytest.mark.parametrize(
    "arguments",
    [["STORE"], ["STORE", "--json"], ["nowhere", "--once"], ["STORE", "--interval", "0"]],
)
def test_an_error_is_one_line_and_exits_with_2(path: str, arguments: list[str]) -> None:
    result = invoke("top", *(path if argument == "STORE" else argument for argument in arguments))
    assert (result.exit_code, result.stdout) == (2, "")
    assert len(result.stderr.splitlines()) == 1


# --- The model -------------------------------------------------------------


def test_rates_are_those_of_the_last_seconds(path: str) -> None:
    now = 0.0
    watch = topmodel.Watch(lambda: now)
    with quelmdb.open(path) as store:
        assert watch.look(store).rates is None
        for second in range(1, 20):
            now = second
            store.insert_many([Job("busy")] * 10)
            store.complete_many(store.claim("busy", limit=4))
            rates = watch.look(store).rates
            assert rates == (10, 4, 4, 0)
        store.prune("completed")
        now += 1
        last = watch.look(store).rates
        assert last is not None
        assert last.completed == 0


def test_a_reader_that_is_behind_is_seen_with_its_process(path: str) -> None:
    now = 0.0
    watch = topmodel.Watch(lambda: now)
    with Child(hold_snapshot, path, method="spawn") as child:
        child.receive()
        with quelmdb.open(path) as store:
            assert watch.look(store).readers == []
            store.insert(Job("a"))
            store.insert(Job("a"))
            (first,) = watch.look(store).readers
            now = 7.0
            (second,) = watch.look(store).readers
            (head, *_) = [line.plain for line in topview.frame(watch.look(store), None, "", 99, 9)][
                5:
            ]
        assert (first.holder.process.pid, first.holder.behind, first.seen) == (child.pid, 2, 0)
        assert second.seen == 7
        assert "2 behind, for 0 s" in head  # since it was taken, whenever that was seen


def test_a_selection_stays_with_its_job_and_else_with_its_place() -> None:
    selection = topmodel.Selection()
    selection.follow([])
    assert selection.id is None
    selection.follow([5, 6, 7])
    assert selection.id == 5
    selection.move([5, 6, 7], 1)
    selection.follow([4, 5, 6, 7])
    assert selection.id == 6
    selection.follow([4, 5, 7])
    assert selection.id == 7
    selection.move([4, 5, 7], 10)
    assert selection.id == 7
    selection.follow([4])
    assert selection.id == 4


# --- The view --------------------------------------------------------------


@pytest.mark.parametrize("width", [20, 40, 79, 80, 200])
@pytest.mark.parametrize("height", [1, 5, 12, 24, 60])
def test_a_frame_has_the_size_of_the_screen(path: str, width: int, height: int) -> None:
    with quelmdb.open(path) as store:
        store.insert_many(Job(f"worker {n} 日本語", n, status="failed") for n in range(30))
        look = topmodel.Watch().look(store)
    lines = topview.frame(look, 2, "keys", width, height)
    assert len(lines) == height
    assert {line.cell_len for line in lines if line.plain} == {width}


def test_the_selected_job_is_in_the_frame_wherever_it_stands(path: str) -> None:
    with quelmdb.open(path) as store:
        store.insert_many([Job("w", status="failed")] * 80)
        store.insert_many([Job("w", status="started")] * 80)
        look = topmodel.Watch().look(store)
    for selected in look.jobs():
        lines = topview.frame(look, selected, "", 80, 24)
        chosen = [line.plain.split()[0] for line in lines if "reverse" in map(str, styles(line))]
        assert chosen == [str(selected)]


def styles(line: Any) -> list[object]:
    return [span.style for span in line.spans if line.plain.strip()]


# --- Keys ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "names"),
    [
        ("q", ["q"]),
        ("\x1b[A\x1b[Bj\x1bOA", ["up", "down", "j", "up"]),
        ("\x1b", ["esc"]),
        ("\r\n", ["enter", "enter"]),
        ("\x1b[5~\x1b[6~", ["page up", "page down"]),
        ("\x1b[1;5Ck", ["k"]),
        ("\x1b[", []),
        ("\x00\x7f", []),
    ],
)
def test_what_a_terminal_sends_has_names(sent: str, names: list[str]) -> None:
    assert keys.split(sent) == names


class Screen:
    """A live view in a terminal of its own."""

    def __init__(self, path: str, terminal: str = "xterm-256color") -> None:
        self._ours, self.theirs = pty.openpty()
        self.size(24, 80)
        self.before = termios.tcgetattr(self.theirs)
        environment = {**os.environ, "TERM": terminal}
        for name in ("COLUMNS", "LINES"):
            environment.pop(name, None)
        self.child = subprocess.Popen(
            [*QUELMDB, "top", path, "--interval", "0.2"],
            cwd=ROOT,
            env=environment,
            stdin=self.theirs,
            stdout=self.theirs,
            stderr=self.theirs,
        )
        self.output = ""

    def size(self, lines: int, columns: int) -> None:
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def type(self, text: str) -> None:
        self.output = ""
        os.write(self._ours, text.encode())

    def shows(self, text: str) -> None:
        """Waits until it has been shown since the last key."""
        end = time.monotonic() + PATIENCE
        while text not in self.output:
            assert time.monotonic() < end, self.output
            self._read(end - time.monotonic())

    def ends(self) -> int:
        end = time.monotonic() + PATIENCE
        while self.child.poll() is None:
            assert time.monotonic() < end
            self._read(0.05)
        self._read(0)
        return self.child.returncode

    def _read(self, timeout: float) -> None:
        if select.select([self._ours], [], [], timeout)[0]:
            self.output += os.read(self._ours, 65536).decode(errors="replace")

    def close(self) -> None:
        if self.child.poll() is None:
            self.child.kill()
            self.child.wait()
        os.close(self._ours)
        os.close(self.theirs)


@contextmanager
def live(path: str) -> Iterator[Screen]:
    screen = Screen(path)
    try:
        screen.shows("q quit")
        yield screen
    finally:
        screen.close()


def test_a_job_is_looked_into_retried_and_cancelled_with_keys(path: str) -> None:
    with live(path) as screen:
        screen.type("\x1b[F")  # the last one
        screen.shows("q quit")
        screen.type("i")
        screen.shows("failures")
        screen.type("\x1b")
        screen.shows("RUNNING")
        screen.type("r")
        screen.shows("job 2 is queued")
        screen.type("c")
        screen.shows("cancel job 5? y")
        screen.type("n")
        screen.shows("nothing is changed")
        screen.type("c")
        screen.shows("cancel job 5? y")
        screen.type("y")
        screen.shows("job 5 is cancelled")  # it was started without a claim
        screen.type("?")
        screen.shows("page up, page down")
        screen.type("?q")
        assert screen.ends() == 0
    with quelmdb.open(path) as store:
        assert store.counts()[Status.QUEUED] == 3


def test_keys_change_the_job_that_is_looked_into_and_no_other(path: str) -> None:
    with quelmdb.open(path) as store:
        store.insert(Job("mail.welcome", status="failed"))
    with live(path) as screen:
        screen.type("\x1b[F")  # the last one
        screen.shows("q quit")
        screen.type("i")
        screen.shows("no such host")
        with quelmdb.open(path) as store:
            store.retry(2)
        for _ in range(3):  # by then it has looked, and another one would be the last
            screen.output = ""
            screen.shows("Esc back")
        screen.type("r")
        screen.shows("job 2 is queued: what is failed")
        screen.type("\x1b?")
        screen.shows("page up, page down")
        screen.type("rcq")
        screen.shows("q quit")
        screen.type("q")
        assert screen.ends() == 0
    with quelmdb.open(path) as store:
        assert list(store.failed().ids()) == [6]
        assert len(store.jobs("started")) == 1


def test_a_page_shows_what_a_key_has_made_of_its_job(path: str) -> None:
    with live(path) as screen:
        screen.type("\x1b[F")
        screen.shows("q quit")
        screen.type("i")
        screen.shows("no such host")
        screen.type("r")
        screen.shows("job 2 is queued")
        screen.shows("\x1b[34mqueued")  # the status


def test_a_terminal_without_a_cursor_is_an_error_in_one_line(path: str) -> None:
    screen = Screen(path, "dumb")
    try:
        assert screen.ends() == 2
        (line,) = screen.output.splitlines()
        assert "needs a terminal that moves its cursor, and TERM is dumb: --once" in line
    finally:
        screen.close()


def test_the_view_is_live_follows_the_size_of_the_screen_and_lets_others_write(path: str) -> None:
    with live(path) as screen, quelmdb.open(path) as store:
        store.insert(Job("quite.new", status="failed"))
        screen.shows("quite.new")
        screen.output = ""
        screen.size(30, 120)
        screen.shows(" " * 90)
        screen.type("q")
        assert screen.ends() == 0


@pytest.mark.usefixtures("hears_hangups")
@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
)
def test_however_it_ends_the_terminal_is_as_it_was(
    path: str, number: signal.Signals, code: int
) -> None:
    with live(path) as screen:
        assert termios.tcgetattr(screen.theirs) != screen.before
        screen.child.send_signal(number)
        assert screen.ends() == code
        assert termios.tcgetattr(screen.theirs) == screen.before
        assert screen.output.rstrip().endswith("\x1b[?1049l")
