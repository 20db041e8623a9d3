"""What becomes of jobs, as metrics and in logs. (The kit has the events themselves.)"""

from __future__ import annotations

import logging
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

import quelmdb
from quelmdb import Job, Status, events, otel

pytest_plugins = ["tests.fixtures"]


@pytest.fixture
def metrics() -> InMemoryMetricReader:
    return InMemoryMetricReader()


@pytest.fixture
def provider(metrics: InMemoryMetricReader) -> MeterProvider:
    return MeterProvider([metrics])


def _points(metrics: InMemoryMetricReader) -> dict[str, list[Any]]:
    data = metrics.get_metrics_data()
    if data is None:
        return {}
    return {
        metric.name: list(metric.data.data_points)
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


def _end_some(store: quelmdb.Store) -> None:
    store.insert_many([Job("a"), Job("a"), Job(None)])
    first, second = store.claim("a", limit=2)
    store.complete(first)
    store.fail(second, "Traceback\nValueError: no")
    store.release(*store.claim())


def test_metrics_count_events_by_worker_and_time_them(
    store: quelmdb.Store, metrics: InMemoryMetricReader, provider: MeterProvider
) -> None:
    end = otel.instrument(store, provider)
    _end_some(store)
    points = _points(metrics)
    counted = {
        (point.attributes["worker"], point.attributes["event"]): point.value
        for point in points["quelmdb.events"]
    }
    assert counted == {
        ("a", "claimed"): 2,
        ("a", "completed"): 1,
        ("a", "failed"): 1,
        ("(none)", "claimed"): 1,
        ("(none)", "released"): 1,
    }
    assert sum(point.count for point in points["quelmdb.job.queued"]) == 3
    assert sum(point.count for point in points["quelmdb.job.duration"]) == 3
    assert all(point.min >= 0 for point in points["quelmdb.job.duration"])
    end()
    _end_some(store)
    assert sum(point.count for point in _points(metrics)["quelmdb.job.queued"]) == 3


def test_metrics_tell_how_many_jobs_are_stored(
    store: quelmdb.Store, metrics: InMemoryMetricReader, provider: MeterProvider
) -> None:
    otel.instrument(store, provider)
    _end_some(store)
    found = {
        Status(point.attributes["status"]): point.value
        for point in _points(metrics)["quelmdb.jobs"]
    }
    assert found == store.counts()
    store.close()
    assert not _points(metrics).get("quelmdb.jobs")


def test_logs_have_a_line_for_each_event(
    store: quelmdb.Store, caplog: pytest.LogCaptureFixture
) -> None:
    logger = logging.getLogger("jobs")
    store.listen(events.log_to(logger))
    with caplog.at_level(logging.DEBUG, "jobs"):
        _end_some(store)
    lines = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert [level for level, _ in lines] == ["DEBUG"] * 3 + ["WARNING"] + ["DEBUG"] * 2
    assert lines[3][1].startswith("job 2 of a, attempt 1: failed after ")
    assert lines[3][1].endswith("s: ValueError: no")
    assert caplog.records[3].__dict__["event"].job.id == 2
