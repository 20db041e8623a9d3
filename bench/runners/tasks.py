"""The jobs as tasks of huey: `huey_consumer bench.runners.tasks.huey`.

The environment says which file is the database and whether it is synced, so only
processes that were told may import this.
"""

from __future__ import annotations

import json
import os
from typing import Any

from huey import SqliteHuey

from bench.runners import work

huey = SqliteHuey("bench", **json.loads(os.environ[work.HUEY_OPTIONS]))


@huey.task()  # type: ignore[untyped-decorator]  # huey has no types
def no_op(arguments: dict[str, Any]) -> None:
    work.do_nothing(arguments)


@huey.task()  # type: ignore[untyped-decorator]
def stamp(arguments: dict[str, Any]) -> None:
    work.stamp(arguments)
