"""Where files cost no disk, for tests of what does not depend on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import pytest

MEMORY: Final = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""The directory, on systems that have it; None, which is that of temporary files, on others."""


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """In a module that takes it, the files of all tests are there."""
    with TemporaryDirectory(prefix="quelmdb-", dir=MEMORY) as name:
        yield Path(name)
