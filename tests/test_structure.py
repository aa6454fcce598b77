"""The house rules that a machine can check: who imports whom, and what a clone holds."""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = {"models", "data", "losses", "utils", "configs", "tools", "tests"}
SCRIPTS = {"train", "test", "evaluate"}

# Folder -> our packages that its files may import besides itself. Arrows point down only.
ALLOWED = {
    "utils": set(),
    "configs": {"utils"},
    "losses": {"utils"},
    "models": {"utils"},
    "data": {"utils"},
    "tools": {"models", "data", "losses", "utils", "configs"},
}
# What builds a run or a benchmark joins the packages, as the scripts do; no other file needs it.
COMPOSING = {"utils.training.build", "utils.training.dry_run", "utils.inference.benchmark"}


def imported(path: Path) -> set[str]:
    """Full names of the modules that a file imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def tops(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imported(path)}


@pytest.mark.parametrize("folder", ALLOWED)
def test_imports_point_down_only(folder: str) -> None:
    for path in (ROOT / folder).rglob("*.py"):
        ours, module = tops(path) & (OURS | SCRIPTS), ".".join(path.relative_to(ROOT).parts)[:-3]
        if module == "tools.benchmarks.training":  # it times train.py's own step
            ours -= {"train"}
        if module in COMPOSING:
            assert ours <= ALLOWED["tools"], f"{path} imports {ours}"
        else:
            assert ours <= ALLOWED[folder] | {folder}, f"{path} imports {ours}"
            assert folder == "tools" or not imported(path) & COMPOSING, path


def test_scripts_never_import_one_another_and_evaluate_needs_no_network() -> None:
    for script in SCRIPTS:
        found = tops(ROOT / f"{script}.py")
        assert not found & (SCRIPTS | {"tests", "tools"}), script
    assert not tops(ROOT / "evaluate.py") & {"models", "losses"}


def test_training_needs_no_scoring_of_folders() -> None:
    """The rooms of evaluate.py stay out of train.py, whichever file it imports."""
    seen, waiting = set(), {"train"}
    while waiting:
        name = waiting.pop()
        seen.add(name)
        path = ROOT / f"{name.replace('.', '/')}.py"
        path = path if path.is_file() else path.with_suffix("") / "__init__.py"
        if path.is_file() and name.split(".")[0] in OURS | SCRIPTS:
            waiting |= imported(path) - seen
    assert not [name for name in seen if name.startswith(("utils.evaluation", "data.results"))]
    assert "utils.metrics" in seen and "data.pairs" in seen


def test_a_network_file_is_whole() -> None:
    """It imports no other part of the project than the contract and shared blocks."""
    for path in (ROOT / "models").glob("*.py"):
        if path.name not in ("__init__.py", "registry.py", "foreign.py", "hub.py", "network.py"):
            ours = {name for name in imported(path) if name.split(".")[0] in OURS}
            allowed = {"models.network", "models.layers", "models.fast"}
            if path.stem.endswith("_fast"):  # and the formulas that it replaces
                allowed.add(f"models.{path.stem.removesuffix('_fast')}")
            assert ours <= allowed, path


def test_the_top_level_is_what_the_readme_says() -> None:
    """Of what git tracks: results, runs and photographs of a user may lie beside it."""
    if not (ROOT / ".git").exists():
        pytest.skip("needs a clone")
    command = ["git", "ls-files", "-z"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    tracked = {name.split("/")[0] for name in done.stdout.split("\0") if name}
    visible = {name for name in tracked if not name.startswith(".")}
    named = {
        *("models", "data", "losses", "utils", "configs", "tools", "tests", "weights"),
        *("train.py", "test.py", "evaluate.py", "training.yml", "requirements.txt"),
        *("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "CITATION.cff"),
        *("LICENSE", "Makefile", "pyproject.toml"),
    }
    optional = {"examples", "hubconf.py", "setup.py", "Dockerfile"}
    assert named <= visible <= named | optional, visible ^ named
