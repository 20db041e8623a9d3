"""A generation that is being opened: an interrupt at any line leaves nothing open."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType
from typing import Any

import lmdb
import pytest

import quelmdb
from quelmdb import environment, layout
from quelmdb.engine import Engine, open_engine
from quelmdb.environment import Environment


@pytest.mark.parametrize("readonly", [False, True])
def test_an_interrupt_at_any_line_of_opening_leaves_no_engine_open(
    readonly: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "jobs.qdb"
    quelmdb.open(path).close()
    directory = path / layout.generation_name(layout.FIRST_GENERATION)
    engines: list[Engine] = []

    def opened(*args: Any, **options: Any) -> Engine:
        engines.append(open_engine(*args, **options))
        return engines[-1]

    monkeypatch.setattr(environment, "open_engine", opened)
    for lines in range(1, 100):
        left = lines

        def interrupt(frame: FrameType, event: str, arg: object) -> Any:
            nonlocal left
            if frame.f_code is not Environment.__init__.__code__:
                return None
            if event == "line" and engines:
                left -= 1
                if left == 0:
                    raise KeyboardInterrupt
            return interrupt

        engines.clear()
        sys.settrace(interrupt)
        try:
            Environment(directory, ephemeral=False, readonly=readonly, check=lambda meta: None)
        except KeyboardInterrupt:
            sys.settrace(None)
            (engine,) = engines
            with pytest.raises(lmdb.Error, match="closed"):
                engine.info()
        else:
            sys.settrace(None)
            engines[0].close()
            break
    assert 5 < lines < 99
