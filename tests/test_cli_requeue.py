"""`requeue` takes back what dead processes held, and, where it is told to, what others hold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import quelmdb
from quelmdb import Job, Status
from tests import cli
from tests.children import in_child
from tests.cli import done, ids, invoke, run
from tests.damage import raw
from tools import requeue

path = cli.of_many_statuses


def claim_and_die(path: str) -> list[int]:
    """Run in a child."""
    store = quelmdb.open(path)
    return [job.id or 0 for job in store.claim("mail", limit=2)]


def test_requeue_takes_back_what_dead_processes_held(path: str) -> None:
    assert in_child(claim_and_die, path, method="spawn") == [7, 8]
    facts = done("requeue", path, "--dry-run")
    assert (facts["rescued"], facts["requeued"]) == (2, 0)
    assert ids(path, "started") == [7, 8]
    assert done("requeue", path, "7")["rescued"] == 2
    assert ids(path, "queued") == [7, 8]
    result = invoke("requeue", path)
    assert (result.exit_code, result.output) == (0, "0 jobs taken back from dead processes\n")


def test_requeue_leaves_what_a_living_process_holds_unless_forced(path: str) -> None:
    with quelmdb.open(path) as store:
        held, other = store.claim("mail", limit=2)
        named = run("requeue", path, str(held.id))
        assert (named.returncode, "held by a living process" in named.stderr) == (1, True)
        filtered = run("requeue", path, "--worker", "mail", "--yes")
        assert filtered.stdout.endswith("2 passed over\n")
        assert run("requeue", path, str(held.id), "--force").returncode == 0
        with pytest.raises(quelmdb.StaleClaim):
            store.complete(held)
        found = store.find(held)
        assert found is not None
        assert (found.status, found.attempt) == (Status.QUEUED, 0)
        store.complete(other)


def test_requeue_takes_jobs_without_an_owner_by_id_or_filter(path: str) -> None:
    with quelmdb.open(path) as store:
        store.insert_many(Job("que", {"n": n}, status="started") for n in range(3))
    assert done("requeue", path)["requeued"] == 0
    assert done("requeue", path, "11")["requeued"] == 1
    assert done("requeue", path, "--older-than", "1h", "--yes")["requeued"] == 0
    assert done("requeue", path, "--worker", "que", "--dry-run")["requeued"] == 2
    assert done("requeue", path, "--worker", "que", "--yes")["requeued"] == 2
    assert ids(path, "queued") == [7, 8, 11, 12, 13]
    with quelmdb.open(path) as store:
        assert [job.arguments["n"] for job in store.jobs(worker="que")] == [0, 1, 2]


def test_requeue_of_what_is_not_started_exits_with_1(path: str) -> None:
    facts = done("requeue", path, "3", "99", code=1)
    assert facts["refused"]["3"] == "job 3 is failed, not started"
    assert facts["refused"]["99"] == "job 99 is not stored (any more)"


def completed(store: quelmdb.Store) -> None:
    """By its worker, as Que does it: nothing but `update` can."""
    store.update(Job("que", id=11, status="completed", result="done"))


def destroyed(store: quelmdb.Store) -> None:
    store.destroy(11)


def started_again(store: quelmdb.Store) -> None:
    store.update_many(Job("que", id=11, status=status) for status in ("queued", "started"))


@pytest.mark.parametrize("options", [["11"], ["--worker", "que", "--yes"]])
@pytest.mark.parametrize(
    ("meanwhile", "left"),
    [(completed, [Status.COMPLETED]), (destroyed, []), (started_again, [Status.STARTED])],
)
def test_requeue_changes_nothing_that_has_changed_since_it_looked(
    path: str,
    options: list[str],
    meanwhile: Callable[[quelmdb.Store], None],
    left: list[Status],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with quelmdb.open(path) as store:
        store.insert(Job("que", status="started"))
    decide = requeue._Requeue.may_be_taken
    looks = iter([False] * options.count("--yes") + [True])  # a filter looks once to count

    def decided(self: requeue._Requeue, job: Job) -> bool:
        decision = decide(self, job)
        if next(looks):
            with quelmdb.open(path) as store:
                meanwhile(store)
        return decision

    monkeypatch.setattr(requeue._Requeue, "may_be_taken", decided)
    facts = done("requeue", path, *options, code=1 if options == ["11"] else 0)
    assert (facts["requeued"], facts["passed_over"] + len(facts["refused"])) == (0, 1)
    with quelmdb.open(path) as store:
        assert [job.status for job in store.jobs(worker="que")] == left


def test_requeue_takes_more_than_a_page_and_leaves_what_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "damaged.qdb"
    with quelmdb.open(path) as store:
        store.insert_many([Job("que", status="started")] * 1200)
        store.insert(Job("que", status="started", priority=1, result="x" * 20_000))
    with raw(path) as content, content.transaction.cursor(content.databases.payloads) as cursor:
        assert cursor.first()
        assert cursor.delete()
    result = invoke("requeue", str(path), "--worker", "que", "--yes")
    told = "0 jobs taken back from dead processes; of others 1,200 requeued\n"
    assert (result.exit_code, result.stdout) == (0, told)
    assert "job 1201" in result.stderr
    assert done("requeue", str(path), "1201", code=1)["refused"].keys() == {"1201"}
