"""What becomes of jobs as metrics of OpenTelemetry (the extra `otel`).

    quelmdb.otel.instrument(store)

    quelmdb.events         counter    jobs claimed, completed, failed, ..., by worker
    quelmdb.job.queued     histogram  seconds that jobs were queued, up to their claim
    quelmdb.job.duration   histogram  seconds from a claim to its end, by how it ended
    quelmdb.jobs           gauge      jobs stored, by status

Without a provider of metrics, which the application sets up, nothing is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

try:
    from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation, get_meter
except ImportError as error:
    raise ImportError(
        "quelmdb.otel needs the API of OpenTelemetry: pip install 'quelmdb[otel]'"
    ) from error

from quelmdb.errors import StoreClosedError
from quelmdb.events import Event
from quelmdb.persistence import JobStore
from quelmdb.status import Status

_NO_WORKER: Final = "(none)"  # an attribute has no None


def instrument(store: JobStore, provider: MeterProvider | None = None) -> Callable[[], None]:
    """Has what this process does to the jobs of `store` measured, and how many it holds by
    status, O(1) an export. `provider`: None is the application's global one. Returns what
    ends it; a store that was closed is told of no more."""
    meter = get_meter("quelmdb", meter_provider=provider)
    events = meter.create_counter("quelmdb.events", "{job}", "What has become of jobs")
    queued = meter.create_histogram("quelmdb.job.queued", "s", "Time from queued to claimed")
    duration = meter.create_histogram("quelmdb.job.duration", "s", "Time from claim to end")
    ended = False

    def counts(options: CallbackOptions) -> Iterable[Observation]:
        try:
            found = {} if ended else store.counts()
        except StoreClosedError:
            return []
        return [Observation(count, {"status": status.value}) for status, count in found.items()]

    def hook(event: Event) -> None:
        attributes = {"worker": event.job.worker or _NO_WORKER}
        events.add(1, {**attributes, "event": event.kind})
        if event.kind == "claimed":
            queued.record(event.seconds, attributes)
        elif event.was is Status.STARTED:
            duration.record(event.seconds, {**attributes, "event": event.kind})

    meter.create_observable_gauge("quelmdb.jobs", [counts], "{job}", "Jobs stored, by status")
    unlisten = store.listen(hook)

    def end() -> None:
        nonlocal ended
        ended = True
        unlisten()

    return end
