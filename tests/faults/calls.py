"""LMDB's calls of the system, seen and replaced in this process, without a compiler.

The extension module of py-lmdb has LMDB inside, and calls the C library through slots in a
table of its own (the GOT). Which slot is whose stands in the file's ELF headers; for the time
of a `with` block other functions, written in Python, stand in them. To be used in child
processes: what is replaced is replaced for the whole process.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import platform
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import lmdb  # noqa: F401 (its extension is looked into)
import pytest

Handler = Callable[..., int]
"""Is given the function that it replaces (which sets ctypes' errno), and its arguments."""

_INT, _PLACE, _SIZE, _RESULT = ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_ssize_t

_PROTOTYPES: Final = {
    name: ctypes.CFUNCTYPE(result, *arguments, use_errno=True)
    for name, result, arguments in (
        ("open", _INT, (ctypes.c_char_p, _INT, ctypes.c_uint)),
        ("pread", _RESULT, (_INT, _PLACE, _SIZE, ctypes.c_long)),
        ("pwrite", _RESULT, (_INT, _PLACE, _SIZE, ctypes.c_long)),
        ("write", _RESULT, (_INT, _PLACE, _SIZE)),
        ("writev", _RESULT, (_INT, _PLACE, _INT)),
        ("fdatasync", _INT, (_INT,)),
        ("fsync", _INT, (_INT,)),
        ("msync", _INT, (_PLACE, _SIZE, _INT)),
        ("ftruncate", _INT, (_INT, ctypes.c_long)),
    )
}

# elf(5); the machine's number, and its relocations that are slots (the psABIs)
_MACHINES: Final = {"x86_64": (62, {6, 7}), "aarch64": (183, {1025, 1026})}
_PT_LOAD, _PT_DYNAMIC = 1, 2
_PLTRELSZ, _STRTAB, _SYMTAB, _RELA, _RELASZ, _PLTREL, _JMPREL = 2, 5, 6, 7, 8, 20, 23

_kept: list[Any] = []  # callbacks: a thread may be inside of one whose block has ended


def failed(number: int) -> int:
    """What a handler returns for a call that is to fail."""
    ctypes.set_errno(number)
    return -1


def iovecs(place: int, count: int) -> list[tuple[int, int]]:
    """Address and length of each buffer of a writev."""
    words = struct.unpack(f"{2 * count}Q", ctypes.string_at(place, 16 * count))
    return list(zip(words[::2], words[1::2], strict=True))


@contextmanager
def replaced(handlers: dict[str, Handler]) -> Iterator[None]:
    """LMDB's calls of these names go to these handlers. What a handler raises makes its call
    fail with EIO, and is raised again at the end of the block."""
    slots = _slots()
    raised: list[BaseException] = []
    before = {}
    for name, handler in handlers.items():
        for slot in slots[name]:
            before[slot] = ctypes.c_void_p.from_address(slot).value
            callback = _callback(name, handler, raised)
            _kept.append(callback)
            _set(slot, ctypes.cast(callback, ctypes.c_void_p).value)
    try:
        yield
    finally:
        for slot, address in before.items():
            _set(slot, address)
    if raised:
        raise raised[0]


def _callback(name: str, handler: Handler, raised: list[BaseException]) -> Any:
    prototype = _PROTOTYPES[name]
    address = ctypes.cast(getattr(ctypes.CDLL(None), name), ctypes.c_void_p).value or 0
    original = prototype(address)

    def call(*arguments: Any) -> int:
        try:
            return handler(original, *arguments)
        except BaseException as error:
            raised.append(error)
            return failed(errno.EIO)

    return prototype(call)


def _set(slot: int, address: int | None) -> None:
    if not _is_writable(slot):  # full RELRO
        page = slot & -mmap.PAGESIZE
        protect = ctypes.CDLL(None, use_errno=True).mprotect
        if protect(ctypes.c_void_p(page), mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_WRITE):
            raise OSError(ctypes.get_errno(), "mprotect")
    ctypes.c_void_p.from_address(slot).value = address


def _maps() -> Iterator[tuple[int, int, str, int, str]]:
    """Start, end, rights, offset and file of each mapping (proc(5))."""
    with open("/proc/self/maps") as lines:
        for line in lines:
            fields = line.split(maxsplit=5)
            start, end = (int(part, 16) for part in fields[0].split("-"))
            yield start, end, fields[1], int(fields[2], 16), fields[5].strip() if fields[5:] else ""


def _is_writable(address: int) -> bool:
    return any(start <= address < end and "w" in rights for start, end, rights, *_ in _maps())


def _slots() -> dict[str, list[int]]:
    """The addresses of the slots through which the extension calls each function."""
    path = os.path.realpath(sys.modules["lmdb.cpython"].__file__ or "")
    with open(path, "rb") as file:
        elf = file.read()
    machine, kinds = _MACHINES[platform.machine()]
    if elf[:6] != b"\x7fELF\x02\x01" or struct.unpack_from("<H", elf, 18)[0] != machine:
        raise ValueError(f"{path} is no ELF file of this machine")
    (headers,) = struct.unpack_from("<Q", elf, 32)
    size, count = struct.unpack_from("<HH", elf, 54)
    segments = [
        struct.unpack_from("<IIQQQQ", elf, headers + number * size) for number in range(count)
    ]

    def offset(address: int) -> int:
        """Where in the file stands what is loaded at an address."""
        for kind, _, place, virtual, _, length in segments:
            if kind == _PT_LOAD and virtual <= address < virtual + length:
                return int(place + address - virtual)
        raise ValueError(f"{path}: nothing is loaded at {address:#x}")

    (dynamic,) = (segment for segment in segments if segment[0] == _PT_DYNAMIC)
    table = dict(struct.iter_unpack("<QQ", elf[dynamic[2] : dynamic[2] + dynamic[5] // 16 * 16]))
    if table[_PLTREL] != _RELA:
        raise ValueError(f"{path} has relocations of another kind than RELA")
    strings, symbols = offset(table[_STRTAB]), offset(table[_SYMTAB])
    first = min(segment[3] for segment in segments if segment[0] == _PT_LOAD)
    base = min(start for start, *_, file in _maps() if file == path) - first
    slots: dict[str, list[int]] = {name: [] for name in _PROTOTYPES}
    for tag, length in ((_JMPREL, _PLTRELSZ), (_RELA, _RELASZ)):
        start = offset(table[tag])
        for address, info, _ in struct.iter_unpack("<QQq", elf[start : start + table[length]]):
            if info & 0xFFFFFFFF in kinds:
                (name,) = struct.unpack_from("<I", elf, symbols + 24 * (info >> 32))
                end = elf.index(b"\0", strings + name)
                known = elf[strings + name : end].decode().removesuffix("64")
                if known in slots:
                    slots[known].append(base + address)
    return slots


def _why_not() -> str:
    """Why nothing can be replaced here; empty where it can be."""
    if sys.platform != "linux" or platform.machine() not in _MACHINES:
        return "LMDB's calls are replaced on Linux, x86-64 and aarch64, alone"
    if struct.calcsize("P") != 8 or sys.byteorder != "little":
        return "LMDB's calls are replaced on 64-bit little-endian machines alone"
    try:
        missing = [name for name, slots in _slots().items() if not slots]
    except (KeyError, ValueError, OSError) as error:
        return f"the extension of py-lmdb is not laid out as expected: {error}"
    return f"the extension of py-lmdb does not call {', '.join(missing)}" if missing else ""


needs_calls: Final = pytest.mark.skipif(bool(_why_not()), reason=_why_not())
