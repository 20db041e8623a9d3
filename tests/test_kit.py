"""The kit works for authors elsewhere: it imports, no rule hides another, and it finds faults."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from quelmdb.memory import MemoryStore
from quelmdb.testing import JobStoreContract, ManualClock, PersistenceContract

_OUTSIDER = '''
from quelmdb.memory import MemoryStore
from quelmdb.memory import MemoryStore
from quelmdb.testing import JobStoreContract

class Forgetful(MemoryStore):
    def destroy(self, job_or_id):
        """Leaves the job, and the list of ids without it."""
        job = self.find(job_or_id)
        if job is not None:
            self._table.ids.remove(job.id)

class TestForgetful(JobStoreContract):
    def open_store(self, directory, clock):
        assert list(directory.iterdir()) == []
        return Forgetful(clock=clock)
'''


def test_without_pytest_the_import_says_what_is_missing() -> None:
    code = "import sys; sys.modules['pytest'] = None; import quelmdb.testing"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "ImportError: quelmdb.testing is a kit of tests and needs pytest" in run.stderr


def test_the_library_does_not_import_the_kit() -> None:
    code = "import quelmdb, sys; assert not {'pytest', 'quelmdb.testing'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_no_rule_hides_another_of_the_same_name() -> None:
    names = Counter(
        name
        for rules in inspect.getmro(JobStoreContract)
        for name in vars(rules)
        if name.startswith("test_")
    )
    assert len(names) > 400
    assert [name for name, count in names.items() if count > 1] == []


def test_a_job_store_is_asked_all_that_persistence_is_asked() -> None:
    assert issubclass(JobStoreContract, PersistenceContract)


def test_an_author_who_forgets_the_factory_is_told() -> None:
    with pytest.raises(NotImplementedError, match="open_store"):
        JobStoreContract().open_store(Path(), ManualClock())
    with pytest.raises(NotImplementedError, match="reopen"):
        JobStoreContract().reopen(MemoryStore(), Path(), ManualClock())


def test_a_fault_of_a_store_elsewhere_fails_its_tests(tmp_path: Path) -> None:
    (tmp_path / "test_outsider.py").write_text(_OUTSIDER)
    rules = ["destroy_takes_an_id_or_a_job_of_which_only_the_id_counts", "a_chosen_id_is_kept"]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        + [f"test_outsider.py::TestForgetful::test_{rule}" for rule in rules],
        cwd=tmp_path,
        env={"PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1
    assert "1 failed, 1 passed, 1 error" in run.stdout
    assert "assert store.find(first) is None" in run.stdout  # found by the rule,
    assert "Problem(rule='ids'" in run.stdout  # and by the check after it
