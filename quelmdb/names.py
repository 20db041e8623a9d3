"""Worker names as numbers: interned once, so that keys and records stay small."""

from __future__ import annotations

from collections.abc import Mapping

from quelmdb.engine import Databases, Transaction, put_new
from quelmdb.errors import StoreFullError
from quelmdb.layout import (
    MAX_WORKER,
    NO_WORKER,
    STATUS_CODES,
    STATUS_KEYS,
    Damaged,
    pack_number,
    unpack_number,
    worker_status_key,
)
from quelmdb.status import Status

Kind = tuple[int, int, bytes, bytes]
"""Of the jobs of a worker that have a status: worker number, status code, and their keys
in both indexes."""


def kind(worker: int, status: Status) -> Kind:
    code = STATUS_CODES[status]
    return worker, code, STATUS_KEYS[code], worker_status_key(worker, code)


class Names:
    """The worker names of a store. What is committed never changes, so it is
    remembered for the whole process. A name that the open write transaction has
    interned must not be asked for here: it may never be committed."""

    def __init__(self, databases: Databases) -> None:
        self._databases = databases
        self._numbers: dict[str | None, int] = {None: NO_WORKER}
        self._names: dict[int, str | None] = {NO_WORKER: None}
        self.kinds: dict[tuple[str | None, Status], Kind] = {}
        """Of workers that are remembered."""

    @property
    def known(self) -> Mapping[int, str | None]:
        """The names that are remembered, by number; for those that read many jobs."""
        return self._names

    def number(self, transaction: Transaction, name: str | None) -> int | None:
        """The number of a name, None where it was never interned. Raises `Damaged`
        where it is damaged."""
        number = self._numbers.get(name)
        if number is None and name is not None:
            found = transaction.get(name.encode(), db=self._databases.workers)
            if found is not None:
                number = unpack_number(found)
                self._verify(transaction, name, number)
        return number

    def name(self, transaction: Transaction, number: int) -> str | None:
        """The name of a number. Raises `Damaged` where it has none, or is damaged."""
        if number in self._names:
            return self._names[number]
        found = transaction.get(pack_number(number), db=self._databases.worker_names)
        if found is None:
            raise Damaged(f"its worker number {number} has no name")
        try:
            name = found.decode()
        except UnicodeDecodeError:
            raise Damaged(f"the name of its worker number {number} is no text") from None
        self._verify(transaction, name, number)
        return name

    def _verify(self, transaction: Transaction, name: str, number: int) -> None:
        """Remembers a pair which both databases have: neither has a checksum."""
        key, value = pack_number(number), name.encode()
        if (
            number > MAX_WORKER
            or transaction.get(key, db=self._databases.worker_names) != value
            or transaction.get(value, db=self._databases.workers) != key
        ):
            raise Damaged(f"the worker name {name!r} or its number {number} is damaged")
        self.remember({name: number})

    def intern(self, transaction: Transaction, name: str, number: int) -> None:
        """Within a write transaction: gives a new name its number. To be remembered
        only after the commit."""
        if number > MAX_WORKER:
            raise StoreFullError(f"all {MAX_WORKER:,} worker numbers are given out")
        key, value = pack_number(number), name.encode()
        put_new(transaction, self._databases.worker_names, key, value)
        transaction.put(value, key, db=self._databases.workers)

    def remember(self, numbers: dict[str, int]) -> None:
        """Keeps what a committed transaction holds."""
        for name, number in numbers.items():
            self._numbers[name] = number
            self._names[number] = name
