"""TensorBoard's ``SummaryWriter`` without TensorFlow.

If TensorFlow is installed, TensorBoard imports it, although scalars and images do not need it. That
takes ten seconds, and the process crashes, because TensorFlow and PyTorch with CUDA each load their
own LLVM. A module named ``tensorboard.compat.notf`` makes TensorBoard use its built-in substitute.
"""

from __future__ import annotations

import sys
from types import ModuleType

import tensorboard.compat

tensorboard.compat.notf = sys.modules["tensorboard.compat.notf"] = ModuleType("notf")

from torch.utils.tensorboard import SummaryWriter  # noqa: E402

__all__ = ["SummaryWriter"]
