"""Makes the store of a format version that is kept as test data:

    python tests/data/make_store.py tests/data/store-v1

Run once a version, and never again for one that was released: the test is that
later code reads the very bytes that earlier code wrote.
"""

import json
import os
import sys
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import quelmdb
from quelmdb import Job, Status, Store
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
    text = json.dumps(jobs, indent=1, ensure_ascii=False)
    target.with_suffix(".json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
