"""Networks of other projects, as far as spandrel recognises them, to compare with ours.

spandrel (https://github.com/chaiNNer-org/spandrel) recognises an architecture by the names in its
state dict; spandrel_extra_arches adds Restormer, MPRNet and others. Both are optional. spandrel's
own loader would execute TorchScript archives, so it is only given tensors that were read here.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import torch
from torch import Tensor, nn

from models.network import DerainingNetwork
from models.published.reader import read_state_dict
from utils.errors import UserError

if TYPE_CHECKING:
    from spandrel import ImageModelDescriptor

INSTALL = "pip install spandrel spandrel_extra_arches"


class ForeignNetwork(nn.Module):
    """A network of spandrel, with what the restorer needs to know about it."""

    tile_step = 32
    released_window = None
    best_tile = None
    info: ClassVar[dict[str, Any]] = {}  # its file states nothing about training

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
        """(B, 3, H, W), RGB in [0, 1], to the same; one image at a time, as spandrel requires."""
        return torch.cat([self.descriptor(image) for image in rainy.split(1)])


AnyNetwork: TypeAlias = DerainingNetwork | ForeignNetwork


def load_foreign(path: str | Path, notify: Callable[[str], None] = print) -> ForeignNetwork:
    """The network in another project's weights file, in eval mode on the CPU.

    ``path`` is a .safetensors file or one that ``torch.save`` wrote, under any suffix. ``notify``
    gets a sentence if something in the file was left out or chosen.

    Raises UserError for a file that is missing, damaged or could execute code, if spandrel is not
    installed or does not recognise the network, and for networks that do not map RGB images to RGB
    images of the same size.
    """
    found = read_state_dict(Path(path))
    if found.note:
        notify(found.note)
    try:
        import spandrel
    except ImportError as error:
        raise UserError(f"--model spandrel needs a package: {INSTALL}") from error
    try:
        import spandrel_extra_arches

        spandrel_extra_arches.install(ignore_duplicates=True)
        missing = ""
    except ImportError:
        missing = " (spandrel_extra_arches, which knows more networks, is not installed)"
    entries = spandrel.canonicalize_state_dict(found.entries)
    try:
        descriptor = spandrel.ModelLoader("cpu").load_from_state_dict(entries)
    except spandrel.UnsupportedModelError as error:
        raise UserError(f"spandrel does not recognise the network in {path}{missing}.") from error
    # Raised by its architectures if names look right but shapes do not.
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError,
            ValueError) as error:  # fmt: skip
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"spandrel cannot build the network in {path}: {reason}") from error
    if not isinstance(descriptor, spandrel.ImageModelDescriptor) or (
        (descriptor.input_channels, descriptor.output_channels, descriptor.scale) != (3, 3, 1)
    ):
        raise UserError(
            f"{path} holds {descriptor.architecture.name}, which does not map RGB images to RGB "
            "images of the same size."
        )
    return ForeignNetwork(descriptor.eval())
