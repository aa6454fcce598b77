"""TensorBoard's ``SummaryWriter`` without TensorFlow.

TensorBoard imports TensorFlow where it is installed, for nothing that we write. That takes ten
seconds, and TensorFlow and PyTorch with CUDA each bring an LLVM, of which two end the process.
TensorBoard takes its own stand-in where it finds a module of the name below.
"""

from __future__ import annotations

import sys
from types import ModuleType

import tensorboard.compat

tensorboard.compat.notf = sys.modules["tensorboard.compat.notf"] = ModuleType("notf")

from torch.utils.tensorboard import SummaryWriter  # noqa: E402

__all__ = ["SummaryWriter"]
