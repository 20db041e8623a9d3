"""Redis on loopback: a server of its own for each store, a stream with a group of consumers."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

import redis
import redis.asyncio

from bench.compare.peer import Ability, AsyncInsert, Durability, Fairness, Peer, Queue, Size
from bench.data import Row

ALWAYS: Final = "redis always"
EVERYSEC: Final = "redis everysec"

_SERVER: Final = "redis-server"
_STREAM: Final = "jobs"
_GROUP: Final = "workers"
_CONNECTIONS: Final = 100  # that the tasks of an event loop share
_PATIENCE: Final = 10.0  # seconds for a server to come up


class Redis(Queue):
    """One client; its pool has a connection for each thread."""

    can = frozenset({Ability.INSERT_BATCH, Ability.CLAIM_BATCH, Ability.PROCESSES})

    def __init__(self, place: Path) -> None:
        self._place = place
        self._client = redis.Redis(unix_socket_path=str(_socket(place)))
        self._consumer = str(os.getpid())
        try:
            self._client.xgroup_create(_STREAM, _GROUP, id="0", mkstream=True)
        except redis.ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    def close(self) -> None:
        self._client.close()

    def insert(self, row: Row) -> Any:
        return self._client.xadd(_STREAM, _fields(row))

    def insert_many(self, ready: Any) -> Any:
        pipeline = self._client.pipeline(transaction=True)
        for row in ready:
            pipeline.xadd(_STREAM, _fields(row))
        return pipeline.execute()

    def claim(self, limit: int) -> list[tuple[bytes, Any]]:
        streams: Any = self._client.xreadgroup(_GROUP, self._consumer, {_STREAM: ">"}, count=limit)
        return [
            (entry, json.loads(fields[b"arguments"]))
            for _, entries in _streams(streams)
            for entry, fields in entries
        ]

    def complete(self, job: tuple[bytes, Any]) -> None:
        self._client.xack(_STREAM, _GROUP, job[0])

    def complete_many(self, jobs: Sequence[tuple[bytes, Any]]) -> None:
        self._client.xack(_STREAM, _GROUP, *(entry for entry, _ in jobs))

    def number(self, job: tuple[bytes, Any]) -> int:
        return int(job[1]["user"])

    def waiting(self) -> int:
        groups: Any = self._client.xinfo_groups(_STREAM)
        return int(groups[0]["lag"])

    def size(self) -> Size:
        files = (self._place / "appendonlydir").iterdir()
        size = sum(file.stat().st_size for file in files)
        return Size(size, size)


@asynccontextmanager
async def _async_insert(place: Path) -> AsyncIterator[AsyncInsert]:
    pool = redis.asyncio.BlockingConnectionPool.from_url(
        f"unix://{_socket(place)}", max_connections=_CONNECTIONS, timeout=None
    )
    async with redis.asyncio.Redis.from_pool(pool) as client:

        async def insert(row: Row) -> object:
            return await client.xadd(_STREAM, _fields(row))

        yield insert


def _fields(row: Row) -> dict[Any, Any]:
    return {"worker": row[0], "arguments": json.dumps(row[1])}


def _streams(answer: Any) -> Sequence[tuple[bytes, Any]]:
    """By name: of protocol 2 a list of pairs, of 3 a mapping to lists of lists."""
    if isinstance(answer, dict):
        return [(name, batch) for name, batches in answer.items() for batch in batches]
    return answer or []


def _socket(place: Path) -> Path:
    """Where the server of a directory listens: a path that is short enough for a socket."""
    digest = hashlib.sha256(str(place.resolve()).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"quelmdb-bench-{digest}.sock"


@contextmanager
def _server(place: Path, appendfsync: str) -> Iterator[None]:
    socket = _socket(place)
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "dir": str(place),
        "save": "",
        "appendonly": "yes",
        "appendfsync": appendfsync,
    }
    command = [_SERVER] + [part for name, value in options.items() for part in (f"--{name}", value)]
    with (
        (place / "redis.log").open("wb") as log,
        subprocess.Popen(command, stdout=log, stderr=log) as server,
    ):
        try:
            _wait_for(socket, server)
            yield
        finally:
            server.terminate()
            server.wait()
            socket.unlink(missing_ok=True)


def _wait_for(socket: Path, server: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + _PATIENCE
    with redis.Redis(unix_socket_path=str(socket)) as client:
        while True:
            try:
                client.ping()
                return
            except redis.ConnectionError:
                if server.poll() is not None or time.monotonic() > until:
                    raise
                time.sleep(0.01)


def _missing() -> str:
    return "" if shutil.which(_SERVER) else f"there is no {_SERVER} here"


def _peer(name: str, durability: Durability, setting: str) -> Peer:
    appendfsync = name.split()[-1]
    return Peer(
        name,
        "redis",
        durability,
        setting,
        lambda place, jobs: Redis(place),
        Redis,
        serve=lambda place: _server(place, appendfsync),
        open_async=lambda place, jobs: _async_insert(place),
        missing=_missing,
    )


PEERS: Final = (
    _peer(
        ALWAYS,
        Durability.FULL,
        "appendonly, appendfsync=always: one sync for all that arrived meanwhile",
    ),
    _peer(
        EVERYSEC,
        Durability.EPHEMERAL,
        "appendonly, appendfsync=everysec: loss of power undoes the last second or two",
    ),
)

FAIRNESS: Final = Fairness(
    "redis",
    "a server of its own on a unix socket, redis-py without hiredis; a stream and a group of "
    "consumers: XADD, XREADGROUP, XACK; a batch is one MULTI; "
    "the tasks of an event loop share 100 connections; JSON for arguments.",
    "clients on other hosts, blocking reads, a second core for the server, one sync for all "
    "clients that wait.",
    "a server to run; every job in memory; no statuses, no listing by them: they would be "
    "further structures for the client to keep; what a dead consumer held is given back by time "
    "(XAUTOCLAIM); the death of the server loses what everysec has not written.",
)
