"""Dumps for tests: made of a store, or by hand."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from quelmdb import JobStore
from quelmdb.codec import SEQUENCE_START, encode_map
from quelmdb.maintenance.dump import dump_cbor, dump_jsonl

Dump = Callable[..., int]
FORMS = [pytest.param(dump_cbor, id="cbor"), pytest.param(dump_jsonl, id="jsonl")]

VALUES: list[Any] = [
    0,
    False,
    0.0,
    "",
    [],
    {},
    -0.0,
    1e300,
    float("nan"),
    float("-inf"),
    2**70,
    -(10**5000),
    b"\x00\xff",
    "a\tb\n\x1b[31m\u2028\u202eé",
    datetime(2024, 2, 29, 1, 2, 3, 4, timezone(timedelta(hours=-3, minutes=-30))),
    date(1, 1, 1),
    UUID(int=7),
    Decimal("1.50"),
    Decimal("-1E+6000"),
    {"$bytes": "no mark"},
    {"$": 1, "b": {"$map": []}},
    {b"key": {"": [None]}},
    [[[{"a": [b""]}]]],
]


def dumped(store: JobStore, dump: Dump = dump_cbor) -> bytes:
    stream = io.BytesIO()
    assert dump(store, stream) == len(list(store.all()))
    return stream.getvalue()


HEADER = {"quelmdb": "dump", "version": 1}


def lines(*jobs: dict[str, Any], ended: bool = True) -> bytes:
    end = [{"quelmdb": "end", "jobs": len(jobs)}] if ended else []
    return "".join(json.dumps(item) + "\n" for item in (HEADER, *jobs, *end)).encode()


def items(*jobs: dict[str, Any], ended: bool = True) -> bytes:
    end = [{"quelmdb": "end", "jobs": len(jobs)}] if ended else []
    return SEQUENCE_START + b"".join(map(encode_map, (HEADER, *jobs, *end)))
