"""`Store.requeue`: what operators take away is what they have seen, or nothing."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import quelmdb
from quelmdb import Event, Job, Status, Store
from quelmdb.errors import InvalidJobError


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with quelmdb.open(tmp_path / "store") as made:
        yield made
        assert made.check() == []


def started(store: Store) -> Job:
    """By `insert`, as Que does it: nobody has claimed it."""
    return store.insert(Job("que", {"n": 1}, status="started", priority=3, unique_key="one"))


def test_a_job_that_was_claimed_is_taken_away_and_the_attempt_does_not_count(store: Store) -> None:
    store.insert(Job("w"))
    (job,) = store.claim()
    (requeued,) = store.requeue([job])
    assert (requeued.status, requeued.attempt, requeued.owner) == (Status.QUEUED, 0, 0)
    with pytest.raises(quelmdb.StaleClaim):
        store.complete(job)
    assert [again.id for again in store.claim()] == [job.id]


def test_its_progress_keeps_nobody_from_taking_it_away(store: Store) -> None:
    store.insert(Job("w"))
    (job,) = store.claim()
    store.progress(job, 1)
    assert len(store.requeue([job])) == 1


def test_a_job_that_was_never_claimed_is_taken_as_it_is(store: Store) -> None:
    job = started(store)
    (requeued,) = store.requeue([job])
    assert requeued == job.replace(status="queued", updated_at=requeued.updated_at)
    assert store.find(job) == requeued
    assert [claimed.id for claimed in store.claim("que")] == [job.id]


def test_attempts_of_old_claims_stay(store: Store) -> None:
    store.insert(Job("w"))
    (job,) = store.claim()
    completed = store.complete(job)
    again = store.update(completed.replace(status="started"))
    (requeued,) = store.requeue([again])
    assert (requeued.status, requeued.attempt) == (Status.QUEUED, 1)


def test_what_is_no_longer_as_it_was_seen_is_passed_over(store: Store) -> None:
    store.insert_many([Job("w")] * 3)
    finished, reclaimed, held = store.claim(limit=3)
    store.complete(finished)
    store.release(reclaimed)
    (newer,) = store.claim()
    gone, written, whole = (store.insert(Job("que", status="started")) for _ in range(3))
    store.destroy(gone)
    store.update(written)
    seen = [finished, reclaimed, held, gone, written, whole, whole]
    assert [job.id for job in store.requeue(seen)] == [held.id, whole.id]
    assert store.find(newer) == newer
    assert {job.id for job in store.jobs("started")} == {newer.id, written.id}


def test_of_one_that_is_to_be_cancelled_nobody_gets_it_again(store: Store) -> None:
    store.insert(Job("w"))
    (job,) = store.claim()
    store.cancel(job)
    assert [one.status for one in store.requeue([job])] == [Status.CANCELLED]


def test_it_is_told_to_who_listens_and_due_at_once(store: Store) -> None:
    events: list[Event] = []
    store.listen(events.append)
    later = datetime.now(UTC) + timedelta(days=1)
    store.requeue([store.insert(Job("que", status="started", run_at=later))])
    assert [event.kind for event in events] == ["released"]
    assert len(store.claim("que")) == 1


def test_what_is_no_stored_job_is_an_error(store: Store) -> None:
    job = started(store)
    for other in (Job("w"), job.id):
        with pytest.raises(InvalidJobError):
            store.requeue([job, other])  # type: ignore[list-item]
    assert store.find(job) == job
