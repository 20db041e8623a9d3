"""The demo's worker, and the example to read first: it stands on quelmdb's public API alone.

A job is a Python file. Any number of processes run `Index` on the same store, by
`quelmdb.runner.run` or `quelmdb run`. When one dies, what it held is run again by another.
"""

from __future__ import annotations

import ast
import hashlib
import os
import time
import warnings
from pathlib import Path
from typing import Any, Final

from quelmdb import Job
from quelmdb.runner import Discard, Worker

WORKER: Final = "demo.index"


class Index(Worker):
    """Indexes a file. A death of its process is worth another attempt, as it may not be the
    file's fault; a file that cannot be parsed now cannot be parsed later."""

    name = WORKER

    def __init__(self) -> None:
        warnings.simplefilter("ignore")  # that parsing raises about the files

    def perform(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Returns what `index` found, or discards the job with the reason."""
        try:
            return index(path_of(arguments))
        except Exception as error:
            raise Discard(f"{type(error).__name__}: {error}") from error


def job_for(path: Path, root: Path) -> Job:
    """The job of indexing a file below `root`."""
    return Index.job({"path": portable(path.relative_to(root)), "root": portable(root)})


def path_of(arguments: dict[str, Any]) -> Path:
    """The file that a job is about. Raises `KeyError` or `TypeError` where it is about none."""
    return Path(os.fsdecode(arguments["root"]), os.fsdecode(arguments["path"]))


def index(path: Path) -> dict[str, Any]:
    """Hashes a file, parses it, and counts what it defines. Raises what `ast.parse` does."""
    started = time.perf_counter()
    source = path.read_bytes()
    nodes = list(ast.walk(ast.parse(source, filename=path.name)))
    return {
        "sha256": hashlib.sha256(source).hexdigest(),
        "lines": source.count(b"\n"),
        "functions": sum(isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef)) for n in nodes),
        "classes": sum(isinstance(n, ast.ClassDef) for n in nodes),
        "seconds": time.perf_counter() - started,
    }


def portable(path: Path) -> str | bytes:
    """The path as text, or as bytes where its name is no text."""
    name = os.fsencode(path)
    try:
        return name.decode()
    except UnicodeDecodeError:
        return name
