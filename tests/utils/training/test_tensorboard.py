"""Training must not meet TensorFlow, where that is installed."""

from __future__ import annotations

import subprocess
import sys

from tests.helpers import ROOT

SCRIPT = """
import sys
import torch
import train
# PyTorch loads its own LLVM here, the second one beside TensorFlow's
torch.nn.functional.gelu(torch.empty(1, device="meta"))
print("tensorflow" in sys.modules)
"""


def test_training_does_not_import_tensorflow() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert (done.returncode, done.stdout) == (0, "False\n"), done.stderr[-500:]
