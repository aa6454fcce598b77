"""``pip install .`` is refused in a sentence that says what to do instead."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import ROOT


@pytest.mark.parametrize("options", [(), ("--editable",)])
def test_pip_install_says_why_not(options: tuple[str, ...], tmp_path: Path) -> None:
    for name in ("pyproject.toml", "README.md", "LICENSE", "requirements.txt"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "tools").mkdir()
    shutil.copy(ROOT / "tools" / "refuse_install.py", tmp_path / "tools")
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--target", tmp_path / "site"]
    done = subprocess.run(
        [*map(str, pip), *options, str(tmp_path)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1
    assert "Petrichor runs from its clone" in done.stdout + done.stderr
    assert "pip install -r requirements.txt" in done.stdout + done.stderr
    assert not (tmp_path / "site").exists()
