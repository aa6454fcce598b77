"""Training must not import TensorFlow, even if that is installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.helpers import ROOT

SCRIPT = "import sys, train; print('tensorflow' in sys.modules)"


def test_training_does_not_import_tensorflow(tmp_path: Path) -> None:
    """A package of that name stands for it."""
    (tmp_path / "tensorflow").mkdir()
    (tmp_path / "tensorflow" / "__init__.py").write_text("")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "False\n"), done.stderr[-500:]
