"""The layers of the library, and what the package is made of."""

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_import_points_down_the_layers() -> None:
    code = "from importlinter.cli import lint_imports_command as run; run(['--no-cache'])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_package_of_the_checkout_is_shipped() -> None:
    below = sorted(str(path.parent.relative_to(ROOT)) for path in ROOT.glob("quelmdb/**/*.py"))
    packages = {name.replace("/", ".") for name in below} | {"quelmdb.tools"}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == packages


def test_the_library_depends_on_lmdb_and_cbor2_alone() -> None:
    assert PROJECT["project"]["dependencies"] == ["lmdb>=3", "cbor2>=6"]


def test_the_readme_has_the_two_commands_that_ci_runs() -> None:
    readme = (ROOT / "README.md").read_text()
    for name, last in (("demo", "quelmdb demo"), ("tests", ".venv/bin/pytest")):
        block = readme.split(f"<!-- {name} -->\n```sh\n")[1].split("\n```")[0]
        assert "\n" not in block
        assert block.startswith("python3 -m venv .venv && ")
        assert block.endswith(last)
        assert f"run_readme_command {name}" in (ROOT / ".ci/run").read_text()
