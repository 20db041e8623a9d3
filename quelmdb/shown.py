"""How values are told in messages: shortened, whatever they are."""

from __future__ import annotations

import reprlib
from typing import Final

_MOST_BITS: Final = 1024


class _Shortened(reprlib.Repr):
    def repr_int(self, x: int, level: int) -> str:
        """Python refuses to turn those of more than 4,300 digits into text."""
        bits = x.bit_length()
        return super().repr_int(x, level) if bits <= _MOST_BITS else f"<int of {bits:,} bits>"


_shortened: Final = _Shortened()
_shortened.maxstring = _shortened.maxother = 80
_shortened.maxdict = _shortened.maxlist = 8


def shown(value: object) -> str:
    """A repr for messages, logs and debuggers: of what is long a part. Never raises."""
    return _shortened.repr(value)
