"""Makes the store of a format version that is kept as test data:

    python tests/data/make_store.py tests/data/store-v1-options

Run once a version, and never again for one that was released: the test is that
later code reads the very bytes that earlier code wrote. `store-v1` was made before
there were options: with what `fill` had in it then, and without them.
"""

import json
import os
import sys
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import quelmdb
from quelmdb import Job, Status, Store
from quelmdb.options import Failure, Progress
from quelmdb.testing import ManualClock

VALUES = {
    "bytes": b"\x00\xff",
    "date": date(2026, 2, 3),
    "decimal": Decimal("-12.50"),
    "float": 0.1,
    "large": 2**70,
    "list": [1, [2, [3, None]], True],
    "map": {"a": {"b": "c"}},
    "text": "Grüße, 世界",
    "time": datetime(2026, 2, 3, 4, 5, 6, 789, tzinfo=UTC),
    "uuid": UUID("12345678-1234-5678-1234-567812345678"),
}


def fill(store: Store, clock: ManualClock) -> None:
    """Every status, kind of worker, kind of value, and every place that a part can stand in."""
    store.insert_many(Job("values", value) for value in VALUES.values())
    store.insert_many(Job("statuses", status.value, status=status) for status in Status)
    store.insert(Job(None, "no worker"))
    store.insert(Job("ü" * 250, "the longest name"))
    store.insert(Job("large", {"blob": "x" * 5000}, result="y" * 3000, error="z" * 2500))
    clock.advance(1_000_000)
    done, failed, released, held = store.claim("values", limit=4)
    store.complete(done, result={"answer": 42})
    store.fail(failed, "ValueError: it did not work")
    store.release(released)
    store.update(held.replace(arguments="held by a process that is gone"))
    store.insert(Job("chosen", "an id of its own", id=1_000_000))
    store.destroy(store.insert(Job("gone")))
    _fill_options(store, clock)


def _fill_options(store: Store, clock: ManualClock) -> None:
    """Everything that few jobs have, and every kind of entry in `by_option`."""
    later = clock.time + timedelta(days=1)
    early = [Failure(n, clock.time, later, f"error {n}") for n in range(1, 4)]
    every = Job(
        "options",
        {"all": "of them"},
        run_at=later,
        priority=2**31 - 1,
        unique_key="ü" * 100,
        max_attempts=2**32 - 1,
        progress=Progress(1, 2**63 - 1, "ö" * 100),
        failures=early,
        result="r" * 64,
        error="e" * 64,
    )
    store.insert(every)  # scheduled, with everything; its failures stand outside
    store.insert(every.replace(run_at=None, unique_key="queued", failures=early[:1]))
    store.insert(every.replace(status="completed", failures=[Failure(1, later, later, "f" * 999)]))
    store.insert(Job(None, "before all", priority=1))
    store.insert(Job("paused", "waits", priority=3, run_at=clock.time))
    store.insert_many(Job("retries", n, max_attempts=2) for n in range(6))
    store.pause("paused")
    store.pause(None)
    store.pause("never heard of")
    clock.advance(1_000_000)
    asked, again, progressing, used_up, given_up, plain = store.claim("retries", limit=6)
    store.cancel(asked)
    store.progress(asked, 5, note="goes on")
    store.fail(again, "at first", retry_at=later)
    store.progress(progressing, 7, 8)
    clock.advance(1_000_000)
    store.fail(used_up, "x" * 3000)
    store.cancel(given_up)
    store.release(given_up)
    store.fail(plain, "no more")
    store.retry(plain)


def describe(store: Store) -> list[dict[str, object]]:
    """Every job, as plain text that JSON carries."""
    return [{name: repr(value) for name, value in job.as_dict().items()} for job in store.all()]


def main() -> None:
    target = Path(sys.argv[1])
    clock = ManualClock()
    with quelmdb.open(target, clock=clock) as store:
        fill(store, clock)
        jobs, used = describe(store), store.info().used_bytes
    data = target / "000001" / "data.mdb"
    os.truncate(data, used)  # without what is allocated ahead
    (target / "000001" / "lock.mdb").unlink()
    (target / "wakeup").unlink(missing_ok=True)
    text = json.dumps(jobs, indent=1, ensure_ascii=False)
    target.with_suffix(".json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
