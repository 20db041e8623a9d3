"""What a store says of itself: written when it is made, checked before anything else is read."""

from __future__ import annotations

import uuid
from pathlib import Path

from quelmdb import layout
from quelmdb.durability import EPHEMERAL, FULL
from quelmdb.errors import CorruptStoreError, UnsupportedFormatError


def new_meta(durability: str) -> list[tuple[bytes, bytes]]:
    """The content of `meta` of a new store."""
    return [
        layout.IDENTITY,
        (layout.FORMAT_KEY, layout.pack_number(layout.FORMAT_VERSION)),
        (layout.FEATURES_KEY, layout.OPTIONS_FEATURE),
        (layout.WRITE_FEATURES_KEY, b""),
        layout.BYTE_ORDER,
        (layout.DURABILITY_KEY, durability.encode()),
        (layout.UUID_KEY, uuid.uuid4().bytes),
        (layout.NEXT_ID, layout.pack_number(1)),
        (layout.NEXT_CLAIM, layout.pack_number(1)),
        (layout.NEXT_OWNER, layout.pack_number(1)),
        (layout.NEXT_WORKER, layout.pack_number(1)),
    ]


def check_meta(where: Path, meta: dict[bytes, bytes], *, ephemeral: bool, readonly: bool) -> None:
    """Raises where this is no store, or none that this version can serve. `ephemeral`: whether
    it has the mark of one."""
    path, marked = str(where), EPHEMERAL if ephemeral else FULL
    key, magic = layout.IDENTITY
    if meta.get(key) != magic:
        raise CorruptStoreError(f"{path} has no identity: it is not quelmdb's", path=path)
    version = layout.unpack_number(meta.get(layout.FORMAT_KEY, b""))
    if version != layout.FORMAT_VERSION:
        raise UnsupportedFormatError(
            f"{path} has format {version}, and this quelmdb knows {layout.FORMAT_VERSION}; "
            "use a version of quelmdb that knows it",
            path=path,
            expected=layout.FORMAT_VERSION,
            found=version,
        )
    known = layout.OPTIONS_FEATURE.decode()
    served = [
        ("byte order", layout.BYTE_ORDER[0], [layout.BYTE_ORDER[1].decode()]),
        ("features", layout.FEATURES_KEY, [known, ""]),
    ]
    if not readonly:
        served.append(("features for writing", layout.WRITE_FEATURES_KEY, [""]))
    for name, key, expected in served:
        found = meta.get(key, b"").decode(errors="replace")
        if found not in expected:
            raise UnsupportedFormatError(
                f"{path} has the {name} {found!r}, and this quelmdb serves {expected[0]!r} "
                "alone; use a version of quelmdb that knows it",
                path=path,
                expected=expected[0],
                found=found,
            )
    durability = meta.get(layout.DURABILITY_KEY, b"").decode(errors="replace")
    if durability not in (FULL, EPHEMERAL):
        raise UnsupportedFormatError(
            f"{path} has the durability {durability!r}, and this quelmdb knows {FULL!r} and "
            f"{EPHEMERAL!r}; use a version of quelmdb that knows it",
            path=path,
            expected=(FULL, EPHEMERAL),
            found=durability,
        )
    if durability != marked:
        raise CorruptStoreError(
            f"{path} is {durability}, and an ephemeral store alone has a file "
            f"{layout.BOOT_FILE}; "
            + ("make an empty one" if durability == EPHEMERAL else "delete it"),
            path=path,
            expected=marked,
            found=durability,
        )
