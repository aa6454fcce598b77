"""Networks of others, so that their rows can stand beside ours: whatever spandrel recognises.

spandrel (https://github.com/chaiNNer-org/spandrel) tells an architecture from the names in a file
of weights; spandrel_extra_arches adds Restormer, MPRNet and others. Both are optional.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from utils.checkpoints import require_file
from utils.errors import UserError

if TYPE_CHECKING:
    from spandrel import ImageModelDescriptor

INSTALL = "pip install spandrel spandrel_extra_arches"
# Of its own formats spandrel reads these without executing anything.
SUFFIXES = (".pth", ".ckpt", ".safetensors")


class ForeignNetwork(nn.Module):
    """A network of spandrel with what restoring needs to know of it."""

    tile_step = 32
    released_window = None
    best_tile = None

    def __init__(self, descriptor: ImageModelDescriptor) -> None:
        super().__init__()
        self.network = descriptor.model  # registered, so that it moves between devices
        self.descriptor = descriptor
        self.size_multiple = descriptor.size_requirements.multiple_of
        self.min_size = max(descriptor.size_requirements.minimum, 1)

    def compile_restoring(self) -> None:
        """As ``DerainingNetwork.compile_restoring``."""
        self.restore = torch.compile(self.restore)  # type: ignore[method-assign]

    def restore(self, rainy: Tensor) -> Tensor:
        """(B, 3, H, W), RGB in [0, 1], to the same, one image at a time as spandrel takes them."""
        return torch.cat([self.descriptor(image) for image in rainy.split(1)])


def load_foreign(path: str | Path) -> ForeignNetwork:
    """The network that a weights file of others holds, in eval mode on the CPU.

    Raises UserError where spandrel is missing or does not know the file, and for networks that do
    not map RGB images to RGB images of the same size.
    """
    path = Path(path)
    try:
        import spandrel
    except ImportError as error:
        raise UserError(f"--model spandrel needs a package: {INSTALL}") from error
    try:
        import spandrel_extra_arches

        spandrel_extra_arches.install(ignore_duplicates=True)
        missing = ""
    except ImportError:
        missing = " (spandrel_extra_arches, which knows more, is not installed)"
    require_file(path)
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(
            f"{path} is no weights file for spandrel; take one of {' '.join(SUFFIXES)}."
        )
    try:
        descriptor = spandrel.ModelLoader("cpu").load_from_file(path)
    except spandrel.UnsupportedModelError as error:
        raise UserError(f"spandrel does not know the network in {path}{missing}.") from error
    # All that its readers raise on damaged files.
    except (ArithmeticError, AttributeError, EOFError, LookupError, OSError, RuntimeError,
            TypeError, ValueError, pickle.UnpicklingError) as error:  # fmt: skip
        raise UserError(f"{path} is truncated or no weights file: {error}") from error
    if not isinstance(descriptor, spandrel.ImageModelDescriptor) or (
        (descriptor.input_channels, descriptor.output_channels, descriptor.scale) != (3, 3, 1)
    ):
        raise UserError(
            f"{path} holds {descriptor.architecture.name}, which does not map RGB images to RGB "
            "images of the same size."
        )
    return ForeignNetwork(descriptor.eval())
