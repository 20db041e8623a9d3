"""The numbers that a store gives out next: ids, claims, owners, workers.

They are read when they are first needed, and again only after another process has
written. What changed is written once, before the commit.
"""

from __future__ import annotations

from quelmdb.engine import Database, Transaction
from quelmdb.errors import CorruptStoreError, StoreFullError
from quelmdb.layout import pack_number, unpack_number


class Counters:
    """Those of one store, for one write transaction after the other."""

    __slots__ = ("_changed", "_meta", "_next", "_transaction", "_values", "are_known", "number")

    _transaction: Transaction

    def __init__(self, meta: Database) -> None:
        self._meta = meta
        self._values: dict[bytes, int] = {}
        self._changed: dict[bytes, int] = {}
        self.number = 0
        """Of the transaction: that of no other which is committed and changes anything."""
        self._next = 0  # that of the next one, if nobody else writes meanwhile; 0: not known
        self.are_known = False
        """Whether the last transaction of the store was one of this process."""

    def begin(self, transaction: Transaction) -> None:
        """A write transaction has begun. LMDB numbers those that change anything."""
        self._transaction = transaction
        self.number = transaction.id()
        self.are_known = self.number == self._next
        self._next = 0
        if not self.are_known:
            self._values.clear()
        if self._changed:
            self._changed = {}

    def finish(self) -> None:
        """Writes what changed."""
        for name, value in self._changed.items():
            self._transaction.put(name, pack_number(value), db=self._meta)

    def committed(self) -> None:
        """The transaction was committed. Where it has written a counter it has taken its
        number, and what is remembered holds until the next one has another."""
        if self._changed:
            self._next = self.number + 1

    def value(self, name: bytes) -> int:
        """The number that is given out next."""
        value = self._values.get(name)
        if value is None:
            stored = self._transaction.get(name, db=self._meta)
            if stored is None:
                raise CorruptStoreError(f"the store has no counter {name.decode()}")
            value = self._values[name] = unpack_number(stored)
            if value == 0:
                raise CorruptStoreError(f"the counter {name.decode()} is 0")
        return value

    def next(self, name: bytes, limit: int, count: int = 1) -> int:
        """The first of the next `count` numbers, given out once. Raises `StoreFullError`
        beyond `limit`."""
        value = self._values.get(name) or self.value(name)
        after = value + count
        if after > limit + 1:
            raise StoreFullError(f"{name.decode()}: all {limit:,} numbers are given out")
        self._values[name] = self._changed[name] = after
        return value

    def advance(self, name: bytes, taken: int) -> None:
        """Moves it above a number that came from elsewhere."""
        if taken >= self.value(name):
            self._values[name] = self._changed[name] = taken + 1
