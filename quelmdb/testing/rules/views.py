"""Views: which part of a listing they show, that they are lazy, sized and can be iterated
again, and what they tell while jobs move."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import product
from typing import Any

import pytest

from quelmdb.errors import InvalidJobError
from quelmdb.job import Job
from quelmdb.persistence import JobStore
from quelmdb.status import INCOMPLETE, Status
from quelmdb.testing.harness import JobStoreHarness
from quelmdb.testing.rules.helpers import found, id_of, ids, label
from quelmdb.values import ANY, MAX_ID, WorkerFilter

_WORKERS = (None, "a", "b")
_STATUSES = tuple(Status)

# More jobs than any store reads in one page.
MANY = 2_500
_GROUP = 25  # jobs that a test changes at a time: it divides MANY


def _mixed(store: JobStore) -> list[Job]:
    """Jobs of all workers and statuses, with gaps among their ids."""
    jobs = store.insert_many(
        Job(worker, {"n": n}, status=status)
        for n, (worker, status) in enumerate(list(product(_WORKERS, _STATUSES)) * 3)
    )
    gaps = jobs[5::7]
    store.destroy_many(gaps)
    return [job for job in jobs if job not in gaps]


def _selected(
    jobs: list[Job],
    statuses: Sequence[Status],
    worker: WorkerFilter,
    after: int | None,
    limit: int | None,
    reverse: bool,
) -> list[Job]:
    """The rules of a listing, as plainly as they can be said."""
    chosen = [
        job
        for job in jobs
        if (not statuses or job.status in statuses) and worker in (ANY, job.worker)
    ]
    chosen.sort(key=id_of, reverse=reverse)
    if after is not None:
        chosen = [job for job in chosen if (id_of(job) < after if reverse else id_of(job) > after)]
    return chosen if limit is None else chosen[:limit]


def _uneven_status(number: int) -> Status:
    """Runs of one status, then one that is rare among another."""
    if number < 900:
        return (Status.STARTED, Status.FAILED, Status.QUEUED)[number // 300]
    return Status.STARTED if number % 70 == 0 else Status.QUEUED


class ViewRules(JobStoreHarness):
    @pytest.mark.parametrize("worker", [ANY, None, "a", "unknown"], ids=repr)
    @pytest.mark.parametrize(
        "statuses",
        [(), (Status.FAILED,), INCOMPLETE, (Status.FAILED, Status.SCHEDULED), _STATUSES],
        ids=lambda statuses: "-".join(statuses) or "none named",
    )
    def test_after_limit_and_reverse_select_a_part(
        self, store: JobStore, statuses: tuple[Status, ...], worker: WorkerFilter
    ) -> None:
        jobs = _mixed(store)
        gap = next(n for n in range(id_of(jobs[0]), MAX_ID) if store.find(n) is None)
        last = id_of(jobs[-1])
        for after, limit, reverse in product(
            (None, 0, id_of(jobs[9]), gap, last, MAX_ID), (None, 0, 3), (False, True)
        ):
            view = store.jobs(*statuses, worker=worker, after=after, limit=limit, reverse=reverse)
            expected = _selected(jobs, statuses, worker, after, limit, reverse)
            assert list(view) == expected, (after, limit, reverse)
            assert list(view.ids()) == ids(expected)
            assert len(view) == len(expected)
            if limit is None:
                assert len(view.ids()) == len(expected)

    def test_the_eight_listings_take_the_same_options(self, store: JobStore) -> None:
        jobs = _mixed(store)
        after = id_of(jobs[-1])
        for listing, statuses in (
            (store.all, ()),
            (store.completed, (Status.COMPLETED,)),
            (store.failed, (Status.FAILED,)),
            (store.incomplete, INCOMPLETE),
        ):
            for worker in (ANY, "a", None):
                expected = _selected(jobs, statuses, worker, after, 2, True)
                view = listing(worker, after=after, limit=2, reverse=True)
                assert list(view) == expected
                assert list(listing(worker)) == _selected(jobs, statuses, worker, None, None, False)

    def test_statuses_are_named_as_members_or_as_text_and_in_any_order(
        self, store: JobStore
    ) -> None:
        jobs = _mixed(store)
        expected = _selected(jobs, (Status.QUEUED, Status.FAILED), ANY, None, None, False)
        assert list(store.jobs("failed", Status.QUEUED, "failed")) == expected

    def test_an_empty_store_has_empty_views(self, store: JobStore) -> None:
        for view in (store.all(), store.incomplete("a"), store.jobs(reverse=True, after=5)):
            assert list(view) == []
            assert list(view.ids()) == []
            assert len(view) == len(view.ids()) == 0

    def test_a_long_listing_is_complete_in_both_directions(self, store: JobStore) -> None:
        jobs = store.insert_many(
            Job("a", n, status=("queued", "failed", "started")[n % 3]) for n in range(MANY)
        )
        assert list(store.all()) == jobs
        assert list(store.all("a", reverse=True)) == jobs[::-1]
        assert list(store.incomplete().ids()) == [job.id for job in jobs if job.arguments % 3 != 1]
        assert list(store.failed(limit=MANY // 4)) == jobs[1::3][: MANY // 4]
        assert len(store.failed(after=id_of(jobs[300]))) == len(jobs[301::3])

    @pytest.mark.parametrize("reverse", [False, True])
    def test_a_listing_of_uneven_parts_is_complete(self, store: JobStore, reverse: bool) -> None:
        jobs = store.insert_many(
            Job("ab"[n % 41 == 0], status=_uneven_status(n)) for n in range(MANY)
        )
        workers: tuple[WorkerFilter, ...] = (ANY, "a")
        afters = (None, id_of(jobs[450]), id_of(jobs[1700]))
        for statuses, worker, after in product(((), INCOMPLETE), workers, afters):
            view = store.jobs(*statuses, worker=worker, after=after, reverse=reverse)
            expected = _selected(jobs, statuses, worker, after, None, reverse)
            assert list(view) == expected
            assert list(view.ids()) == ids(expected)
            assert len(view) == len(expected)

    def test_a_view_can_be_iterated_again(self, store: JobStore) -> None:
        jobs = store.insert_many([Job("a"), Job("a")])
        view = store.incomplete()
        numbers = view.ids()
        assert list(view) == list(view) == jobs
        assert list(numbers) == list(numbers) == ids(jobs)

    def test_iterations_of_one_view_do_not_disturb_each_other(self, store: JobStore) -> None:
        jobs = store.insert_many([Job("a")] * 5)
        view = store.all()
        pairs = [(one.id, other.id) for one in view for other in view]
        assert pairs == list(product(ids(jobs), repeat=2))

    def test_a_view_tells_the_state_of_each_iteration(self, store: JobStore) -> None:
        view = store.failed("a")
        numbers = view.ids()
        assert list(view) == []
        job = store.insert(Job("a", status="failed"))
        assert list(view) == [job]
        assert list(numbers) == [job.id]
        assert len(view) == len(numbers) == 1
        store.update(job.replace(status="queued"))
        assert list(view) == []
        assert len(view) == len(numbers) == 0

    def test_a_view_of_a_worker_sees_jobs_of_a_worker_that_was_unknown(
        self, store: JobStore
    ) -> None:
        view = store.all("later")
        assert len(view) == 0
        job = store.insert(Job("later"))
        assert list(view) == [job]
        assert len(view) == 1

    @pytest.mark.parametrize("reverse", [False, True])
    def test_a_job_that_stays_in_a_listing_is_told_once_however_it_moves(
        self, store: JobStore, reverse: bool
    ) -> None:
        jobs = store.insert_many([Job("a")] * MANY)
        dice = random.Random(7)
        told = []
        for job in store.jobs("queued", "started", reverse=reverse):
            told.append(id_of(job))
            if len(told) % _GROUP == 0:
                store.update_many(
                    moved.replace(status=dice.choice(["queued", "started"]))
                    for moved in dice.sample(jobs, 50)
                )
        assert told == sorted(ids(jobs), key=int, reverse=reverse)  # type: ignore[arg-type]

    def test_a_job_that_leaves_and_comes_back_is_told_at_most_once(self, store: JobStore) -> None:
        jobs = store.insert_many([Job("a")] * MANY)
        dice = random.Random(7)
        told = []
        for job in store.incomplete("a"):
            told.append(id_of(job))
            if len(told) % _GROUP == 0:
                store.update_many(
                    moved.replace(
                        status=dice.choice(["queued", "failed"]), worker=dice.choice("ab")
                    )
                    for moved in dice.sample(jobs, 20)
                )
        assert told == sorted(set(told))

    def test_what_a_listing_tells_can_be_moved_out_of_it_meanwhile(self, store: JobStore) -> None:
        store.insert_many([Job("a", status="failed")] * MANY)
        told: list[Job] = []
        for job in store.failed():
            told.append(job)
            if len(told) % _GROUP == 0:
                store.update_many(moved.replace(status="queued") for moved in told[-_GROUP:])
        assert len(told) == len(store.incomplete()) == MANY
        assert len(store.failed()) == 0

    def test_what_a_listing_tells_can_be_destroyed_meanwhile(self, store: JobStore) -> None:
        store.insert_many([Job("a")] * MANY)
        told: list[int] = []
        for number in store.all(reverse=True).ids():
            told.append(number)
            if len(told) % _GROUP == 0:
                store.destroy_many(told[-_GROUP:])
        assert len(told) == MANY
        assert len(store.all()) == 0

    def test_a_listing_that_fills_itself_ends_where_it_has_a_limit(self, store: JobStore) -> None:
        store.insert_many([Job("a")] * 3)
        told = []
        for job in store.all(limit=200):
            told.append(job)
            store.insert(Job("a"))
        assert 3 <= len(told) <= 200
        assert len(store.all()) == 3 + len(told)

    def test_an_iteration_that_is_given_up_does_no_harm(self, store: JobStore) -> None:
        jobs = store.insert_many([Job("a")] * MANY)
        iterators = [iter(store.all()) for _ in range(50)]
        for iterator in iterators:
            assert next(iterator) == jobs[0]
        store.destroy(jobs[0])
        del iterators
        assert next(iter(store.all())) == jobs[1]

    def test_counts_have_every_status(self, store: JobStore) -> None:
        assert store.counts() == store.counts("a") == dict.fromkeys(Status, 0)
        jobs = _mixed(store)
        for worker in (ANY, *_WORKERS, "unknown"):
            counts = store.counts(worker)
            assert list(counts) == list(Status)
            for status in Status:
                expected = _selected(jobs, [status], worker, None, None, False)
                assert counts[status] == len(expected)

    def test_counts_follow_every_change(self, store: JobStore) -> None:
        jobs = store.insert_many([Job("a")] * 5)
        (claimed,) = store.claim("a")
        store.destroy(jobs[1])
        store.update(jobs[2].replace(worker="b", status="cancelled"))
        assert store.counts()[Status.QUEUED] == 2
        assert store.counts("a")[Status.STARTED] == 1
        assert store.counts("a")[Status.CANCELLED] == 0
        assert store.counts("b")[Status.CANCELLED] == 1
        store.complete(claimed)
        assert store.counts()[Status.STARTED] == 0
        assert store.counts()[Status.COMPLETED] == 1

    def test_workers_are_those_that_have_jobs_by_name(self, store: JobStore) -> None:
        assert store.workers() == []
        jobs = store.insert_many(
            Job(name, status=status)
            for name, status in (
                ("b", "failed"),
                (None, "queued"),
                ("ä", "completed"),
                ("a", "queued"),
            )
        )
        assert store.workers() == [None, "a", "b", "ä"]
        store.destroy(jobs[0])
        store.update(jobs[1].replace(worker="c"))
        assert store.workers() == ["a", "c", "ä"]

    @pytest.mark.parametrize("status", ["", "Queued", "done", 1, None, ["queued"]], ids=repr)
    def test_an_unknown_status_is_refused(self, store: JobStore, status: Any) -> None:
        with pytest.raises(InvalidJobError):
            list(store.jobs(Status.QUEUED, status))

    @pytest.mark.parametrize("limit", [-1, 1.0, True, "1"], ids=repr)
    def test_a_limit_is_a_number_from_zero(self, store: JobStore, limit: Any) -> None:
        with pytest.raises(ValueError, match="limit"):
            list(store.all(limit=limit))

    @pytest.mark.parametrize("after", [-1, 1.0, True, False, "1", 2**63], ids=repr)
    def test_after_is_an_id_or_zero(self, store: JobStore, after: Any) -> None:
        with pytest.raises(ValueError, match=r"id|after"):
            list(store.failed(after=after))

    def test_an_unknown_option_is_refused(self, store: JobStore) -> None:
        listing: Any = store.all
        with pytest.raises(TypeError):
            listing(before=1)

    @pytest.mark.parametrize("worker", ["", 5, "x" * 501], ids=label)
    def test_what_is_no_worker_is_refused(self, store: JobStore, worker: Any) -> None:
        with pytest.raises(InvalidJobError):
            list(store.jobs(worker=worker))
        with pytest.raises(InvalidJobError):
            store.counts(worker)

    def test_a_view_does_not_hold_what_it_once_told(self, store: JobStore) -> None:
        job = store.insert(Job("a", {"list": []}))
        view = store.all()
        for told in view:
            told.arguments["list"].append(1)
        assert next(iter(view)).arguments == found(store, job).arguments == {"list": []}
