"""The demo ends with every file accounted for, whatever is killed on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

import quelmdb
from quelmdb import Job, Status
from tools import demo, indexer

ROOT = Path(__file__).parents[1]
DEMO = [sys.executable, "-m", "tools", "demo"]
PATIENCE = 60.0  # seconds
DEATHS = 3  # of its process, after which a file is failed


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Python files, good and broken, and what is none."""
    root = tmp_path / "tree"
    (root / "package" / "__pycache__").mkdir(parents=True)
    (root / "package" / "directory.py").mkdir()
    (root / "good.py").write_text("class A:\n    def f(self): ...\n\nasync def g(): ...\n")
    (root / "empty.py").write_text("")
    (root / "latin.py").write_bytes(b"# coding: latin-1\nname = '\xe9'\n")
    (root / "warns.py").write_text("pattern = '\\d'\n")
    (root / "package" / "__init__.py").write_text("x = 1\n")
    (root / "broken.py").write_text("def f(:\n")
    (root / "bytes.py").write_bytes(b"name = '\xff'\n")
    (root / "null.py").write_bytes(b"x = 1\0\n")
    (root / "deep.py").write_text("(" * 500 + ")" * 500)
    (root / "package" / "__pycache__" / "cached.py").write_text("x = 1\n")
    (root / "notes.txt").write_text("no Python\n")
    (root / "gone.py").symlink_to(root / "nowhere.py")
    return root


GOOD = {"good.py", "empty.py", "latin.py", "warns.py", "package/__init__.py"}
BROKEN = {"broken.py", "bytes.py", "null.py", "deep.py"}


@pytest.fixture
def big_tree(tmp_path: Path) -> Path:
    """Enough work to be interrupted in: 80 files of some 10 ms, each tenth broken."""
    root = tmp_path / "big"
    root.mkdir()
    for number in range(80):
        end = "def broken(:\n" if number % 10 == 0 else ""
        (root / f"m{number:03}.py").write_text("def f(a, b=1): return [a, b]\n" * 400 + end)
    return root


@pytest.fixture
def store_path(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "jobs.qdb"
    yield path
    with quelmdb.open(path) as store:
        assert store.check() == []


def run(tree: Path, store_path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*DEMO, str(tree), "--store", str(store_path), "--processes", "2", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def start(tree: Path, store_path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*DEMO, str(tree), "--store", str(store_path), "--processes", "2"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def workers(store_path: Path, but: frozenset[int] = frozenset(), count: int = 2) -> set[int]:
    """Waits for `count` living processes, other than these, that hold jobs of the store."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            with closing(quelmdb.open(store_path, create=False, readonly=True)) as store:
                owners = store.info().owners
        except quelmdb.StoreNotFoundError:
            owners = []
        pids = {owner.pid for owner in owners if owner.alive} - but
        if len(pids) >= count:
            return pids
        time.sleep(0.005)
    raise AssertionError("no process claimed")


def by_status(store_path: Path) -> dict[Status, set[str]]:
    """The files of the store's jobs, by status. Each file has one job."""
    with quelmdb.open(store_path, create=False) as store:
        jobs = list(store.all(indexer.WORKER))
    names = [job.arguments["path"] for job in jobs]
    assert len(set(names)) == len(names)
    found: dict[Status, set[str]] = {}
    for job, name in zip(jobs, names, strict=True):
        found.setdefault(job.status, set()).add(name)
    return found


def accounted_for(big_tree: Path) -> dict[Status, set[str]]:
    names = {path.name for path in big_tree.iterdir()}
    broken = {name for name in names if name.endswith("0.py")}
    return {Status.COMPLETED: names - broken, Status.FAILED: broken}


def test_good_files_complete_and_broken_files_fail(tree: Path, store_path: Path) -> None:
    done = run(tree, store_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert by_status(store_path) == {Status.COMPLETED: GOOD, Status.FAILED: BROKEN}
    assert "9 new files" in done.stdout
    assert "SyntaxError" in done.stdout
    assert f"info {store_path}" in done.stdout


def test_a_result_counts_what_a_file_defines(tree: Path) -> None:
    result = indexer.index(tree / "good.py")
    assert {name: result[name] for name in ("lines", "functions", "classes")} == {
        "lines": 4,
        "functions": 2,
        "classes": 1,
    }


def test_a_second_run_queues_only_what_is_new(tree: Path, store_path: Path) -> None:
    run(tree, store_path)
    again = run(tree, store_path)
    assert "0 new files; 9 were there already" in again.stdout
    assert "nothing was left to do" in again.stdout
    (tree / "new.py").write_text("x = 1\n")
    assert "1 new files; 9 were there already" in run(tree, store_path).stdout
    assert by_status(store_path) == {Status.COMPLETED: GOOD | {"new.py"}, Status.FAILED: BROKEN}


def test_a_file_whose_name_is_no_text_is_indexed(tree: Path, store_path: Path) -> None:
    name = b"\xff\n.py"
    Path(os.fsdecode(os.fsencode(tree) + b"/" + name)).write_text("def broken(:\n")
    for _ in range(2):
        assert run(tree, store_path).returncode == 0
    assert by_status(store_path)[Status.FAILED] == BROKEN | {name}


def test_jobs_of_somebody_else_in_the_store_are_left_alone(tree: Path, store_path: Path) -> None:
    with quelmdb.open(store_path) as store:
        store.insert(Job("mail.welcome"))
        odd = store.insert(Job(indexer.WORKER, "no map"))
    assert run(tree, store_path).returncode == 0
    with quelmdb.open(store_path) as store:
        assert store.counts("mail.welcome")[Status.QUEUED] == 1
        failed = store.find(odd)
        assert failed is not None
        assert failed.status is Status.FAILED


def test_the_parent_goes_on_when_a_process_is_killed(big_tree: Path, store_path: Path) -> None:
    parent = start(big_tree, store_path)
    victim = min(workers(store_path))
    os.kill(victim, signal.SIGKILL)
    _, errors = parent.communicate(timeout=PATIENCE)
    assert parent.returncode == 0, errors
    assert f"process {victim} died (Killed)" in errors
    assert by_status(store_path) == accounted_for(big_tree)


def test_killed_in_the_middle_and_run_again_every_file_is_accounted_for(
    big_tree: Path, store_path: Path
) -> None:
    parent = start(big_tree, store_path)
    # The first processes, then the parent with those that replace them. A third time would be
    # one too many for a file that was held each time: it is taken for what kills.
    pids = workers(store_path)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    workers(store_path, but=frozenset(pids))
    os.killpg(parent.pid, signal.SIGKILL)
    parent.communicate(timeout=PATIENCE)
    assert by_status(store_path) != accounted_for(big_tree)
    again = run(big_tree, store_path)
    assert again.returncode == 0, again.stderr
    assert by_status(store_path) == accounted_for(big_tree)


def test_ctrl_c_ends_all_processes_quietly_and_says_how_to_go_on(
    big_tree: Path, store_path: Path
) -> None:
    parent = start(big_tree, store_path)
    pids = workers(store_path)
    os.killpg(parent.pid, signal.SIGINT)
    _, errors = parent.communicate(timeout=PATIENCE)
    assert parent.returncode == 130
    assert "Traceback" not in errors
    assert f"to go on: python -m tools demo {big_tree} --store {store_path}" in errors
    with closing(quelmdb.open(store_path)) as store:
        store.rescue()
        assert not pids & {owner.pid for owner in store.info().owners}
    assert run(big_tree, store_path).returncode == 0
    assert by_status(store_path) == accounted_for(big_tree)


DRIVER = """
import os, signal, sys
sys.path.insert(0, {root!r})
from tools import indexer

real = indexer.index

def index(path):
    if path.name in {poison!r}:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(path)

indexer.index = index  # in each process, which imports this file

if __name__ == "__main__":
    from tools.cli import main
    main()
elif {broken}:
    del indexer.Index
"""


def run_driver(
    tree: Path, store_path: Path, poison: frozenset[str] = frozenset(), broken: bool = False
) -> subprocess.CompletedProcess[str]:
    """The demo where some files kill their process, or where no process can start."""
    driver = tree.parent / "driver.py"
    driver.write_text(DRIVER.format(root=str(ROOT), poison=set(poison), broken=broken))
    return subprocess.run(
        [sys.executable, driver, "demo", tree, "--store", store_path, "--processes", "1"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_a_file_that_kills_its_process_fails_and_costs_no_other_file(
    tree: Path, store_path: Path
) -> None:
    done = run_driver(tree, store_path, frozenset({"good.py", "latin.py"}))
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("died (Killed)") == 2 * DEATHS
    assert done.stdout.count("processes died while they") == 2
    killers = {"good.py", "latin.py"}
    assert by_status(store_path) == {
        Status.COMPLETED: GOOD - killers,
        Status.FAILED: BROKEN | killers,
    }
    with quelmdb.open(store_path) as store:
        deaths = {
            job.arguments["path"]: sum(failure.died for failure in job.failures)
            for job in store.all()
        }
    assert [deaths.pop(name) for name in sorted(killers)] == [DEATHS, DEATHS]
    assert max(deaths.values()) <= 1


def test_where_no_process_can_start_the_demo_ends_and_says_what_is_left(
    tree: Path, store_path: Path
) -> None:
    done = run_driver(tree, store_path, broken=True)
    assert done.returncode == 1
    assert "giving up" in done.stderr
    assert "9 files are left: " in done.stdout
    assert run(tree, store_path).returncode == 0
    assert by_status(store_path) == {Status.COMPLETED: GOOD, Status.FAILED: BROKEN}


def test_files_are_listed_in_one_order_without_what_was_installed(tree: Path) -> None:
    (tree / "site-packages").mkdir()
    (tree / "site-packages" / "other.py").write_text("")
    names = [str(path.relative_to(tree)) for path in demo.python_files(tree)]
    assert names == [
        *("broken.py", "bytes.py", "deep.py", "empty.py", "good.py", "latin.py"),
        *("null.py", "warns.py", "package/__init__.py"),
    ]


def test_a_tree_without_python_files_is_an_error(tmp_path: Path, store_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    done = run(empty, store_path)
    assert done.returncode == 2
    assert "no Python files" in done.stderr
