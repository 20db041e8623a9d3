"""The recordings of the real Que, replayed."""

from __future__ import annotations

import pytest

from quelmdb.persistence import Persistence
from quelmdb.testing.clock import ManualClock
from quelmdb.testing.harness import PersistenceHarness
from quelmdb.testing.replay import load_trace, replay, trace_names


class RecordingRules(PersistenceHarness):
    @pytest.mark.parametrize("name", trace_names())
    def test_it_does_what_que_did(self, store: Persistence, clock: ManualClock, name: str) -> None:
        trace = load_trace(name)
        operations = [step["op"] for step in trace["steps"]]
        compared = len(operations) - operations.index("initialize")
        assert replay(trace, store, clock) == compared
