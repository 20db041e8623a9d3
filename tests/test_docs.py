"""Code in the README and in docs/ runs, and what they tabulate is what the code has."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from quelmdb.status import TRANSITIONS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
WITH_CODE = [page for page in PAGES if "```python" in page.read_text(encoding="utf-8")]


def _code(page: Path, language: str = "python") -> list[str]:
    fenced = rf"^```{language}\n(.*?)^```"
    return re.findall(fenced, page.read_text(encoding="utf-8"), re.S | re.M)


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: page.name)
def test_the_code_of_a_page_runs_from_top_to_bottom(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "documentation"}
    for block in _code(page):
        exec(compile(block, str(page), "exec"), namespace)


def test_the_commands_for_operators_run_from_top_to_bottom(tmp_path: Path) -> None:
    script = "\n".join(_code(ROOT / "docs" / "operating.md", "sh"))
    here = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    bash = ["bash", "-euxo", "pipefail", "-c", script]
    ended = subprocess.run(
        bash, cwd=tmp_path, env=os.environ | {"PATH": here}, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def _transitions() -> list[tuple[str, str, str]]:
    return [
        (verb, before.value, after.value)
        for verb, changes in TRANSITIONS.items()
        for before, after in changes
    ]


def test_the_table_of_transitions_is_the_one_in_the_code() -> None:
    text = (ROOT / "docs" / "state-machine.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (\w+) \|", text, re.M)
    assert sorted(rows) == sorted(_transitions())


def test_the_diagram_of_transitions_has_every_verb() -> None:
    text = (ROOT / "docs" / "state-machine.md").read_text(encoding="utf-8")
    arrows = re.findall(r"^    (\w+) --> (\w+): (\w+)$", text, re.M)
    known = {(verb, before, after) for before, after, verb in arrows if verb in TRANSITIONS}
    assert known == set(_transitions())
