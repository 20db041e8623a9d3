"""Runs the proofs under faults at length, and writes their report:
`python -m tests.faults [PYTEST'S ARGUMENTS]`; with arguments, some of them anew."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import pytest

from bench.compare.machine import machine, versions
from tests.faults.keeping import Keeper, Proofs
from tests.faults.report import DURABILITY, FIGURES, HERE, REPORT, rendered, with_figures

_AT_LENGTH: Final = ("-n", "0", "--long")
_VERSIONS: Final = ("quelmdb", "Python", "lmdb", "cbor2")


def main(arguments: Sequence[str]) -> int:
    proofs = Proofs()
    if code := pytest.main([*_AT_LENGTH, "--collect-only", "-qq", str(HERE)], plugins=[proofs]):
        return int(code)
    found_versions = versions()  # before the run: the checkout may go on meanwhile
    keeper = Keeper(proofs.found, found_versions["quelmdb"])
    with TemporaryDirectory(dir=HERE) as place:  # for what a sync costs on this disk
        about: dict[str, Any] = {"machine": machine(Path(place))}
    about["versions"] = {name: found_versions[name] for name in _VERSIONS}
    code = pytest.main([*_AT_LENGTH, *(arguments or [str(HERE)])], plugins=[keeper])
    # Read behind the run: another one may have ended meanwhile.
    known = json.loads(FIGURES.read_text())["tests"] if FIGURES.exists() else {}
    found = about | {"tests": keeper.kept(known)}
    FIGURES.write_text(json.dumps(found, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    REPORT.write_text(rendered(found))
    DURABILITY.write_text(with_figures(DURABILITY.read_text(), found["tests"]))
    return int(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
