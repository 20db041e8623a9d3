"""The conformance kit: the contract as tests, for every store, also for those of others.

    from quelmdb.testing import JobStoreContract

    class TestMyStore(JobStoreContract):
        def open_store(self, directory, clock):
            return MyStore(directory, clock=clock)

`PersistenceContract` asks for what `quelmdb.persistence.Persistence` promises and
replays recordings of the real Que; `JobStoreContract` asks for all of `JobStore`.
Each test is named after the rule that it holds. docs/adapters.md tells more.
"""

try:
    import pytest
except ImportError as error:
    raise ImportError(
        "quelmdb.testing is a kit of tests and needs pytest: pip install 'quelmdb[test]'"
    ) from error

# Before the rules are imported, so that their failures show the values.
pytest.register_assert_rewrite("quelmdb.testing.harness", "quelmdb.testing.rules")

from quelmdb.testing.clock import ManualClock  # noqa: E402
from quelmdb.testing.contract import JobStoreContract, PersistenceContract  # noqa: E402
from quelmdb.testing.replay import Mismatch, load_trace, replay, trace_names  # noqa: E402

__all__ = [
    "JobStoreContract",
    "ManualClock",
    "Mismatch",
    "PersistenceContract",
    "load_trace",
    "replay",
    "trace_names",
]
